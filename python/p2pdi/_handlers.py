"""Functions that are called with messages of one kind, each on its own thread."""

from __future__ import annotations

import threading

from . import _run
from ._errors import Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ._p2pdi import Handled, Handler, Message, NativePeer

    Answer = str | bytes | bytearray | memoryview | tuple[str, str | bytes] | None
    HandlerFunction = Callable[[Message], "Answer | Awaitable[Answer]"]

# Messages taken from the native side at once. More to all wait there; of whispers there is one at a time.
BATCH = 64
# How long closing a peer waits for a handler that is at work.
GRACE = 2.0


def answer(handled: Handled, result: Answer) -> None:
    """Sends what a handler returned."""
    if result is None:
        handled.answer("", b"")
    elif isinstance(result, tuple):
        kind, content = result
        handled.answer(kind, _run.body(content))
    elif isinstance(result, (str, bytes, bytearray, memoryview)):
        handled.answer(handled.message.kind, _run.body(result))
    else:
        fault(handled, TypeError(f"a handler returns str, bytes, (kind, body) or None, not {type(result).__name__}"))


def fault(handled: Handled, error: BaseException) -> None:
    """Logs what a handler raised, and tells the sender that it failed; not how, which may be private."""
    import logging

    kind = handled.message.kind
    logging.getLogger("p2pdi").error("the handler of %s failed", kind, exc_info=error)
    handled.answer("FAULT", f"the handler of {kind} failed: {type(error).__name__}".encode())


class HandlerThread:
    """Calls a function with each message of one kind."""

    def __init__(self, native: NativePeer, kind: str, function: HandlerFunction) -> None:
        self.function = function
        self._queue: Handler = native.handler(kind)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        import sys

        # A coroutine runs on the loop of whoever set the handler, such as that of a notebook.
        if "asyncio" in sys.modules:
            import asyncio

            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                pass
        self._thread = threading.Thread(target=self._run, name=f"p2pdi handler {kind}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Waits for the message at work, not for ever."""
        self._stopping = True
        if self._thread is not threading.current_thread():
            self._thread.join(GRACE)

    def _run(self) -> None:
        try:
            while not self._stopping:
                batch = _run.wait(self._queue.next(BATCH))
                if not batch:
                    return
                for handled in batch:
                    self._handle(handled)
        except Closed:
            pass
        finally:
            if self._own_loop is not None:
                self._own_loop.close()

    def _handle(self, handled: Handled) -> None:
        try:
            result: Any = self.function(handled.message)
            if hasattr(result, "__await__"):
                result = self._await(result)
            answer(handled, result)
        except Exception as error:
            fault(handled, error)

    def _await(self, result: Any) -> Any:
        import asyncio

        async def awaited() -> Any:
            return await result

        if self._loop is not None and self._loop.is_running():
            return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
        return self._own_loop.run_until_complete(awaited())
