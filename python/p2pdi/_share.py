"""A folder that a blocking peer shares."""

from __future__ import annotations

from . import _run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._p2pdi import Document, NativePeer
    from ._run import Seconds


class Share:
    """A folder that a peer shares; see :meth:`Peer.share`. It is an ``os.PathLike``.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with p2pdi.Peer("alice", lan=False) as alice:
    ...     share = alice.share(folder)
    >>> os.fspath(share) == folder
    True
    """

    def __init__(self, native: NativePeer, folder: str) -> None:
        self._native = native
        #: Its path.
        self.folder: str = folder

    @property
    def documents(self) -> list[Document]:
        """What is offered now."""
        return self._native.offered()

    def wait(self, timeout: Seconds | None = None) -> list[Document]:
        """Waits until all that was there at first is hashed and offered, and returns it. Raises ``PeerTimeout`` after ``timeout``.

        >>> import tempfile
        >>> with p2pdi.Peer("alice", lan=False) as alice:
        ...     alice.share(tempfile.mkdtemp()).wait(timeout=10)
        []
        """
        return _run.wait(self._native.shared(), timeout, f"hashing {self.folder}")

    def __fspath__(self) -> str:
        return self.folder

    def __repr__(self) -> str:
        return f"<Share {self.folder!r}>"
