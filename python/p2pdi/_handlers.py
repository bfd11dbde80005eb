"""Functions that are called with messages of one kind, each on its own thread."""

from __future__ import annotations

import threading

from . import _run
from ._errors import Closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeAlias

    from ._p2pdi import Handler, Message, NativePeer, Replier

    Answer: TypeAlias = str | bytes | bytearray | memoryview | tuple[str, str | bytes] | None
    HandlerFunction: TypeAlias = Callable[[Message], Answer | Awaitable[Answer]]

# Messages taken from the peer's inbox at once, so that the interpreter is entered once for all of them. Those that wait there are dropped when
# there are too many, these are not.
BATCH = 64


def reply(kind: str, replier: Replier | None, result: Answer) -> None:
    """Sends what a handler of a kind returned; without ``replier`` its message was to all, and nobody waits.

    Raises ``Invalid`` for a kind that is no token, and a body that is too long: then nothing was sent yet.
    """
    content: _run.Body
    if isinstance(result, tuple):
        kind, content = result
    elif result is None:
        # No reply: its sender is told so.
        kind, content = "", b""
    elif isinstance(result, (str, bytes, bytearray, memoryview)):
        content = result
    else:
        raise TypeError(f"a handler returns str, bytes, (kind, body) or None, not {type(result).__name__}")
    if replier is not None:
        replier.send(kind, _run.body(content))


def fault(kind: str, replier: Replier | None, error: BaseException) -> None:
    """Logs what a handler raised, and tells the sender that it failed; not how, which may be private."""
    import logging

    logging.getLogger("p2pdi").error("the handler of %s failed", kind, exc_info=error)
    if replier is not None:
        replier.send("FAULT", f"the handler of {kind} failed: {type(error).__name__}".encode())


class HandlerThread:
    """Calls a function with each message of one kind."""

    def __init__(self, native: NativePeer, kind: str, function: HandlerFunction) -> None:
        self.function: HandlerFunction = function
        self._kind = kind
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

    def stop(self, grace: float = _run.GRACE) -> None:
        """Waits for the message at work, not for ever."""
        self._stopping = True
        if self._thread is not threading.current_thread():
            self._thread.join(grace)

    def _run(self) -> None:
        try:
            while not self._stopping:
                batch = _run.wait(self._queue.next(BATCH))
                if not batch:
                    return
                for message, replier in batch:
                    if self._stopping:
                        # Whoever waits for a reply to what is left hears that there is none.
                        return
                    try:
                        result: Any = self.function(message)
                        if result is None and replier is None:
                            continue
                        if hasattr(result, "__await__"):
                            result = self._await(result)
                        reply(self._kind, replier, result)
                    except BaseException as error:
                        # Also of one that calls sys.exit: this is not its thread to end.
                        fault(self._kind, replier, error)
        except Closed:
            pass
        finally:
            if self._own_loop is not None:
                self._own_loop.close()

    def _await(self, result: Any) -> Any:
        import asyncio

        async def awaited() -> Any:
            return await result

        if self._loop is not None and self._loop.is_running():
            return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()
        if self._own_loop is None:
            self._own_loop = asyncio.new_event_loop()
        return self._own_loop.run_until_complete(awaited())
