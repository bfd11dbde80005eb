"""Fetches, open documents and shared folders, awaitable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import Closed, Invalid, PeerTimeout
from .._fetch import INTERVAL, PART, FetchBase, position
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
    """A document that other peers have, to read, one task at a time: ``document``, ``name`` and ``size`` in bytes. See ``p2pdi.RemoteFile``.

    >>> import asyncio, p2pdi
    >>> from p2pdi import aio
    >>> async def main(registry):
    ...     async with aio.Peer("bob", registry=registry, lan=False) as bob:
    ...         async with await bob.open("a.txt") as file:
    ...             file.seek(1)
    ...             return file.size, await file.read(3), file.tell()
    >>> with p2pdi.testing.network(1, documents={"a.txt": b"hello"}) as network:
    ...     asyncio.run(main(network.registry.url))
    (5, b'ell', 4)
    """

    def __init__(self, native: NativeReader) -> None:
        self._native = native
        self._at = 0
        self._closed = False
        self.document: Document = native.document
        self.name: str = self.document.name
        self.size: int = self.document.size

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def tell(self) -> int:
        """Where the next read begins, in bytes from the start."""
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Reads on from ``offset`` bytes after the start, from here (1), or from the end (2); returns that as :meth:`tell` does. Waits for nothing."""
        self._check()
        self._at = position(offset, whence, self._at, self.size)
        return self._at

    async def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes; fewer at the end. Without ``size``, all that is left."""
        self._check()
        data = await self.read_at(self._at, max(self.size - self._at, 0) if size is None or size < 0 else size)
        self._at += len(data)
        return data

    async def readinto(self, buffer: Any) -> int:
        """Fills ``buffer``, and returns the number of bytes; fewer than it has at the end only."""
        self._check()
        view = memoryview(buffer).cast("B")
        got = 0
        # In parts, so that a large buffer is not held twice.
        while got < len(view):
            data = await self.read(min(len(view) - got, PART))
            if not data:
                break
            view[got : got + len(data)] = data
            got += len(data)
        return got

    def close(self) -> None:
        """Reads no more. A second call does nothing."""
        self._closed = True

    async def __aenter__(self) -> RemoteFile:
        self._check()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.name} was closed")

    async def read_at(self, offset: int, length: int, timeout: Seconds | None = None) -> bytes:
        """``length`` bytes from ``offset`` on, whatever :meth:`tell` says; fewer at the end."""
        self._check()
        if offset < 0 or length < 0:
            raise Invalid(f"cannot read {length} bytes at {offset}: both are at least 0")
        length = min(length, max(self.size - offset, 0))
        return await wait_for(self._native.read_at(offset, length), timeout, self.name) if length > 0 else b""

    def blocking(self) -> BlockingFile:
        """The same as a file, for code that reads files in a thread."""
        self._check()
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
