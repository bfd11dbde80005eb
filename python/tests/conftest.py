"""What the tests have in common: programs that run in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

# Longest wait for anything: far more than it takes, so that tests pass on a busy machine.
PATIENCE = 60.0


@pytest.fixture
def program() -> Any:
    """Runs a program of Python, and returns its exit code and what it printed."""

    def run(text: str, *arguments: str, timeout: float = PATIENCE) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def until(check: Callable[[], Any], what: str) -> Any:
    """Repeats a check until it is true."""
    end = time.monotonic() + PATIENCE
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.02)
