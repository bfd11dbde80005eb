"""Waiting for calls, with a thread or an event loop."""

from __future__ import annotations

import atexit
import os
import time

from ._errors import Invalid, PeerTimeout
from ._p2pdi import Document, Mailbox, PeerInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from os import PathLike
    from typing import Any, TypeAlias, TypeVar

    from ._p2pdi import Call

    T = TypeVar("T")
    Seconds: TypeAlias = float | timedelta
    Body: TypeAlias = str | bytes | bytearray | memoryview
    StrPath: TypeAlias = str | PathLike[str]
    Named: TypeAlias = str | Document | PeerInfo
    Address: TypeAlias = str | tuple[str, int] | PeerInfo

# A call that takes no longer is waited for without further ado; Ctrl-C is seen after it.
SLICE = 0.05
# A signal ends a longer wait of the main thread at once. One that another thread was given is seen after so many seconds.
LOOK_FOR_SIGNALS = 0.1
# How long closing a peer waits for handlers that are at work.
GRACE = 2.0
# Of a thread that gets no signals: how long it waits at once.
ELSEWHERE = 1.0


def seconds(duration: Seconds) -> float:
    """A duration in seconds, of a number or a ``timedelta``."""
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        given: float | None = float(duration)
    else:
        total = getattr(duration, "total_seconds", None)
        given = None if total is None else float(total())
    if given is None:
        raise TypeError(f"a duration is a number of seconds or a timedelta, not {duration!r}")
    if given != given:
        raise Invalid("a duration is a number of seconds, not NaN")
    return given


def body(content: Body) -> bytes:
    """The bytes of a message."""
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, bytes):
        return content
    if isinstance(content, int):
        # `bytes` would make so many zeros of it.
        raise TypeError(f"the body of a message is str or bytes, not {content!r}")
    return bytes(content)


def names(given: Named | Iterable[Named]) -> list[str]:
    """One name, or several: of documents or peers, or what listed them."""
    if isinstance(given, (str, Document, PeerInfo)):
        return [name(given)]
    return [name(one) for one in given]


def name(given: Named) -> str:
    """What a document or a peer is asked for by."""
    if isinstance(given, str):
        return given
    if isinstance(given, Document):
        return given.hash
    if isinstance(given, PeerInfo):
        return given.name
    raise TypeError(f"give a name, or what a listing has, not {given!r}")


def address(given: Address) -> str:
    """An address as text: ``"host:port"``, ``"name@host:port"``, ``(host, port)``, or of a peer that was listed."""
    if isinstance(given, str):
        return given
    if isinstance(given, PeerInfo):
        return str(given)
    host, port = given
    if not isinstance(host, str) or not isinstance(port, int):
        raise TypeError(f"an address is (host, port), not {given!r}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses(given: Address | Iterable[Address]) -> list[str]:
    """One address, or several."""
    if isinstance(given, (str, PeerInfo)):
        return [address(given)]
    several: list[Any] = list(given)
    if len(several) == 2 and isinstance(several[1], int):
        return [address((several[0], several[1]))]
    return [address(one) for one in several]


def certificates(files: tuple[StrPath, StrPath, StrPath] | None) -> tuple[str, str, str] | None:
    """The paths of a certificate, its key and CAs, if there are any."""
    if files is None:
        return None
    cert, key, ca = files
    return os.fspath(cert), os.fspath(key), os.fspath(ca)


def at_least_1(what: str, given: int | None) -> int | None:
    """A number of bytes, or of bytes a second, if there is one."""
    if given is not None and given < 1:
        raise Invalid(f"{what} is {given}; give at least 1, or None")
    return given


def wait(call: Call[T], timeout: Seconds | None = None, what: str = "the call") -> T:
    """Waits for the result of a call."""
    try:
        limit = None if timeout is None else seconds(timeout)
        if not call.wait(SLICE if limit is None else min(max(limit, 0.0), SLICE)) and not _wait_longer(call, limit):
            raise PeerTimeout(f"{what}: no answer within {limit:g} s")
        return call.result()
    except BaseException:
        # A call that is interrupted ends, also on the other side.
        call.cancel()
        raise


def _wait_longer(call: Call[Any], limit: float | None) -> bool:
    """Waits for a call that takes longer than a slice, of which that is past. Returns whether it is done."""
    until = None if limit is None else time.monotonic() + limit - SLICE
    import threading

    if threading.current_thread() is not threading.main_thread():
        while True:
            left = ELSEWHERE if until is None else until - time.monotonic()
            if left <= 0:
                return False
            if call.wait(min(left, ELSEWHERE)):
                return True
    # Python runs handlers of signals in this thread only. The system ends a wait for a file descriptor when one comes, and no other.
    import select

    mailbox = Mailbox()
    poll = select.poll()
    poll.register(mailbox.fileno(), select.POLLIN)
    call.start(mailbox, 0)
    while True:
        left = LOOK_FOR_SIGNALS if until is None else until - time.monotonic()
        if left <= 0:
            return False
        # Rounded up: no wait of 0 ms again and again.
        if poll.poll(int(min(left, LOOK_FOR_SIGNALS) * 1000) + 1):
            return True


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
    for thing in list(_open):
        thing._forget()
    _open.clear()
