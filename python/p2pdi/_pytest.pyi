# Written by stubs.py. Do not edit.
import pytest
from collections.abc import Callable as Callable, Iterator
from typing import Any

@pytest.fixture
def p2pdi_network() -> Iterator[Callable[..., Any]]: ...
