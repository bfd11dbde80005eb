"""A registry in this process, and calls to one, awaitable."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from .. import _run
from .._errors import Closed, PeerTimeout, Refused
from .._p2pdi import Lease, NativeRegistryClient, NativeWatch, PeerRecord
from .._registry import Changed, Joined, Left, RegistryBase, change
from ._loop import wait_for

if TYPE_CHECKING:
    from .._run import Seconds, StrPath


class Registry(RegistryBase):
    """A registry in this process; see ``p2pdi.Registry``.

    >>> import asyncio
    >>> from p2pdi import aio
    >>> async def main():
    ...     async with aio.Registry() as registry, aio.Peer("alice", registry=registry.url, lan=False) as alice:
    ...         return alice.name
    >>> asyncio.run(main())
    'alice'
    """

    async def start(self) -> Registry:
        """Starts it. Raises as the making of a ``p2pdi.Registry`` does; then it can be tried again."""
        if self._closed:
            raise Closed("the registry was closed; make another one")
        if self._started is None:
            self._started = await wait_for(self._open())
            _run.track(self)
        return self

    async def close(self, timeout: Seconds | None = 10.0) -> None:
        """Stops it. A second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._started is not None:
                await wait_for(self._started.close(), timeout, "the registry's end")

    async def __aenter__(self) -> Registry:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class RegistryClient:
    """Calls to a registry; see ``p2pdi.RegistryClient``.

    >>> import asyncio, p2pdi
    >>> from p2pdi import aio
    >>> async def main(url):
    ...     async with aio.RegistryClient(url) as client:
    ...         await client.register("alice", "127.0.0.1:7901")
    ...         async for change in aio.RegistryClient(url).watch():
    ...             return change.change, change.name
    >>> with p2pdi.Registry() as registry:
    ...     asyncio.run(main(registry.url))
    ('joined', 'alice')
    """

    def __init__(
        self, url: str, network: str = "default", tls: tuple[StrPath, StrPath, StrPath] | None = None
    ) -> None:
        self._native = NativeRegistryClient(url, network, _run.certificates(tls))
        self._closed = False
        _run.track(self)

    async def register(self, name: str, endpoint: str, labels: Mapping[str, str] | None = None) -> Lease:
        """Registers a name at an address for as long as ``lease.ttl``."""
        return await wait_for(self._native.register(name, endpoint, dict(labels or {})))

    async def keep_alive(self) -> Lease:
        """Extends the lease."""
        return await wait_for(self._native.keep_alive())

    async def leave(self) -> None:
        """Ends the lease."""
        await wait_for(self._native.leave())

    async def pquery(self, name: str = "", labels: Mapping[str, str] | None = None, sample: int = 0) -> list[PeerRecord]:
        """The active peers; see ``p2pdi.RegistryClient.pquery``."""
        return await wait_for(self._native.pquery(name, dict(labels or {}), sample))

    def watch(self, timeout: Seconds | None = None) -> AsyncIterator[Joined | Changed | Left]:
        """Who joins, changes and leaves, as the registry tells it; see ``p2pdi.RegistryClient.watch``."""
        limit = None if timeout is None else _run.seconds(timeout)
        return self._watch(self._native.watch(), limit)

    async def _watch(self, native: NativeWatch, limit: float | None) -> AsyncIterator[Joined | Changed | Left]:
        # As a method, so that the client is there for as long as the watch is: at the end of the program it ends it.
        until = None if limit is None else time.monotonic() + limit
        try:
            while True:
                try:
                    left = None if until is None else max(until - time.monotonic(), 0.0)
                    told = await wait_for(native.next(), left)
                except PeerTimeout:
                    if until is not None and time.monotonic() >= until:
                        return
                    raise
                if not told:
                    return
                for one in told:
                    yield change(one)
        finally:
            native.close()

    def _end(self) -> None:
        self._native.end()

    def _forget(self) -> None:
        self._closed = True

    async def close(self) -> None:
        """Leaves, if it is registered, and ends its watches. Then all calls raise ``Closed``. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.leave()
        except Refused:
            pass  # Its lease had run out.
        finally:
            self._native.close()

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
