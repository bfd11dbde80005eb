"""Exceptions. Each is also the built-in exception of its meaning, where there is one."""

from __future__ import annotations

__all__ = [
    "Ambiguous",
    "Closed",
    "Corrupt",
    "Error",
    "Exists",
    "Invalid",
    "NameTaken",
    "NoRoom",
    "NoRoute",
    "NotFound",
    "PeerTimeout",
    "Refused",
]


class Error(Exception):
    """Something did not work. The message says what was wrong and what to do; all other classes here are kinds of it.

    >>> try:
    ...     p2pdi.Peer("two words", lan=False)
    ... except p2pdi.Error as error:
    ...     type(error).__name__
    'Invalid'
    """


class Invalid(Error, ValueError):
    """A value is not valid, such as a peer's name with a space; nothing was done.

    >>> p2pdi.Peer("alice", listen="nowhere", lan=False)
    Traceback (most recent call last):
    p2pdi._errors.Invalid: cannot listen on "nowhere"; write ADDRESS:PORT, such as 127.0.0.1:0 for a free port
    """


class NotFound(Error, FileNotFoundError):
    """Nobody who was asked has the document, or a folder does not exist.

    >>> with p2pdi.testing.network(2) as (one, two):
    ...     try:
    ...         two.open("absent.txt")
    ...     except FileNotFoundError:
    ...         print("nobody has it")
    nobody has it
    """


class Ambiguous(Error):
    """Several documents have that name, and none is clearly meant; the message names them with their hashes, which can be given in place of the name.

    >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
    ...     hash = two.find_document("a.txt").hash
    ...     two.open(hash).read()
    b'hello'
    """


class Corrupt(Error):
    """No holder had the right bytes: what ``peer`` sent of ``piece`` was not what the document's hash says.

    >>> def report(fetch):
    ...     try:
    ...         return fetch.result()
    ...     except p2pdi.Corrupt as error:
    ...         print(error.peer, "sent wrong bytes of piece", error.piece)
    """

    peer: str | None = None
    piece: int | None = None


class NoRoute(Error, ConnectionError):
    """The peer, the holder or the registry cannot be reached.

    >>> with p2pdi.Peer("alice", lan=False) as alice:
    ...     try:
    ...         alice.whisper("nobody", "hello")
    ...     except ConnectionError as error:
    ...         print(error)
    request cannot be fulfilled: no route to nobody...
    """


class PeerTimeout(Error, TimeoutError):
    """There was no answer in the time that was given.

    >>> with p2pdi.Peer("alice", lan=False) as alice:
    ...     try:
    ...         alice.wait(timeout=0.1)
    ...     except TimeoutError as error:
    ...         print(error)
    no message within 0.1 s
    """


class NoRoom(Error, OSError):
    """The disk is full; ``errno`` says how. What is verified is kept for the next fetch.

    >>> import errno
    >>> def is_disk_full(error):
    ...     return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    """


class Exists(Error, FileExistsError):
    """A file of that name with other content is in the folder already; ``replace=True`` replaces it.

    >>> import pathlib, tempfile
    >>> out = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (out / "a.txt").write_text("mine")
    >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
    ...     try:
    ...         two.fetch("a.txt", out=out).result()
    ...     except p2pdi.Exists:
    ...         (path,) = two.fetch("a.txt", out=out, replace=True).result()
    >>> path.read_text()
    'hello'
    """


class NameTaken(Error):
    """Another peer has this name in the registry.

    >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False):
    ...     try:
    ...         p2pdi.Peer("alice", registry=registry.url, lan=False)
    ...     except p2pdi.NameTaken:
    ...         print("take another name")
    take another name
    """


class Refused(Error, PermissionError):
    """The other side answered, and said no, or the operating system did.

    >>> issubclass(p2pdi.Refused, PermissionError)
    True
    """


class Closed(Error):
    """The peer, the fetch or the file was closed, or made in another process.

    >>> alice = p2pdi.Peer("alice", lan=False)
    >>> alice.close()
    >>> try:
    ...     alice.broadcast("news", "...")
    ... except p2pdi.Closed as error:
    ...     print(error)
    the peer has stopped; build another one
    """
