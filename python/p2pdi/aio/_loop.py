"""Waiting for calls with an event loop."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, TypeVar

from .. import _run
from .._errors import PeerTimeout
from .._p2pdi import Call, Mailbox

if TYPE_CHECKING:
    from .._run import Seconds

T = TypeVar("T")


class Loop:
    """Wakes the tasks of one event loop whose calls are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mailbox = Mailbox()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        loop.add_reader(self._mailbox.fileno(), self._wake)

    def _wake(self) -> None:
        for number in self._mailbox.take():
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def wait(self, call: Call[T]) -> T:
        self._number += 1
        number = self._number
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = done
        try:
            call.start(self._mailbox, number)
            await done
            return call.result()
        except BaseException:
            self._waiting.pop(number, None)
            call.cancel()
            raise


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Loop] = weakref.WeakKeyDictionary()


async def wait_for(call: Call[T], timeout: Seconds | None = None, what: str = "the call") -> T:
    """Waits for the result of a call."""
    loop = asyncio.get_running_loop()
    waker = _loops.get(loop)
    if waker is None:
        waker = _loops[loop] = Loop(loop)
    if timeout is None:
        return await waker.wait(call)
    limit = _run.seconds(timeout)
    if limit <= 0:
        # `asyncio.wait_for` would cancel it before it begins.
        if call.wait(0.0):
            return call.result()
        call.cancel()
        raise PeerTimeout(f"{what}: no answer within {limit:g} s")
    try:
        return await asyncio.wait_for(waker.wait(call), limit)
    except asyncio.TimeoutError as error:
        if isinstance(error, PeerTimeout):
            raise
        raise PeerTimeout(f"{what}: no answer within {limit:g} s") from None
