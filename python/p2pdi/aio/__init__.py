"""The same names as ``p2pdi``, awaitable.

A task that is cancelled ends its call, also on the side of the network. Handlers that are ``async def`` run on the loop of the peer.

>>> import asyncio
>>> from p2pdi import aio
>>> async def main():
...     async with aio.Peer("alice", lan=False) as alice, aio.Peer("bob", lan=False) as bob:
...         @alice.on("TEST")
...         async def handle(message):
...             return message.body.upper()
...         await bob.join(alice.endpoint)
...         return (await bob.whisper("alice", "hello", kind="TEST")).body
>>> asyncio.run(main())
b'HELLO'
"""

from __future__ import annotations

from ._documents import Fetch, RemoteFile, Share
from ._peer import Messages, Peer
from ._registry import Registry, RegistryClient

__all__ = ["Fetch", "Messages", "Peer", "Registry", "RegistryClient", "RemoteFile", "Share"]
