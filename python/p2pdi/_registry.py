"""A registry in this process, and calls to one."""

from __future__ import annotations

import os
import time

from . import _run
from ._errors import Closed, PeerTimeout, Refused
from ._p2pdi import NativeRegistry, NativeRegistryClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ._p2pdi import Call, Lease, NativeWatch, PeerRecord
    from ._run import Seconds, StrPath


class RegistryBase:
    """What a registry in this process is made with and where it is, of both kinds."""

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        state: StrPath | None = None,
        ttl: Seconds = 30.0,
        name_hold: Seconds = 600.0,
        network: str = "default",
        tls: tuple[StrPath, StrPath, StrPath] | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "listen": listen,
            "state": None if state is None else os.fspath(state),
            "ttl": _run.seconds(ttl),
            "name_hold": _run.seconds(name_hold),
            "network": network,
            "tls": _run.certificates(tls),
        }
        self._started: NativeRegistry | None = None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Starts it at once, of a kind that does."""

    def _open(self) -> Call[NativeRegistry]:
        return NativeRegistry.open(**self._settings)

    @property
    def address(self) -> str:
        """``host:port``, with the port that was free."""
        if self._started is None:
            raise Closed("the registry is not started; use `async with`, or await start()")
        return self._started.address

    @property
    def url(self) -> str:
        """What peers are given: ``http://host:port``, with ``tls`` ``https://host:port``."""
        return f"{'http' if self._settings['tls'] is None else 'https'}://{self.address}"

    def _end(self) -> None:
        if self._started is not None and not self._closed:
            self._closed = True
            _run.wait(self._started.close(), 2.0)

    def _forget(self) -> None:
        self._closed = True


class Registry(RegistryBase):
    """A registry in this process, for tests and notebooks: it knows which peers are alive. It ends with its ``with``, or at :meth:`close`.

    ``listen``
        ``"address:port"``; port 0 is a free one.
    ``state``
        A folder, for what must survive a restart; otherwise it is in memory.
    ``ttl``
        How long a peer that is silent stays listed, in seconds; at least 1.
    ``name_hold``
        For how many seconds the name of a peer that is gone stays its own.
    ``network``
        The network whose peers it accepts.
    ``tls``
        Files of its certificate, key and CAs, PEM: then it serves TLS, to those with a certificate of these CAs.

    Raises ``Error`` if it cannot listen there, ``NotFound`` or ``Refused`` for a folder or a file that it cannot use, and ``Invalid`` for values that
    are not valid.

    >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False):
    ...     with p2pdi.RegistryClient(registry.url) as client:
    ...         [peer.name for peer in client.pquery()]
    ['alice']
    """

    def _begin(self) -> None:
        self._started = _run.wait(self._open())
        _run.track(self)

    def close(self, timeout: Seconds | None = 10.0) -> None:
        """Stops, and waits until it has, at most ``timeout``; then it raises ``PeerTimeout``. A second call does nothing.

        >>> registry = p2pdi.Registry()
        >>> registry.close()
        """
        if not self._closed:
            self._closed = True
            if self._started is not None:
                _run.wait(self._started.close(), timeout, "the registry's end")

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry {self.url}{' closed' if self._closed else ''}>"


class PeerChange:
    """That something changed at a registry: one of :class:`Joined`, :class:`Changed` and :class:`Left`.

    ``change`` is ``"joined"``, ``"changed"`` or ``"left"``, ``name`` the peer's name, and ``peer`` its record, ``None`` of one that left.

    >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
    ...     _ = client.register("alice", "127.0.0.1:7901")
    ...     change = next(p2pdi.RegistryClient(registry.url).watch())
    >>> change.change, change.name, change.peer.endpoint
    ('joined', 'alice', '127.0.0.1:7901')
    """

    __slots__ = ("_name", "_peer")
    __match_args__ = ("name", "peer")

    _name: str
    _peer: PeerRecord | None

    def __init__(self, name: str, peer: PeerRecord | None) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_peer", peer)

    @property
    def change(self) -> str:
        """What happened, as a word: ``"joined"``, ``"changed"`` or ``"left"``."""
        return type(self).__name__.lower()

    @property
    def name(self) -> str:
        """The peer's name."""
        return self._name

    @property
    def peer(self) -> PeerRecord | None:
        """The peer as the registry lists it; ``None`` of one that left."""
        return self._peer

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.name, self.peer) == (other.name, other.peer)

    def __hash__(self) -> int:
        return hash((self.change, self.name))

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={getattr(self, field)!r}" for field in self.__match_args__)
        return f"{type(self).__name__}({fields})"


class Joined(PeerChange):
    """A peer is active that was not before.

    >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False):
    ...     match next(p2pdi.RegistryClient(registry.url).watch()):
    ...         case p2pdi.Joined(name, peer):
    ...             name, peer.active
    ('alice', True)
    """

    __slots__ = ()

    def __init__(self, name: str, peer: PeerRecord) -> None:
        super().__init__(name, peer)

    @property
    def peer(self) -> PeerRecord:
        """The peer as the registry lists it."""
        assert self._peer is not None
        return self._peer


class Changed(PeerChange):
    """A peer registered again: its address or its labels may be others.

    >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as alice:
    ...     _ = alice.register("alice", "127.0.0.1:7901")
    ...     watch = p2pdi.RegistryClient(registry.url).watch()
    ...     _ = next(watch), alice.register("alice", "127.0.0.1:7902")
    ...     change = next(watch)
    >>> type(change).__name__, change.peer.endpoint
    ('Changed', '127.0.0.1:7902')
    """

    __slots__ = ()

    def __init__(self, name: str, peer: PeerRecord) -> None:
        super().__init__(name, peer)

    @property
    def peer(self) -> PeerRecord:
        """The peer as the registry lists it."""
        assert self._peer is not None
        return self._peer


class Left(PeerChange):
    """A peer left, or was silent for longer than its lease.

    >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as alice:
    ...     _ = alice.register("alice", "127.0.0.1:7901")
    ...     watch = p2pdi.RegistryClient(registry.url).watch()
    ...     _ = next(watch), alice.leave()
    ...     next(watch)
    Left(name='alice')
    """

    __slots__ = ()
    __match_args__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    @property
    def peer(self) -> None:
        """None."""
        return None


def change(told: tuple[str, str, PeerRecord | None]) -> Joined | Changed | Left:
    """What the native side tells of, as an object."""
    what, name, peer = told
    if peer is None:
        return Left(name)
    return Joined(name, peer) if what == "joined" else Changed(name, peer)


class RegistryClient:
    """Calls to a registry, without a peer. Its ``with`` leaves at the end.

    ``url``
        ``"http://host:7800"``, with ``tls`` ``"https://host:7800"``.
    ``network``
        The network whose peers it lists and registers.
    ``tls``
        Files of its certificate, key and CAs.

    All calls raise ``NoRoute`` if the registry cannot be reached, ``PeerTimeout`` if it does not answer within 10 seconds, and ``Refused`` if it
    says no.

    >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
    ...     client.register("alice", "127.0.0.1:7901", {"zone": "x"}).name
    ...     [peer.labels for peer in p2pdi.RegistryClient(registry.url).pquery("a*")]
    'alice'
    [{'zone': 'x'}]
    """

    def __init__(
        self, url: str, network: str = "default", tls: tuple[StrPath, StrPath, StrPath] | None = None
    ) -> None:
        self._native = NativeRegistryClient(url, network, _run.certificates(tls))
        self._closed = False
        _run.track(self)

    def register(self, name: str, endpoint: str, labels: Mapping[str, str] | None = None) -> Lease:
        """Registers a name at an address, ``"host:port"``, for as long as ``lease.ttl``, in seconds.

        Raises ``NameTaken`` if another peer has it, and ``Invalid`` for a name or an address that is not valid.

        >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
        ...     lease = client.register("alice", "127.0.0.1:7901")
        >>> lease.name, lease.ttl
        ('alice', 30.0)
        """
        return _run.wait(self._native.register(name, endpoint, dict(labels or {})))

    def keep_alive(self) -> Lease:
        """Extends the lease; to be called every ``lease.keep_alive_interval`` seconds. Raises ``Refused`` if it has ended, ``Closed`` if there is none.

        >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
        ...     _ = client.register("alice", "127.0.0.1:7901")
        ...     client.keep_alive().name
        'alice'
        """
        return _run.wait(self._native.keep_alive())

    def leave(self) -> None:
        """Ends the lease: the name is free. Without a lease it does nothing.

        >>> with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
        ...     _ = client.register("alice", "127.0.0.1:7901")
        ...     client.leave()
        ...     client.pquery()
        []
        """
        _run.wait(self._native.leave())

    def pquery(self, name: str = "", labels: Mapping[str, str] | None = None, sample: int = 0) -> list[PeerRecord]:
        """The other active peers: all, those of a name or a pattern such as ``"gpu-*"``, those with all of these labels, or so many random ones of them.

        Registers as an observer, whom nobody sees, unless :meth:`register` was called; again, when that lease ran out since the last call.

        >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False) as alice:
        ...     with p2pdi.RegistryClient(registry.url) as client:
        ...         [peer.name for peer in client.pquery()]
        ['alice']
        """
        return _run.wait(self._native.pquery(name, dict(labels or {}), sample))

    def watch(self, timeout: Seconds | None = None) -> Iterator[Joined | Changed | Left]:
        """Who joins, changes and leaves, as the registry tells it; first those that are there. Ends after ``timeout``.

        It goes on where it was when the connection breaks, the registry restarts, or this program reads too slowly: then it tells what changed
        meanwhile. A first call that fails raises, and later ones that are refused, as ``Refused`` or ``NameTaken``. It registers as an observer of
        its own, and ends when the client is closed.

        >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False) as alice:
        ...     for change in p2pdi.RegistryClient(registry.url).watch(timeout=10):
        ...         print(change.change, change.name)
        ...         alice.close()
        ...         if isinstance(change, p2pdi.Left):
        ...             break
        joined alice
        left alice
        """
        limit = None if timeout is None else _run.seconds(timeout)
        return self._watch(self._native.watch(), limit)

    def _watch(self, native: NativeWatch, limit: float | None) -> Iterator[Joined | Changed | Left]:
        # As a method, so that the client is there for as long as the watch is: at the end of the program it ends it.
        until = None if limit is None else time.monotonic() + limit
        try:
            while True:
                try:
                    left = None if until is None else max(until - time.monotonic(), 0.0)
                    told = _run.wait(native.next(), left)
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
        # What a program registered, it may want to stay for as long as its lease; threads that wait for changes end.
        self._native.end()

    def _forget(self) -> None:
        self._closed = True

    def close(self) -> None:
        """Leaves, if it is registered, and ends its watches. Then all calls raise ``Closed``. A second call does nothing.

        >>> with p2pdi.Registry() as registry:
        ...     client = p2pdi.RegistryClient(registry.url)
        ...     _ = client.register("alice", "127.0.0.1:7901")
        ...     client.close()
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.leave()
        except Refused:
            pass  # Its lease had run out.
        finally:
            self._native.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
