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
    """Something did not work. The message says what was wrong and what to do."""


class Invalid(Error, ValueError):
    """A value is not valid, such as a peer's name with a space; nothing was done."""


class NotFound(Error, FileNotFoundError):
    """Nobody who was asked has the document, or a folder does not exist."""


class Ambiguous(Error):
    """Several documents have that name, and none is clearly meant; the message names them with their hashes."""


class Corrupt(Error):
    """No holder had the right bytes: what ``peer`` sent of ``piece`` was not what the document's hash says."""

    peer: str | None = None
    piece: int | None = None


class NoRoute(Error, ConnectionError):
    """The peer, the holder or the registry cannot be reached."""


class PeerTimeout(Error, TimeoutError):
    """There was no answer in the time that was given."""


class NoRoom(Error, OSError):
    """The disk is full; ``errno`` says how. What is verified is kept for the next fetch."""


class Exists(Error, FileExistsError):
    """A file of that name with other content is in the folder already."""


class NameTaken(Error):
    """Another peer has this name in the registry."""


class Refused(Error, PermissionError):
    """The other side answered, and said no."""


class Closed(Error):
    """The peer, the fetch or the file was closed, or made in another process."""
