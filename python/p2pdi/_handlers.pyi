# Written by stubs.py. Do not edit.
from ._errors import Closed as Closed
from ._p2pdi import Handler as Handler, Message as Message, NativePeer as NativePeer, Replier as Replier
from collections.abc import Awaitable, Callable
from typing import TypeAlias

TYPE_CHECKING: bool
Answer: TypeAlias = str | bytes | bytearray | memoryview | tuple[str, str | bytes] | None
HandlerFunction: TypeAlias = Callable[[Message], Answer | Awaitable[Answer]]
BATCH: int

def reply(kind: str, replier: Replier | None, result: Answer) -> None: ...
def fault(kind: str, replier: Replier | None, error: BaseException) -> None: ...

class HandlerThread:
    function: HandlerFunction
    def __init__(self, native: NativePeer, kind: str, function: HandlerFunction) -> None: ...
    def stop(self, grace: float = ...) -> None: ...
