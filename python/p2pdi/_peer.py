"""The blocking peer."""

from __future__ import annotations

import os

from . import _run
from ._errors import NoRoute, PeerTimeout
from ._fetch import Fetch, RemoteFile
from ._messages import Messages
from ._p2pdi import NativePeer
from ._settings import settings
from ._share import Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias, TypeVar, overload

    from ._handlers import HandlerFunction, HandlerThread
    from ._p2pdi import Answers, Document, Message, PeerInfo, Reply
    from ._run import Address, Body, Named, Seconds, StrPath

    F = TypeVar("F", bound=HandlerFunction)
    # Documents, the peers that failed, each with the reason, and whether there are more.
    Listed: TypeAlias = tuple[list[Document], list[tuple[str, str]], bool]
else:

    def overload(function):
        return function

# How long a new peer waits for its registry. A registry that is away later is waited for in the background.
REGISTER_TIMEOUT = 5.0
# Between two looks at how many peers there are, in seconds.
LOOK = 0.05
# Of peers that do not answer, so many are named in the log: there may be a thousand of them.
FAILED_SHOWN = 8


def listed(told: Listed, from_: list[str]) -> list[Document]:
    """The documents of a listing. Raises ``NoRoute`` if a peer of ``from_`` did not answer; what else is missing is logged."""
    documents, failed, is_cut = told
    if from_ and failed:
        peer, why = failed[0]
        raise NoRoute(f"{peer} does not say what it shares: {why}")
    if failed or is_cut:
        import logging

        log = logging.getLogger("p2pdi")
        for peer, why in failed[:FAILED_SHOWN]:
            log.warning("%s does not say what it shares, and is left out: %s", peer, why)
        if len(failed) > FAILED_SHOWN:
            log.warning("%d more peers do not say what they share, and are left out", len(failed) - FAILED_SHOWN)
        if is_cut:
            log.warning("there are more documents than a listing may have; give a pattern, or from_")
    return documents


def unregistered(native: NativePeer) -> None:
    """Logs that a peer is without its registry for now."""
    import logging

    logging.getLogger("p2pdi").warning("%s is not registered yet, and goes on trying: %s", native.name, native.registration()[1])


class Peer:
    """A peer in this program. It runs from its making until :meth:`close`, the end of its ``with``, or its garbage collection.

    ``name``
        Letters, digits, hyphens and dots. Without it, the machine's name and some digits.
    ``registry``
        ``"http://host:7800"``: where peers find each other.
    ``bootnodes``
        Peers to link to: ``"host:port"``, ``"name@host:port"`` or ``(host, port)``; tried until they answer.
    ``share``
        A folder that others may fetch from; see also :meth:`share`.
    ``lan``
        Whether it finds peers on the local network by itself.
    ``state``
        A folder for its identity and its index. Without it both are made anew each time.
    ``tls``
        Files of its certificate, key and CAs, PEM. ``token``: of ``p2pctl token create``, in their place.
    ``network``
        Only peers of the same network link to each other.
    ``listen``
        ``"address:port"``; port 0 is a free one. Without it: all addresses if ``lan``, otherwise this machine only.
    ``advertise``
        The ``"host:port"`` that others dial, where it is another than it listens on.
    ``labels``
        Words about it that the registry lists, such as ``{"zone": "rack7"}``.
    ``upload_limit``, ``download_limit``
        Bytes a second. ``quota``: bytes that the folder may have; what is not pinned makes room.

    Raises ``NameTaken`` if another peer has the name in the registry, ``Invalid`` for values that are not valid, and ``NotFound`` for a folder or a
    certificate that does not exist. A registry that does not answer within 5 seconds is logged, and tried again for as long as the peer runs; see
    :attr:`registered`.

    >>> with p2pdi.Peer("alice", lan=False) as alice:
    ...     alice.name, alice.get_peer_count(wait=0)
    ('alice', 0)
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        registry: str | None = None,
        bootnodes: Address | Iterable[Address] = (),
        share: StrPath | None = None,
        lan: bool = True,
        state: StrPath | None = None,
        tls: tuple[StrPath, StrPath, StrPath] | None = None,
        token: str | None = None,
        network: str = "default",
        listen: str | None = None,
        advertise: str | None = None,
        labels: Mapping[str, str] | None = None,
        upload_limit: int | None = None,
        download_limit: int | None = None,
        quota: int | None = None,
    ) -> None:
        given = settings(
            name,
            registry=registry,
            bootnodes=bootnodes,
            share=share,
            lan=lan,
            state=state,
            tls=tls,
            token=token,
            network=network,
            listen=listen,
            advertise=advertise,
            labels=labels or {},
            upload_limit=upload_limit,
            download_limit=download_limit,
            quota=quota,
        )
        self._closed = False
        self._native = _run.wait(NativePeer.open(given))
        # Messages of other kinds would count as wanted: `wait` asks for them when it is called.
        self._inbox = self._native.inbox(["text"])
        self._is_wide = False
        self._lost = 0
        self._handlers: dict[str, HandlerThread] = {}
        _run.track(self)
        if registry is not None or token is not None:
            try:
                if not _run.wait(self._native.registered(REGISTER_TIMEOUT)):
                    unregistered(self._native)
            except BaseException:
                self.close()
                raise

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def id(self) -> str:
        """Its id, 32 hexadecimal digits; the same after a restart with the same ``state``."""
        return self._native.id

    @property
    def endpoint(self) -> str:
        """The ``host:port`` that others dial."""
        return self._native.endpoint

    @property
    def address(self) -> tuple[str, int]:
        """The same as ``(host, port)``."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def registered(self) -> bool:
        """Whether the registry lists it now. False without one, and while the registry is away; then the peer goes on trying."""
        return not self._closed and self._native.registration()[0]

    @property
    def received(self) -> int:
        """Messages received so far."""
        return self._native.counts()[0]

    @property
    def dropped(self) -> int:
        """Messages dropped, the oldest first, because a handler or :meth:`wait` was too slow for them: some 1,000 are kept."""
        return self._native.counts()[1] + self._lost

    # Other peers.

    def get_peer_count(self, wait: Seconds = 1.0, expect: int | None = None) -> int:
        """How many other peers are known after ``wait``; earlier if there are ``expect``.

        >>> with p2pdi.testing.network(3) as (one, two, three):
        ...     one.get_peer_count(wait=10, expect=2)
        2
        """
        import time

        until = time.monotonic() + _run.seconds(wait)
        while True:
            count = len(self.peers())
            left = until - time.monotonic()
            if left <= 0 or (expect is not None and count >= expect):
                return count
            time.sleep(min(LOOK, left))

    def peers(self) -> list[PeerInfo]:
        """The other peers that are known, by name. Some may be gone by now.

        >>> with p2pdi.testing.network(2) as (one, two):
        ...     [str(peer) == f"peer-2@{two.endpoint}" for peer in one.peers()]
        [True]
        """
        return self._native.peers()

    def find_peer(self, name: str, timeout: Seconds | None = None) -> PeerInfo | None:
        """The peer of this name, or ``None``. Names compare without case. Raises ``PeerTimeout`` after ``timeout``.

        >>> with p2pdi.testing.network(2) as (one, two):
        ...     one.find_peer("PEER-2").name, one.find_peer("nobody")
        ('peer-2', None)
        """
        return _run.wait(self._native.find_peer(name), timeout, name)

    def peers_from(self, peer: Address, timeout: Seconds | None = None) -> list[PeerInfo]:
        """The peers that another peer knows, by its name or address.

        Raises ``NoRoute`` if it cannot be reached, ``PeerTimeout`` after ``timeout``, or if it does not answer within 5 seconds.

        >>> with p2pdi.testing.network(3) as (one, two, three):
        ...     [peer.name for peer in two.peers_from(one.address)]  # Both have joined it.
        ['peer-3']
        """
        address = _run.address(peer)
        return _run.wait(self._native.peers_from(address), timeout, address)

    def join(self, peer: Address, timeout: Seconds | None = None) -> PeerInfo:
        """Links to another peer, and so joins its network: ``"host:port"``, ``"name@host:port"`` or ``(host, port)``.

        Raises ``NoRoute`` if nobody answers there, ``Refused`` if it says no, ``PeerTimeout`` after ``timeout``.

        >>> with p2pdi.Peer("alice", lan=False) as alice, p2pdi.Peer("bob", lan=False) as bob:
        ...     bob.join(alice.endpoint).name
        'alice'
        """
        address = _run.address(peer)
        return _run.wait(self._native.join(address), timeout, address)

    def bootstrap(self, peers: Address | Iterable[Address], timeout: Seconds | None = None) -> list[PeerInfo]:
        """Links to all of a list, and returns those that answered. Raises ``NoRoute`` if none does.

        >>> with p2pdi.Peer("alice", lan=False) as alice, p2pdi.Peer("bob", lan=False) as bob:
        ...     [peer.name for peer in bob.bootstrap([alice.address, ("127.0.0.1", 1)])]
        ['alice']
        """
        return _run.wait(self._native.bootstrap(_run.addresses(peers)), timeout, "bootstrap")

    # Messages.

    def send_message_to_peers(self, message: Body, wait: Seconds = 2.0, kind: str = "text") -> Answers:
        """Sends a message to all peers, and waits at most ``wait`` until all have it. The result compares as the number of those that do.

        A peer that knows of others and has no link to any yet, since it just started, waits for one first. Raises ``Invalid`` for a ``wait`` of more
        than 60 seconds.

        >>> with p2pdi.testing.network(3) as (one, two, three):
        ...     answers = one.send_message_to_peers("hello_there", wait=10)
        >>> answers == 2, answers.sent, answers.missing
        (True, 2, [])
        """
        import time

        limit = _run.seconds(wait)
        until = time.monotonic() + limit
        while self._lacks_links() and time.monotonic() < until:
            time.sleep(LOOK)
        return self.broadcast(kind, message, max(until - time.monotonic(), limit / 2))

    def _lacks_links(self) -> bool:
        peers = self.peers()
        return bool(peers) and not any(peer.linked for peer in peers)

    def broadcast(self, kind: str, body: Body, wait: Seconds = 0.0) -> Answers:
        """Sends a message of a kind to all peers, and waits at most ``wait`` for those that are known to acknowledge it.

        Raises ``Invalid`` for a kind that is no token of letters, digits and ``. _ -``, for a body of more than some 60 KiB, and for a ``wait`` of more
        than 60 seconds.

        >>> with p2pdi.testing.network(3) as (one, two, three):
        ...     one.broadcast("news", b"...", wait=10).answered
        2
        """
        return _run.wait(self._native.broadcast(kind, _run.body(body), _run.seconds(wait)))

    def whisper(self, to: str, body: Body, kind: str = "text", timeout: Seconds = 5.0) -> Reply:
        """Sends a message to the peer of this name, by whatever way there is, and returns its reply.

        The reply is that of a handler of the kind there, if it comes within a second; without one ``reply.answered`` is false. A handler that
        raised makes a reply whose ``is_fault`` is true.

        Raises ``NoRoute`` if there is no way to the peer, ``PeerTimeout`` after ``timeout``, and ``Invalid`` for a kind that is no token, or a body of
        more than 256 KiB.

        >>> with p2pdi.testing.network(2) as (one, two):
        ...     two.on("UPPER", lambda message: message.text.upper())
        ...     reply = one.whisper(two.name, "hello", kind="UPPER")
        >>> reply.text, reply.sender, reply.answered
        ('HELLO', 'peer-2', True)
        """
        return _run.wait(self._native.whisper(to, kind, _run.body(body)), timeout, to)

    def wait(self, timeout: Seconds | None = None) -> Message:
        """The next message of any kind that no handler takes; of the kind ``text`` also one that came before. Ctrl-C ends it.

        Raises ``PeerTimeout`` after ``timeout``, and ``Closed`` once the peer is closed.

        >>> with p2pdi.testing.network(2) as (one, two):
        ...     _ = one.whisper(two.name, "hello_there")
        ...     two.wait(timeout=5).text
        'hello_there'
        """
        import time

        until = None if timeout is None else time.monotonic() + _run.seconds(timeout)
        if not self._is_wide:
            _run.wait(self._inbox.widen())
            self._is_wide = True
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            try:
                message, lost = _run.wait(self._inbox.next(), left)
                self._lost += lost
            except PeerTimeout:
                raise PeerTimeout(f"no message within {_run.seconds(timeout or 0):g} s") from None
            if message.kind not in self._handlers:
                return message

    def messages(self, *kinds: str) -> Messages:
        """The messages of these kinds from now on, of all without any, to iterate over.

        >>> with p2pdi.testing.network(2) as (one, two), two.messages("NEWS") as messages:
        ...     _ = one.broadcast("NEWS", "today", wait=10)
        ...     next(messages).text
        'today'
        """
        return Messages(self._native.inbox(list(kinds)))

    @overload
    def on(self, kind: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, kind: str, handler: HandlerFunction) -> None: ...

    def on(self, kind: str, handler: HandlerFunction | None = None) -> Callable[[F], F] | None:
        """Calls a function with each message of a kind from now on; a decorator, or with the function as an argument.

        What it returns goes back to the sender of a whisper: ``str`` or ``bytes``, or ``(kind, body)``. What it raises is logged, and the sender
        gets a reply of the kind ``FAULT``. One message at a time, in order, on a thread of its own; an ``async def`` runs on the event loop of
        whoever set it, or on one of its own.

        >>> with p2pdi.testing.network(2) as (one, two):
        ...     @two.on("PING2")
        ...     def pong(message):
        ...         return ("PONG2", message.body)
        ...     one.whisper(two.name, "x", kind="PING2").kind
        'PONG2'
        """

        if not isinstance(kind, str):
            raise TypeError('on() needs the kind of the messages, such as @peer.on("TEST")')
        if handler is not None:
            self._handle(kind, handler)
            return None

        def add(function: F) -> F:
            self._handle(kind, function)
            return function

        return add

    def _handle(self, kind: str, function: HandlerFunction) -> None:
        from ._handlers import HandlerThread

        if not callable(function):
            raise TypeError(f"a handler is a function, not {function!r}")
        before = self._handlers.get(kind)
        if before is None:
            self._handlers[kind] = HandlerThread(self._native, kind, function)
        else:
            before.function = function

    # Documents.

    def documents(self, pattern: str | None = None, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> list[Document]:
        """What other peers share: all, or what matches a pattern such as ``"rfc*"`` or ``"models/**"``. ``from_``: only these peers, by name or address.

        Raises ``NoRoute`` if one of ``from_`` does not answer, ``PeerTimeout`` after ``timeout``. Without ``from_`` those that do not answer are left
        out, and logged.

        >>> with p2pdi.testing.network(2, documents={"a.txt": b"x"}) as (one, two):
        ...     [document.name for document in two.documents("*.txt")]
        ['a.txt']
        """
        names = _run.names(from_)
        return listed(_run.wait(self._native.documents(pattern, names), timeout, "the listing"), names)

    def search(self, words: str, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> list[Document]:
        """What other peers share that has all these words in its name or title. Raises as :meth:`documents` does.

        >>> with p2pdi.testing.network(2, documents={"blue whale.txt": b"x", "grey whale.txt": b"y"}) as (one, two):
        ...     [document.name for document in two.search("whale blue")]
        ['blue whale.txt']
        """
        names = _run.names(from_)
        return listed(_run.wait(self._native.search(words, names), timeout, "the search"), names)

    def find_document(self, wanted: str | Document, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> Document:
        """The document that a name, ``"rfc:2324"`` or ``"b3:HASH"`` means. Raises ``NotFound`` or ``Ambiguous``.

        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     document = two.find_document("a.txt")
        >>> document.size, document.holders
        (5, ['peer-1'])
        """
        name = _run.name(wanted)
        return _run.wait(self._native.find_document(name, _run.names(from_)), timeout, name)

    def fetch(
        self,
        wanted: Named | Iterable[Named],
        out: StrPath = "./out",
        from_: Named | Iterable[Named] = (),
        limit: int | None = None,
        replace: bool = False,
        wait_for_holders: Seconds = 0.0,
    ) -> Fetch:
        """Fetches documents into a folder: names, patterns, ``"rfc:2324"``, ``"b3:HASH"``, or what a listing has. Begins at once; see :class:`Fetch`.

        Each is verified, comes from several peers at once, and goes on where an earlier fetch stopped. ``from_``: peers to fetch from, by name
        or address. ``limit``: bytes a second. ``replace``: files of the same name with other content. ``wait_for_holders``: how long to wait
        while nobody has it.

        Raises ``Invalid`` for a name that is not valid; whatever else fails is raised by :meth:`Fetch.result`.

        >>> import tempfile
        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        ...     (path,) = two.fetch("*.txt", out=tempfile.mkdtemp()).result()
        >>> path.read_bytes()
        b'hello'
        """
        names, limit = _run.names(wanted), _run.at_least_1("limit", limit)
        wait = _run.seconds(wait_for_holders)
        return Fetch(self._native.fetch(names, os.fspath(out), _run.names(from_), limit, replace, wait))

    def open(self, wanted: str | Document, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> RemoteFile:
        """Opens a document that others have, to read parts of it. Nothing is stored.

        Raises ``NotFound`` if nobody has it, ``Ambiguous`` if several have that name, ``NoRoute`` if its holders cannot be reached, and
        ``PeerTimeout`` after ``timeout``.

        >>> with p2pdi.testing.network(2, documents={"a.txt": b"hello there"}) as (one, two):
        ...     two.open("a.txt").read_at(6, 3)
        b'the'
        """
        name = _run.name(wanted)
        return RemoteFile(_run.wait(self._native.open_document(name, _run.names(from_)), timeout, name))

    def share(self, folder: StrPath, wait: Seconds | None = None) -> Share:
        """Shares a folder from now on, with all that is added to it later. A peer shares one.

        Waits until what is in it is hashed, or for ``wait``. Raises ``NotFound`` if there is no such folder, ``Invalid`` if the peer shares
        another one.

        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("hello")
        >>> with p2pdi.Peer("alice", lan=False) as alice:
        ...     [document.name for document in alice.share(folder).documents]
        ['a.txt']
        """
        folder = os.fspath(folder)
        _run.wait(self._native.share(folder))
        share = Share(self._native, folder)
        try:
            share.wait(wait)
        except PeerTimeout:
            pass
        return share

    def pin(self, name: str, pin: bool = True) -> bool:
        """Keeps a document of the shared folder whatever ``quota`` says, or releases it. Returns whether it was so before.

        Raises ``NotFound`` if the folder has no such document.

        >>> with p2pdi.testing.network(1, documents={"a.txt": b"hello"}) as (one,):
        ...     one.pin("a.txt"), one.pin("a.txt", False), one.pin("a.txt", False)
        (False, False, True)
        """
        return _run.wait(self._native.pin(name, pin))

    # The end.

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self, timeout: Seconds | None = 10.0) -> None:
        """Stops: leaves the registry and the mesh, and ends what waits with ``Closed``. A second call does nothing.

        Raises ``PeerTimeout`` if it takes longer than ``timeout``; it stops all the same.

        >>> alice = p2pdi.Peer("alice", lan=False)
        >>> alice.close()
        >>> alice.closed
        True
        """
        if self._closed:
            return
        self._closed = True
        from time import monotonic

        limit = None if timeout is None else max(_run.seconds(timeout), 0.0)
        begun = monotonic()
        call = self._native.close()
        # One grace for all of them, and it counts as part of `timeout`.
        grace = _run.GRACE if limit is None else min(_run.GRACE, limit)
        for handler in self._handlers.values():
            handler.stop(max(begun + grace - monotonic(), 0.0))
        try:
            _run.wait(call, None if limit is None else max(begun + limit - monotonic(), 0.0))
        except PeerTimeout:
            raise PeerTimeout(f"{self.name} did not stop within {limit:g} s; it goes on stopping") from None

    def _end(self) -> None:
        if not self._closed:
            self.close(timeout=2.0)

    def _forget(self) -> None:
        self._closed = True

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Peer {self.name}@{self.endpoint}{' closed' if self._closed else ''}>"
