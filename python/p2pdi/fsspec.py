"""A file system for ``fsspec``: ``p2pdi://NAME/path`` is a document of the peer ``NAME``; ``p2pdi://any/path`` is one of whoever has it.

Read only, and verified. ``pandas``, ``datasets`` and others find it by its protocol::

    options = {"registry": "http://127.0.0.1:7800"}
    pandas.read_csv("p2pdi://alice/data.csv", storage_options=options)
    datasets.load_dataset("csv", data_files="p2pdi://any/data/*.csv", storage_options=options)
    safetensors.torch.load(fsspec.filesystem("p2pdi", **options).cat_file("p2pdi://any/model.safetensors"))

What maps files into memory, such as ``safetensors.safe_open``, needs one: ``get`` of the file system, or :meth:`p2pdi.Peer.fetch`.
"""

from __future__ import annotations

import io
import os
import threading
from typing import Any

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped, unused-ignore]

from ._peer import Peer

__all__ = ["P2PFileSystem"]

# In place of a peer's name: all peers.
ANY = "any"
# Bytes that are read ahead by default.
BUFFER = 1024 * 1024


# Peers that were made, by their settings. Each thread has its file systems, and a name can be had once.
MADE: dict[str, Peer] = {}
LOCK = threading.Lock()


def _forget_after_fork() -> None:
    """A process that was forked has none of these peers, and perhaps a lock that a thread of the other process holds."""
    global LOCK
    LOCK = threading.Lock()
    MADE.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def shared_peer(settings: dict[str, Any]) -> Peer:
    """The peer with these settings in this process."""
    key = repr(sorted(settings.items()))
    with LOCK:
        made = MADE.get(key)
        if made is None or made.closed:
            lan = not ("registry" in settings or "bootnodes" in settings)
            made = MADE[key] = Peer(**{"lan": lan, **settings})
            if made.get_peer_count(wait=0) == 0:
                made.get_peer_count(wait=2.0, expect=1)
        return made


class P2PFileSystem(AbstractFileSystem):  # type: ignore[misc, unused-ignore]
    """Documents of other peers as files.

    ``peer``: a ``p2pdi.Peer`` of yours to read with. Without it one is made with these settings, which all file systems of the same
    settings use until one is closed or the program ends:
    ``registry``, ``bootnodes``, ``lan``, ``network``, ``tls`` and others of ``p2pdi.Peer``.

    Raises ``TypeError`` for an option that there is not, and what ``p2pdi.Peer`` does, such as ``NotFound``, which is a ``FileNotFoundError``.

    >>> import fsspec
    >>> with p2pdi.testing.network(2, documents={"data/a.csv": b"x,y"}) as (one, two):
    ...     files = fsspec.filesystem("p2pdi", peer=two, skip_instance_cache=True)
    ...     files.ls("peer-1/data", detail=False), files.cat("p2pdi://any/data/a.csv")
    (['peer-1/data/a.csv'], b'x,y')
    """

    protocol = "p2pdi"
    root_marker = ""

    def __init__(self, peer: Peer | None = None, **settings: Any) -> None:
        own = {key: settings.pop(key) for key in list(settings) if key in SETTINGS}
        unknown = sorted(set(settings) - OPTIONS)
        if unknown:
            raise TypeError(f"there is no option {unknown[0]!r}; give settings of p2pdi.Peer: {', '.join(sorted(SETTINGS))}")
        super().__init__(**settings)
        self._given = peer
        self._own = own

    @property
    def peer(self) -> Peer:
        """The peer that reads."""
        if self._given is not None:
            return self._given
        return shared_peer(self._own)

    def close(self) -> None:
        """Stops the peer that it made, which all file systems of the same settings use; the next use makes another one. One that was given goes on."""
        with LOCK:
            made = MADE.pop(repr(sorted(self._own.items())), None)
        if made is not None:
            made.close()

    def _path(self, path: str) -> str:
        return str(self._strip_protocol(path)).strip("/")

    @staticmethod
    def _parts(path: str) -> tuple[list[str], str]:
        holder, _, name = path.partition("/")
        return ([] if holder in ("", ANY) else [holder]), name

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The documents and folders in a folder."""
        path = self._path(path)
        if not path:
            names = [peer.name for peer in self.peer.peers()]
            found = [{"name": name, "size": 0, "type": "directory"} for name in names]
            return found if detail else names
        holder = path.partition("/")[0]
        from_, name = self._parts(path)
        inside = name + "/" if name else ""
        entries: dict[str, dict[str, Any]] = {}
        for document in self.peer.documents(None, from_):
            if document.name == name:
                return [self._entry(holder, document)] if detail else [path]
            if not document.name.startswith(inside):
                continue
            first, slash, _rest = document.name[len(inside) :].partition("/")
            full = f"{holder}/{inside}{first}"
            if slash:
                entries.setdefault(full, {"name": full, "size": 0, "type": "directory"})
            else:
                entries[full] = self._entry(holder, document)
        if not entries and name:
            raise FileNotFoundError(f"there is no document {path}")
        found = [entries[key] for key in sorted(entries)]
        return found if detail else [entry["name"] for entry in found]

    @staticmethod
    def _entry(holder: str, document: Any) -> dict[str, Any]:
        return {
            "name": f"{holder}/{document.name}",
            "size": document.size,
            "type": "file",
            "hash": document.hash,
            "mtime": document.modified,
        }

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """One document or folder."""
        path = self._path(path)
        from_, name = self._parts(path)
        if name:
            from ._errors import NotFound

            try:
                return self._entry(path.partition("/")[0], self.peer.find_document(name, from_))
            except NotFound:
                # Or it is a folder.
                self.ls(path)
        return {"name": path, "size": 0, "type": "directory"}

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **_: Any,
    ) -> Any:
        if mode != "rb":
            raise NotImplementedError("p2pdi:// can be read only; share a folder to publish documents")
        from_, name = self._parts(self._path(path))
        return io.BufferedReader(self.peer.open(name, from_), block_size or BUFFER)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes of a document, or of a range of it."""
        from_, name = self._parts(self._path(path))
        with self.peer.open(name, from_) as file:
            first, last, _step = slice(start, end).indices(file.size)
            return file.read_at(first, last - first)

    def get_file(self, rpath: str, lpath: Any = None, callback: Any = None, outfile: Any = None, **_: Any) -> None:
        """Fetches a document into a file, from all who have it."""
        import os
        import shutil
        import tempfile

        from_, name = self._parts(self._path(rpath))
        if outfile is not None:
            with self.peer.open(name, from_) as file:
                shutil.copyfileobj(file, outfile, BUFFER)
            return
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        folder = os.path.dirname(os.path.abspath(lpath))
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as out:
            (path,) = self.peer.fetch(name, out, from_).result()
            shutil.move(path, lpath)


# Options of every file system of `fsspec`.
OPTIONS = {
    "asynchronous",
    "batch_size",
    "block_size",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "skip_instance_cache",
    "use_listings_cache",
}
# Settings of a peer that the file system takes.
SETTINGS = {
    "advertise",
    "bootnodes",
    "download_limit",
    "labels",
    "lan",
    "listen",
    "name",
    "network",
    "quota",
    "registry",
    "share",
    "state",
    "tls",
    "token",
    "upload_limit",
}
