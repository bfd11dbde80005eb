"""A peer of P2P-DI in your program: share folders, fetch verified documents, pass messages.

Blocking here; ``p2pdi.aio`` has the same names, awaitable.

>>> import p2pdi
>>> with p2pdi.Peer("alice", lan=False) as alice, p2pdi.Peer("bob", lan=False) as bob:
...     alice.on("TEST", lambda message: message.body.upper())
...     bob.join(alice.endpoint).name
...     bob.whisper("alice", "hello", kind="TEST").body
'alice'
b'HELLO'
"""

from __future__ import annotations

from ._errors import (
    Ambiguous,
    Closed,
    Corrupt,
    Error,
    Exists,
    Invalid,
    NameTaken,
    NoRoom,
    NoRoute,
    NotFound,
    PeerTimeout,
    Refused,
)
from ._fetch import Fetch, RemoteFile
from ._messages import Messages
from ._p2pdi import (
    Answers,
    Document,
    Fetched,
    Lease,
    Message,
    PeerInfo,
    PeerRecord,
    Progress,
    Reply,
    Source,
    __version__,
)
from ._peer import Peer
from ._registry import Changed, Joined, Left, PeerChange, Registry, RegistryClient
from ._share import Share

__all__ = [
    "Ambiguous",
    "Answers",
    "Changed",
    "Closed",
    "Corrupt",
    "Document",
    "Error",
    "Exists",
    "Fetch",
    "Fetched",
    "Invalid",
    "Joined",
    "Lease",
    "Left",
    "Message",
    "Messages",
    "NameTaken",
    "NoRoom",
    "NoRoute",
    "NotFound",
    "Peer",
    "PeerChange",
    "PeerInfo",
    "PeerRecord",
    "PeerTimeout",
    "Progress",
    "Refused",
    "Registry",
    "RegistryClient",
    "RemoteFile",
    "Reply",
    "Share",
    "Source",
    "__version__",
    "aio",
    "testing",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from . import aio, testing


def __getattr__(name: str) -> ModuleType:
    # On first use: asyncio takes longer to import than all of this.
    if name in ("aio", "testing"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
