# Written by stubs.py. Do not edit.
import asyncio
from .._errors import PeerTimeout as PeerTimeout
from .._p2pdi import Call as Call, Mailbox as Mailbox
from .._run import Seconds as Seconds
from typing import TypeVar

T = TypeVar('T')

class Loop:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    async def wait(self, call: Call[T]) -> T: ...

async def wait_for(call: Call[T], timeout: Seconds | None = None, what: str = 'the call') -> T: ...
