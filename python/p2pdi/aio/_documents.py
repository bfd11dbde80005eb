"""Fetches, open documents and shared folders, awaitable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import Invalid, PeerTimeout
from .._fetch import INTERVAL, FetchBase
from .._fetch import RemoteFile as BlockingFile
from .._p2pdi import Document, Fetched, NativePeer, NativeReader, Progress
from ._loop import wait_for

if TYPE_CHECKING:
    from .._run import Seconds


class Fetch(FetchBase):
    """Documents being fetched: ``await`` it for their paths, or iterate over its progress. See ``p2pdi.Fetch``.

    >>> import asyncio, p2pdi, tempfile
    >>> from p2pdi import aio
    >>> async def main(registry):
    ...     async with aio.Peer("bob", registry=registry, lan=False) as bob:
    ...         fetch = bob.fetch("a.txt", out=tempfile.mkdtemp())
    ...         async for progress in fetch:
    ...             assert progress.done <= progress.total
    ...         return [path.name for path in await fetch]
    >>> with p2pdi.testing.network(1, documents={"a.txt": b"hello"}) as network:
    ...     asyncio.run(main(network.registry.url))
    ['a.txt']
    """

    def __await__(self) -> Generator[Any, None, list[Path]]:
        return self.result().__await__()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Progress]:
        while True:
            progress = self.progress
            yield progress
            if progress.ended:
                return
            try:
                await wait_for(self._native.ended(), INTERVAL)
            except PeerTimeout:
                pass

    async def wait(self, timeout: Seconds | None = None) -> bool:
        """Waits until it has ended, or for ``timeout``. Returns whether it has."""
        try:
            await wait_for(self._native.ended(), timeout)
        except PeerTimeout:
            return False
        return True

    async def documents(self, timeout: Seconds | None = None) -> list[Fetched]:
        """As :meth:`result`, with what was fetched of each document, and from whom."""
        if self._error is not None:
            raise self._error
        if self._fetched is None:
            await wait_for(self._native.ended(), timeout, "the fetch")
            try:
                self._fetched = await wait_for(self._native.result())
            except Exception as error:
                self._error = error
                raise
        return self._fetched

    async def result(self, timeout: Seconds | None = None) -> list[Path]:
        """Waits for the paths of the documents, by name."""
        await self.documents(timeout)
        return self._paths()

    async def display(self) -> list[Path]:
        """Shows a progress bar until the end."""
        from .._display import Display

        with Display() as display:
            async for progress in self:
                display.show(progress)
        return await self.result()


class RemoteFile:
    """A document that other peers have, to read parts of it: ``document``, ``name`` and ``size`` in bytes. See ``p2pdi.RemoteFile``.

    >>> import asyncio, p2pdi
    >>> from p2pdi import aio
    >>> async def main(registry):
    ...     async with aio.Peer("bob", registry=registry, lan=False) as bob:
    ...         file = await bob.open("a.txt")
    ...         return file.size, await file.read_at(1, 3)
    >>> with p2pdi.testing.network(1, documents={"a.txt": b"hello"}) as network:
    ...     asyncio.run(main(network.registry.url))
    (5, b'ell')
    """

    def __init__(self, native: NativeReader) -> None:
        self._native = native
        self.document: Document = native.document
        self.name: str = self.document.name
        self.size: int = self.document.size

    async def read_at(self, offset: int, length: int, timeout: Seconds | None = None) -> bytes:
        """``length`` bytes from ``offset`` on; fewer at the end."""
        if offset < 0 or length < 0:
            raise Invalid(f"cannot read {length} bytes at {offset}: both are at least 0")
        length = min(length, max(self.size - offset, 0))
        return await wait_for(self._native.read_at(offset, length), timeout, self.name) if length > 0 else b""

    def blocking(self) -> BlockingFile:
        """The same as a file, for code that reads files in a thread."""
        return BlockingFile(self._native)


class Share:
    """A folder that a peer shares. See ``p2pdi.Share``.

    >>> import asyncio, tempfile
    >>> from p2pdi import aio
    >>> async def main():
    ...     async with aio.Peer("alice", lan=False) as alice:
    ...         return (await alice.share(tempfile.mkdtemp())).documents
    >>> asyncio.run(main())
    []
    """

    def __init__(self, native: NativePeer, folder: str) -> None:
        self._native = native
        self.folder: str = folder

    @property
    def documents(self) -> list[Document]:
        """What is offered now."""
        return self._native.offered()

    async def wait(self, timeout: Seconds | None = None) -> list[Document]:
        """Waits until all that was there at first is hashed and offered."""
        return await wait_for(self._native.shared(), timeout, f"hashing {self.folder}")

    def __fspath__(self) -> str:
        return self.folder
