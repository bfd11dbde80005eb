"""Fetches, and open documents."""

from __future__ import annotations

import io

from . import _run
from ._errors import Closed, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, NoReturn

    from ._p2pdi import Document, Fetched, NativeFetch, NativeReader, Progress
    from ._run import Seconds


class FetchBase:
    """What both kinds of fetches have."""

    def __init__(self, native: NativeFetch) -> None:
        self._native = native
        self._fetched: list[Fetched] | None = None
        self._error: BaseException | None = None

    @property
    def progress(self) -> Progress:
        """How far it is, now."""
        return self._native.progress()

    def cancel(self) -> None:
        """Ends it. What is verified is kept for the next fetch of the same documents. After its end it does nothing.

        >>> import p2pdi, tempfile
        >>> with p2pdi.testing.network(2, documents={"a.bin": bytes(1_000_000)}) as (one, two):
        ...     fetch = two.fetch("a.bin", out=tempfile.mkdtemp(), limit=100_000)
        ...     fetch.cancel()
        >>> fetch
        <Fetch failed: the fetch was cancelled>
        """
        if self._native.cancel() and self._fetched is None and self._error is None:
            self._error = Closed("the fetch was cancelled")

    def _paths(self) -> list[Path]:
        from pathlib import Path

        assert self._fetched is not None
        return [Path(one.path) for one in self._fetched]

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<{type(self).__name__} failed: {self._error}>"
        if self._fetched is not None:
            return f"<{type(self).__name__} done: {len(self._fetched)} documents>"
        return f"<{type(self).__name__} {line(self._native.progress())}>"


class Fetch(FetchBase):
    """Documents being fetched. They arrive whether or not anybody looks, for as long as somebody holds this object: otherwise it is cancelled.

    >>> import p2pdi, tempfile
    >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
    ...     fetch = two.fetch("a.txt", out=tempfile.mkdtemp())
    ...     for progress in fetch:
    ...         assert progress.done <= progress.total
    ...     [path.name for path in fetch.result()]
    ['a.txt']
    """

    def __iter__(self) -> Iterator[Progress]:
        """How far it is, some three times a second until it has ended."""
        while True:
            progress = self.progress
            yield progress
            if progress.ended:
                return
            self.wait(INTERVAL)

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Waits until it has ended, well or not, or for ``timeout``. Returns whether it has.

        >>> import p2pdi, tempfile
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     two.fetch("a.txt", out=tempfile.mkdtemp()).wait(timeout=30)
        True
        """
        from ._errors import PeerTimeout

        try:
            _run.wait(self._native.ended(), timeout)
        except PeerTimeout:
            return False
        return True

    def documents(self, timeout: Seconds | None = None) -> list[Fetched]:
        """As :meth:`result`, with what was fetched of each document, and from whom.

        >>> import p2pdi, tempfile
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     (fetched,) = two.fetch("a.txt", out=tempfile.mkdtemp()).documents()
        >>> fetched.fetched_bytes, [source.peer for source in fetched.sources]
        (5, ['peer-1'])
        """
        if self._error is not None:
            raise self._error
        if self._fetched is None:
            # First the end: a wait that times out must not end the fetch.
            _run.wait(self._native.ended(), timeout, "the fetch")
            try:
                self._fetched = _run.wait(self._native.result())
            except Exception as error:
                self._error = error
                raise
        return self._fetched

    def result(self, timeout: Seconds | None = None) -> list[Path]:
        """Waits for the paths of the documents, by name.

        Raises ``NotFound``, ``Ambiguous``, ``Corrupt``, ``NoRoute``, ``NoRoom`` or ``Exists`` for the first document that failed; ``PeerTimeout``
        after ``timeout``, and the fetch goes on; ``Closed`` after :meth:`cancel`.

        >>> import p2pdi, tempfile
        >>> with p2pdi.testing.network(2) as (one, two):
        ...     try:
        ...         two.fetch("absent.txt", out=tempfile.mkdtemp()).result()
        ...     except FileNotFoundError as error:
        ...         print(error)
        nobody has absent.txt...
        """
        self.documents(timeout)
        return self._paths()

    def display(self) -> list[Path]:
        """Shows a progress bar until the end, with `rich` if it is installed, otherwise one line of text; returns as :meth:`result`.

        >>> import p2pdi, tempfile
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     paths = two.fetch("a.txt", out=tempfile.mkdtemp()).display()
        >>> [path.name for path in paths]
        ['a.txt']
        """
        from ._display import Display

        with Display() as display:
            for progress in self:
                display.show(progress)
        return self.result()


# Between two values of an iteration, in seconds.
INTERVAL = 0.3


def line(progress: Progress) -> str:
    """How far a fetch is, as one line of text."""
    share = 100 * progress.done // progress.total if progress.total else 0
    text = f"{share:3d} % of {size(progress.total)}, {progress.documents_done} of {progress.documents} documents, {size(progress.rate)}/s"
    sources = ", ".join(source.peer for source in progress.sources[:3])
    if sources:
        text += f" from {sources}"
    if progress.stalled_reason:
        text += f"; {progress.stalled_reason}"
    return text


def size(count: float) -> str:
    """Bytes as text."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def position(offset: int, whence: int, at: int, size: int) -> int:
    """Where a seek goes, in a file of a size, from a place in it."""
    base = {io.SEEK_SET: 0, io.SEEK_CUR: at, io.SEEK_END: size}.get(whence)
    if base is None:
        raise ValueError(f"whence is {whence}; give 0, 1 or 2")
    if base + offset < 0:
        raise ValueError(f"cannot seek to {base + offset}, before the start")
    return base + offset


class RemoteFile(io.RawIOBase):
    """A document that other peers have, as a binary file to read. Each piece is verified before a byte of it is returned.

    ``read(n)`` and ``readinto(buffer)`` return fewer bytes at the end only. For many small reads wrap it in ``io.BufferedReader``. ``document`` says
    what it is, ``size`` how many bytes it has. A read raises ``Closed`` after the end of its ``with``, or of the peer.

    >>> import p2pdi
    >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello there"}) as (one, two):
    ...     with two.open("a.txt") as file:
    ...         file.seek(6), file.read()
    (6, b'there')
    """

    def __init__(self, native: NativeReader) -> None:
        super().__init__()
        self._native = native
        self._at = 0
        self.document: Document = native.document
        self.name: str = self.document.name
        self.size: int = self.document.size
        self.mode = "rb"

    def readable(self) -> bool:
        """Yes."""
        self._check()
        return True

    def seekable(self) -> bool:
        """Yes."""
        self._check()
        return True

    def write(self, _: Any) -> NoReturn:
        """Raises ``io.UnsupportedOperation``: documents of others do not change."""
        raise io.UnsupportedOperation(f"{self.name} can be read only")

    def tell(self) -> int:
        """Where the next read begins, in bytes from the start."""
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Reads on from ``offset`` bytes after the start, from here, or from the end; returns that as :meth:`tell` does.

        >>> import io, p2pdi
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello there"}) as (one, two):
        ...     file = two.open("a.txt")
        ...     file.seek(-5, io.SEEK_END), file.read()
        (6, b'there')
        """
        self._check()
        self._at = position(offset, whence, self._at, self.size)
        return self._at

    def read_at(self, offset: int, length: int, timeout: Seconds | None = None) -> bytes:
        """``length`` bytes from ``offset`` on, whatever :meth:`tell` says; fewer at the end.

        Raises ``Corrupt`` or ``NoRoute`` if no holder gives the right bytes, and ``PeerTimeout`` after ``timeout``.

        >>> import p2pdi
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello there"}) as (one, two):
        ...     two.open("a.txt").read_at(6, 100)
        b'there'
        """
        self._check()
        if offset < 0 or length < 0:
            raise Invalid(f"cannot read {length} bytes at {offset}: both are at least 0")
        length = min(length, max(self.size - offset, 0))
        if length <= 0:
            return b""
        return _run.wait(self._native.read_at(offset, length), timeout, self.name)

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes, copied once; fewer at the end. Without ``size``, all that is left."""
        if size is None or size < 0:
            return self.readall()
        data = self.read_at(self._at, size)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer``, such as a ``bytearray`` or a NumPy array, and returns the number of bytes; fewer than it has at the end only.

        >>> import p2pdi
        >>> buffer = bytearray(5)
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     two.open("a.txt").readinto(buffer), buffer
        (5, bytearray(b'hello'))
        """
        self._check()
        view = memoryview(buffer).cast("B")
        got = 0
        # In parts, so that a large buffer is not held twice.
        while got < len(view):
            data = self.read_at(self._at, min(len(view) - got, PART))
            if not data:
                break
            view[got : got + len(data)] = data
            got += len(data)
            self._at += len(data)
        return got

    def readall(self) -> bytes:
        """All that is left."""
        data = self.read_at(self._at, max(self.size - self._at, 0))
        self._at += len(data)
        return data

    def _check(self) -> None:
        if self.closed:
            raise Closed(f"{self.name} was closed")

    def __repr__(self) -> str:
        return f"<RemoteFile {self.name!r} size={self.size}{' closed' if self.closed else ''}>"


# Bytes that `readinto` asks for at once.
PART: int = 8 * 1024 * 1024
