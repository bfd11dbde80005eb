# Written by stubs.py. Do not edit.
from . import aio as aio, testing as testing
from ._errors import Ambiguous as Ambiguous, Closed as Closed, Corrupt as Corrupt, Error as Error, Exists as Exists, Invalid as Invalid, NameTaken as NameTaken, NoRoom as NoRoom, NoRoute as NoRoute, NotFound as NotFound, PeerTimeout as PeerTimeout, Refused as Refused
from ._fetch import Fetch as Fetch, RemoteFile as RemoteFile
from ._messages import Messages as Messages
from ._p2pdi import Answers as Answers, Document as Document, Fetched as Fetched, Lease as Lease, Message as Message, PeerInfo as PeerInfo, PeerRecord as PeerRecord, Progress as Progress, Reply as Reply, Source as Source, __version__ as __version__
from ._peer import Peer as Peer
from ._registry import Changed as Changed, Joined as Joined, Left as Left, PeerChange as PeerChange, Registry as Registry, RegistryClient as RegistryClient
from ._share import Share as Share

__all__ = ['Ambiguous', 'Closed', 'Corrupt', 'Error', 'Exists', 'Invalid', 'NameTaken', 'NoRoom', 'NoRoute', 'NotFound', 'PeerTimeout', 'Refused', 'Fetch', 'RemoteFile', 'Messages', 'Answers', 'Document', 'Fetched', 'Lease', 'Message', 'PeerInfo', 'PeerRecord', 'Progress', 'Reply', 'Source', '__version__', 'Peer', 'Changed', 'Joined', 'Left', 'PeerChange', 'Registry', 'RegistryClient', 'Share', 'aio', 'testing']
