"""The awaitable peer."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .. import _run
from .._errors import Closed, PeerTimeout
from .._handlers import BATCH, HandlerThread, fault, reply
from .._p2pdi import Answers, Document, Handler, Inbox, Message, NativePeer, PeerInfo, Reply
from .._peer import LOOK, REGISTER_TIMEOUT, listed, unregistered
from .._settings import settings
from ._documents import Fetch, RemoteFile, Share
from ._loop import wait_for

if TYPE_CHECKING:
    from .._handlers import HandlerFunction
    from .._run import Address, Body, Named, Seconds, StrPath

F = TypeVar("F", bound="HandlerFunction")


class Peer:
    """A peer in this program; see ``p2pdi.Peer`` for the settings. It runs from ``async with`` or :meth:`start` to :meth:`close`.

    >>> import asyncio
    >>> from p2pdi import aio
    >>> async def main():
    ...     async with aio.Peer("alice", lan=False) as alice, aio.Peer("bob", lan=False) as bob:
    ...         @alice.on("TEST")
    ...         async def handle(message):
    ...             return message.text.upper()
    ...         await bob.join(alice.endpoint)
    ...         return (await bob.whisper("alice", "hello", kind="TEST")).text
    >>> asyncio.run(main())
    'HELLO'
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
        self._settings = settings(
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
        self._registers = registry is not None or token is not None
        self._started: NativePeer | None = None
        self._inbox: Inbox | None = None
        self._is_wide = False
        self._lost = 0
        self._closed = False
        self._functions: dict[str, HandlerFunction] = {}
        self._threads: dict[str, HandlerThread] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> Peer:
        """Starts it. Raises as the making of a ``p2pdi.Peer`` does."""
        if self._closed:
            raise Closed("the peer was closed; make another one")
        if self._started is None:
            self._started = await wait_for(NativePeer.open(self._settings))
            self._inbox = self._started.inbox(["text"])
            _run.track(self)
            try:
                if self._registers and not await wait_for(self._started.registered(REGISTER_TIMEOUT)):
                    unregistered(self._started)
                for kind, function in list(self._functions.items()):
                    self._handle(kind, function)
            except BaseException:
                await self.close()
                raise
        return self

    @property
    def _native(self) -> NativePeer:
        if self._started is None:
            raise Closed("the peer is not started; use `async with`, or await start()")
        return self._started

    @property
    def name(self) -> str:
        """Its name."""
        return self._native.name

    @property
    def id(self) -> str:
        """Its id, 32 hexadecimal digits."""
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
        """Whether the registry lists it now."""
        return not self._closed and self._native.registration()[0]

    @property
    def received(self) -> int:
        """Messages received so far."""
        return self._native.counts()[0]

    @property
    def dropped(self) -> int:
        """Messages dropped because a handler or :meth:`wait` was too slow for them."""
        return self._native.counts()[1] + self._lost

    async def get_peer_count(self, wait: Seconds = 1.0, expect: int | None = None) -> int:
        """How many other peers are known after ``wait``; earlier if there are ``expect``."""
        until = time.monotonic() + _run.seconds(wait)
        while True:
            count = len(self.peers())
            left = until - time.monotonic()
            if left <= 0 or (expect is not None and count >= expect):
                return count
            await asyncio.sleep(min(LOOK, left))

    def peers(self) -> list[PeerInfo]:
        """The other peers that are known, by name."""
        return self._native.peers()

    async def find_peer(self, name: str, timeout: Seconds | None = None) -> PeerInfo | None:
        """The peer of this name, or ``None``."""
        return await wait_for(self._native.find_peer(name), timeout, name)

    async def peers_from(self, peer: Address, timeout: Seconds | None = None) -> list[PeerInfo]:
        """The peers that another peer knows."""
        address = _run.address(peer)
        return await wait_for(self._native.peers_from(address), timeout, address)

    async def join(self, peer: Address, timeout: Seconds | None = None) -> PeerInfo:
        """Links to another peer, and so joins its network."""
        address = _run.address(peer)
        return await wait_for(self._native.join(address), timeout, address)

    async def bootstrap(self, peers: Address | Iterable[Address], timeout: Seconds | None = None) -> list[PeerInfo]:
        """Links to all of a list, and returns those that answered."""
        return await wait_for(self._native.bootstrap(_run.addresses(peers)), timeout, "bootstrap")

    async def send_message_to_peers(self, message: Body, wait: Seconds = 2.0, kind: str = "text") -> Answers:
        """Sends a message to all peers, and waits at most ``wait`` until all have it."""
        limit = _run.seconds(wait)
        until = time.monotonic() + limit
        while self._lacks_links() and time.monotonic() < until:
            await asyncio.sleep(LOOK)
        return await self.broadcast(kind, message, max(until - time.monotonic(), limit / 2))

    def _lacks_links(self) -> bool:
        peers = self.peers()
        return bool(peers) and not any(peer.linked for peer in peers)

    async def broadcast(self, kind: str, body: Body, wait: Seconds = 0.0) -> Answers:
        """Sends a message of a kind to all peers."""
        return await wait_for(self._native.broadcast(kind, _run.body(body), _run.seconds(wait)))

    async def whisper(self, to: str, body: Body, kind: str = "text", timeout: Seconds = 5.0) -> Reply:
        """Sends a message to the peer of this name, and returns its reply."""
        return await wait_for(self._native.whisper(to, kind, _run.body(body)), timeout, to)

    async def wait(self, timeout: Seconds | None = None) -> Message:
        """The next message that no handler takes."""
        native, inbox = self._native, self._inbox
        assert inbox is not None and native is not None
        until = None if timeout is None else time.monotonic() + _run.seconds(timeout)
        if not self._is_wide:
            await wait_for(inbox.widen())
            self._is_wide = True
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            try:
                message, lost = await wait_for(inbox.next(), left)
                self._lost += lost
            except PeerTimeout:
                raise PeerTimeout(f"no message within {_run.seconds(timeout or 0):g} s") from None
            if message.kind not in self._functions:
                return message

    def messages(self, *kinds: str) -> Messages:
        """The messages of these kinds from now on, of all without any, for ``async for``."""
        return Messages(self._native.inbox(list(kinds)))

    @overload
    def on(self, kind: str, handler: None = None) -> Callable[[F], F]: ...

    @overload
    def on(self, kind: str, handler: HandlerFunction) -> None: ...

    def on(self, kind: str, handler: HandlerFunction | None = None) -> Callable[[F], F] | None:
        """Calls a function with each message of a kind; see ``p2pdi.Peer.on``. Also before the peer is started."""

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
        if not callable(function):
            raise TypeError(f"a handler is a function, not {function!r}")
        self._functions[kind] = function
        if self._started is None:
            return
        if kind in self._threads:
            self._threads[kind].function = function
        elif kind in self._tasks:
            return
        elif inspect.iscoroutinefunction(function):
            queue = self._native.handler(kind)
            # Not a method of this object: the task would keep it, and the garbage collector could not end it.
            self._tasks[kind] = asyncio.get_running_loop().create_task(_handle_all(queue, self._functions, kind))
        else:
            self._threads[kind] = HandlerThread(self._native, kind, function)

    async def documents(
        self, pattern: str | None = None, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None
    ) -> list[Document]:
        """What other peers share."""
        names = _run.names(from_)
        return listed(await wait_for(self._native.documents(pattern, names), timeout, "the listing"), names)

    async def search(self, words: str, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> list[Document]:
        """What other peers share that has all these words in its name or title."""
        names = _run.names(from_)
        return listed(await wait_for(self._native.search(words, names), timeout, "the search"), names)

    async def find_document(self, wanted: str | Document, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> Document:
        """The document that a name, ``"rfc:2324"`` or ``"b3:HASH"`` means."""
        name = _run.name(wanted)
        return await wait_for(self._native.find_document(name, _run.names(from_)), timeout, name)

    def fetch(
        self,
        wanted: Named | Iterable[Named],
        out: StrPath = "./out",
        from_: Named | Iterable[Named] = (),
        limit: int | None = None,
        replace: bool = False,
        wait_for_holders: Seconds = 0.0,
    ) -> Fetch:
        """Fetches documents into a folder; see ``p2pdi.Peer.fetch``. Await the result, or ``async for`` its progress."""
        names, limit = _run.names(wanted), _run.at_least_1("limit", limit)
        wait = _run.seconds(wait_for_holders)
        return Fetch(self._native.fetch(names, os.fspath(out), _run.names(from_), limit, replace, wait))

    async def open(self, wanted: str | Document, from_: Named | Iterable[Named] = (), timeout: Seconds | None = None) -> RemoteFile:
        """Opens a document that others have, to read parts of it."""
        name = _run.name(wanted)
        return RemoteFile(await wait_for(self._native.open_document(name, _run.names(from_)), timeout, name))

    async def share(self, folder: StrPath, wait: Seconds | None = None) -> Share:
        """Shares a folder from now on."""
        folder = os.fspath(folder)
        await wait_for(self._native.share(folder))
        share = Share(self._native, folder)
        try:
            await share.wait(wait)
        except PeerTimeout:
            pass
        return share

    async def pin(self, name: str, pin: bool = True) -> bool:
        """Keeps a document of the shared folder whatever ``quota`` says, or releases it."""
        return await wait_for(self._native.pin(name, pin))

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    async def close(self, timeout: Seconds | None = 10.0) -> None:
        """Stops it, and its handlers. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._started is None:
            return
        limit = None if timeout is None else max(_run.seconds(timeout), 0.0)
        begun = time.monotonic()
        call = self._started.close()
        for task in self._tasks.values():
            if task is not asyncio.current_task():
                task.cancel()
        grace = _run.GRACE if limit is None else min(_run.GRACE, limit)
        # Not on the loop, which a handler at work may be waiting for.
        stopping = [asyncio.to_thread(thread.stop, grace) for thread in self._threads.values()]
        if stopping:
            await asyncio.gather(*stopping)
        try:
            await wait_for(call, None if limit is None else max(begun + limit - time.monotonic(), 0.0))
        except PeerTimeout:
            raise PeerTimeout(f"{self.name} did not stop within {limit:g} s; it goes on stopping") from None

    def _end(self) -> None:
        if self._started is not None and not self._closed:
            self._closed = True
            _run.wait(self._started.close(), 2.0)

    def _forget(self) -> None:
        self._closed = True

    async def __aenter__(self) -> Peer:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        if self._started is None:
            return f"<aio.Peer {self._settings['name']} not started>"
        return f"<aio.Peer {self.name}@{self.endpoint}{' closed' if self._closed else ''}>"


async def _handle_all(queue: Handler, functions: dict[str, HandlerFunction], kind: str) -> None:
    while True:
        batch = await wait_for(queue.next(BATCH))
        if not batch:
            return
        for message, replier in batch:
            try:
                function = functions[kind]
                # One that took the place of an `async def` may be a function that blocks.
                on_loop = inspect.iscoroutinefunction(function)
                result: Any = function(message) if on_loop else await asyncio.to_thread(function, message)
                if isinstance(result, Awaitable):
                    result = await result
                reply(kind, replier, result)
            except Exception as error:
                fault(kind, replier, error)
            except asyncio.CancelledError as error:
                # Either what the handler waited for was cancelled, or this task is, which only later Pythons can tell.
                task: Any = asyncio.current_task()
                if not hasattr(task, "cancelling") or task.cancelling():
                    raise
                fault(kind, replier, error)


class Messages:
    """Messages for ``async for``. Ends when the peer is closed. See ``p2pdi.Messages``.

    >>> import asyncio
    >>> from p2pdi import aio
    >>> async def main():
    ...     async with aio.Peer("alice", lan=False) as alice:
    ...         messages = alice.messages("NEWS")
    ...         await alice.whisper("alice", "today", kind="NEWS")
    ...         async for message in messages:
    ...             return message.text
    >>> asyncio.run(main())
    'today'
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox: Inbox | None = inbox
        self.lost = 0

    async def next(self, timeout: Seconds | None = None) -> Message:
        """The next message."""
        inbox = self._inbox
        if inbox is None:
            raise Closed("these messages were closed")
        message, lost = await wait_for(inbox.next(), timeout, "the next message")
        self.lost += lost
        return message

    def close(self) -> None:
        """Reads no more, also for a task that waits in :meth:`next`."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()

    async def __aenter__(self) -> Messages:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None
