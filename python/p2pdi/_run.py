"""Waiting for calls, with a thread or an event loop."""

from __future__ import annotations

import atexit
import os
import time

from ._errors import PeerTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Any, TypeVar

    from ._p2pdi import Call

    T = TypeVar("T")
    Seconds = float | timedelta
    Body = str | bytes | bytearray | memoryview
    StrPath = str | os.PathLike[str]

# Ctrl-C is seen after so many seconds at most: between two slices Python runs the handlers of signals.
SLICE = 0.1


def seconds(duration: Seconds) -> float:
    """A duration in seconds, of a number or a ``timedelta``."""
    if isinstance(duration, (int, float)):
        return float(duration)
    return duration.total_seconds()


def body(content: Body) -> bytes:
    """The bytes of a message."""
    return content.encode() if isinstance(content, str) else bytes(content)


def names(given: str | Iterable[str]) -> list[str]:
    """One name, or several."""
    return [given] if isinstance(given, str) else [str(one) for one in given]


def address(given: str | tuple[str, int]) -> str:
    """An address as text: ``"host:port"``, ``"name@host:port"`` or ``(host, port)``."""
    if isinstance(given, str):
        return given
    host, port = given
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def wait(call: Call[T], timeout: Seconds | None = None, what: str = "the call") -> T:
    """Waits for the result of a call."""
    try:
        if timeout is None:
            while not call.wait(SLICE):
                pass
            return call.result()
        limit = seconds(timeout)
        until = time.monotonic() + limit
        left = limit
        while not call.wait(min(max(left, 0.0), SLICE)):
            left = until - time.monotonic()
            if left <= 0:
                raise PeerTimeout(f"{what}: no answer within {limit:g} s")
        return call.result()
    except BaseException:
        # A call that is interrupted ends, also on the other side.
        call.cancel()
        raise


_open: Any = None


def track(thing: Any) -> None:
    """Closes ``thing`` when the interpreter ends, if it is open then: threads that wait for it go on, and end."""
    global _open
    if _open is None:
        import threading
        import weakref

        _open = weakref.WeakSet()
        # Before threads are joined that may wait for a peer. Without this hook: after that.
        register: Any = getattr(threading, "_register_atexit", atexit.register)
        register(_close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forget_all)
    _open.add(thing)


def _close_all() -> None:
    for thing in list(_open):
        try:
            thing._end()
        except Exception:  # At the end nobody can do anything about it.
            pass


def _forget_all() -> None:
    # What the parent process has is not this one's to close.
    _open.clear()
