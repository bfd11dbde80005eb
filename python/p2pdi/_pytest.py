"""The plug-in of pytest: the fixture ``p2pdi_network``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture
def p2pdi_network() -> Iterator[Callable[..., Any]]:
    """Makes networks that end with the test: ``one, two, three = p2pdi_network(3)``."""
    from .testing import Network, network

    with ExitStack() as opened:

        def make(count: int = 3, **options: Any) -> Network:
            return opened.enter_context(network(count, **options))

        yield make
