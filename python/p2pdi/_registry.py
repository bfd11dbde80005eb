"""A registry in this process, and calls to one."""

from __future__ import annotations

import os

from . import _run
from ._p2pdi import NativeRegistry, NativeRegistryClient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._p2pdi import Lease, PeerRecord
    from ._run import Seconds, StrPath


class Registry:
    """A registry in this process, for tests and notebooks: it knows which peers are alive.

    ``state``
        A folder, for what must survive a restart; otherwise it is in memory.
    ``ttl``
        How long a peer that is silent stays listed.

    >>> with p2pdi.Registry() as registry, p2pdi.Peer("alice", registry=registry.url, lan=False):
    ...     with p2pdi.RegistryClient(registry.url) as client:
    ...         [peer.name for peer in client.pquery()]
    ['alice']
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        state: StrPath | None = None,
        ttl: Seconds = 30.0,
        name_hold: Seconds = 600.0,
        network: str = "default",
    ) -> None:
        self._closed = False
        state = None if state is None else os.fspath(state)
        self._native = _run.wait(
            NativeRegistry.open(
                listen=listen, state=state, ttl=_run.seconds(ttl), name_hold=_run.seconds(name_hold), network=network
            )
        )
        _run.track(self)

    @property
    def address(self) -> str:
        """``host:port``."""
        return self._native.address

    @property
    def url(self) -> str:
        """What peers are given: ``http://host:port``."""
        return f"http://{self._native.address}"

    def close(self, timeout: Seconds | None = 10.0) -> None:
        """Stops. A second call does nothing."""
        if not self._closed:
            self._closed = True
            _run.wait(self._native.close(), timeout, "the registry's end")

    def _end(self) -> None:
        self.close(timeout=2.0)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry {self.url}{' closed' if self._closed else ''}>"


class PeerChange:
    """That a peer joined, changed or left: ``change`` is one of these words, ``peer`` its record, or ``None`` for one that left."""

    __slots__ = ("change", "name", "peer")
    __match_args__ = ("change", "name", "peer")

    change: str
    name: str
    peer: PeerRecord | None

    def __init__(self, change: str, name: str, peer: PeerRecord | None) -> None:
        for field, value in zip(self.__slots__, (change, name, peer)):
            object.__setattr__(self, field, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a PeerChange cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PeerChange):
            return NotImplemented
        return (self.change, self.name, self.peer) == (other.change, other.name, other.peer)

    def __hash__(self) -> int:
        return hash((self.change, self.name))

    def __repr__(self) -> str:
        return f"PeerChange(change={self.change!r}, name={self.name!r}, peer={self.peer!r})"


class Watched:
    """What changed since the last look at a registry."""

    def __init__(self) -> None:
        self.revision = 0
        self._known: dict[str, PeerRecord] = {}

    def take(self, answer: tuple[list[PeerRecord], list[str], int, bool]) -> list[PeerChange]:
        """The changes that an answer tells of."""
        peers, gone, self.revision, are_all = answer
        changes = []
        names = {peer.name for peer in peers if peer.active}
        left = set(gone) | {peer.name for peer in peers if not peer.active}
        if are_all:
            left |= self._known.keys() - names
        for name in sorted(left - names):
            if self._known.pop(name, None) is not None:
                changes.append(PeerChange("left", name, None))
        for peer in peers:
            if not peer.active:
                continue
            before = self._known.get(peer.name)
            self._known[peer.name] = peer
            if before is None:
                changes.append(PeerChange("joined", peer.name, peer))
            elif (before.endpoint, before.labels) != (peer.endpoint, peer.labels):
                changes.append(PeerChange("changed", peer.name, peer))
        return changes


class RegistryClient:
    """Calls to a registry, without a peer. ``pquery`` and ``watch`` register as an observer, which nobody sees, unless :meth:`register` was called."""

    def __init__(
        self, url: str, network: str = "default", tls: tuple[StrPath, StrPath, StrPath] | None = None
    ) -> None:
        paths = None if tls is None else (os.fspath(tls[0]), os.fspath(tls[1]), os.fspath(tls[2]))
        self._native = NativeRegistryClient(url, network, paths)
        self._is_registered = False

    def register(self, name: str, endpoint: str, labels: Mapping[str, str] | None = None) -> Lease:
        """Registers a name at an address for as long as ``lease.ttl``. Raises ``NameTaken`` if another peer has it."""
        lease = _run.wait(self._native.register(name, endpoint, dict(labels or {}), False))
        self._is_registered = True
        return lease

    def keep_alive(self) -> Lease:
        """Extends the lease. Raises ``Refused`` if it has ended, and ``Closed`` if there is none."""
        return _run.wait(self._native.keep_alive())

    def leave(self) -> None:
        """Ends the lease."""
        self._is_registered = False
        _run.wait(self._native.leave())

    def pquery(self, name: str = "", labels: Mapping[str, str] | None = None, sample: int = 0) -> list[PeerRecord]:
        """The active peers: all, those of a name or with labels, or so many random ones."""
        self._observe()
        peers, _, _, _ = _run.wait(self._native.pquery(name, dict(labels or {}), sample, 0))
        return peers

    def watch(self, interval: Seconds = 1.0, timeout: Seconds | None = None) -> Iterator[PeerChange]:
        """Changes as they happen, those that are there first; asks once each ``interval``. Ends after ``timeout``."""
        import time

        self._observe()
        watched = Watched()
        until = None if timeout is None else time.monotonic() + _run.seconds(timeout)
        while True:
            yield from watched.take(_run.wait(self._native.pquery("", {}, 0, watched.revision)))
            pause = _run.seconds(interval)
            if until is not None:
                pause = min(pause, until - time.monotonic())
                if pause <= 0:
                    return
            time.sleep(pause)

    def _observe(self) -> None:
        if not self._is_registered:
            _run.wait(self._native.register(observer_name(), "", {}, True))
            self._is_registered = True

    def close(self) -> None:
        """Leaves, if it is registered."""
        if self._is_registered:
            self.leave()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def observer_name() -> str:
    """A name that no other observer has."""
    return f"python-{os.urandom(8).hex()}"
