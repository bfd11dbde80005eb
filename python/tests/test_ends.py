"""How things end, in time, and what is left of them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE, until
from p2pdi import aio

THREADS = """
import asyncio, gc, os, tempfile, time
import p2pdi
from p2pdi import aio
def threads():
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            found.append(open(f"/proc/self/task/{task}/comm").read().strip())
        except OSError:
            pass  # It ended meanwhile.
    return sorted(found)
def gone(what):
    end = time.monotonic() + 30
    while threads() != before:
        assert time.monotonic() < end, (what, threads())
        time.sleep(0.02)
    print(what)
before = threads()
def blocking():
    with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as network:
        one, two = network
        two.on("ECHO", lambda message: message.body)
        assert one.whisper(two.name, "x", kind="ECHO").text == "x"
        messages, file, fetch = one.messages(), two.open("a.txt"), two.fetch("a.txt", tempfile.mkdtemp())
        assert fetch.result() and file.read() == b"hello"
        with p2pdi.RegistryClient(network.registry.url) as client:
            assert len(client.pquery()) == 2
            changes = client.watch()
            assert next(changes).change == "joined"
        assert "p2pdi" in threads()
    # All of it is there, and closed.
    return network, one, two, messages, file, fetch, client, changes
for _ in range(2):
    kept = blocking()
    gone("blocking")
async def awaitable():
    async with aio.Registry() as registry, aio.Peer("alice", registry=registry.url, lan=False) as alice:
        async with aio.RegistryClient(registry.url) as client:
            assert [peer.name for peer in await client.pquery()] == ["alice"]
asyncio.run(awaitable())
gone("awaitable")
peer = p2pdi.Peer("collected", lan=False)
del peer
gc.collect()
gone("collected")
try:
    p2pdi.Peer("refused", lan=False, share="/nowhere")
except p2pdi.NotFound:
    pass
gone("refused")
try:
    p2pdi.RegistryClient("http://127.0.0.1:1").pquery()
except p2pdi.NoRoute:
    pass
# Nobody holds the client any more, which the traceback did.
gone("away")
"""


def test_no_thread_is_left_when_all_is_closed(program: Any) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc")
    code, out, error = program(THREADS, timeout=2 * PATIENCE)
    assert (code, out.split(), error) == (0, ["blocking", "blocking", "awaitable", "collected", "refused", "away"], "")


def test_threads_end_and_begin_while_others_use_them() -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                with p2pdi.Peer(f"peer-{number}", lan=False) as peer:
                    assert peer.whisper(peer.name, "x").sender == peer.name
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []


def test_close_takes_no_longer_than_its_time() -> None:
    at_work, release = threading.Event(), threading.Event()

    def hang(message: p2pdi.Message) -> None:
        at_work.set()
        release.wait(PATIENCE)

    peer = p2pdi.Peer("a", lan=False)
    for kind in ("HANG1", "HANG2", "HANG3"):
        peer.on(kind, hang)
        at_work.clear()
        assert not peer.whisper("a", "x", kind=kind).answered
        assert at_work.wait(PATIENCE)
    begun = time.monotonic()
    try:
        peer.close(timeout=0.2)
    except p2pdi.PeerTimeout as error:
        assert "did not stop within 0.2 s" in str(error)
    # Not two seconds for each of the handlers.
    assert time.monotonic() - begun < 1.5
    release.set()


def test_the_loop_goes_on_while_a_peer_closes() -> None:
    async def main() -> None:
        at_work, release = threading.Event(), threading.Event()

        def hang(message: p2pdi.Message) -> str:
            at_work.set()
            release.wait(PATIENCE)
            return "late"

        async with aio.Peer("a", lan=False) as peer:
            peer.on("HANG", hang)
            assert not (await peer.whisper("a", "x", kind="HANG")).answered
            assert at_work.is_set()
            closing = asyncio.ensure_future(peer.close())
            longest, last = 0.0, time.monotonic()
            while not closing.done():
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            # Closing waits two seconds for the handler.
            assert longest < 1.5
            release.set()
            await closing

    asyncio.run(main())


def test_a_timeout_of_zero_takes_what_is_there() -> None:
    async def main() -> None:
        async with aio.Peer("a", lan=False) as a:
            await a.whisper("a", "there")
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    assert (await a.wait(timeout=0)).text == "there"
                    break
                except p2pdi.PeerTimeout:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.02)
            with pytest.raises(p2pdi.PeerTimeout):
                await a.wait(timeout=0)

    asyncio.run(main())


def test_a_peer_whose_start_fails_is_closed() -> None:
    async def main() -> None:
        a = aio.Peer("a", lan=False)
        a.on("two words", lambda message: None)
        with pytest.raises(p2pdi.Invalid, match="kind"):
            await a.start()
        assert a.closed
        with pytest.raises(p2pdi.Closed):
            await a.start()

    asyncio.run(main())


def test_a_registry_that_could_not_start_can_be_started_later() -> None:
    async def main() -> None:
        with p2pdi.Registry() as first:
            second = aio.Registry(listen=first.address)
            for _ in range(2):
                with pytest.raises(p2pdi.Error, match="cannot listen"):
                    await second.start()
        async with second:
            assert second.url == f"http://{first.address}"

    asyncio.run(main())


def test_messages_that_are_closed_wake_who_waits() -> None:
    with p2pdi.Peer("a", lan=False) as peer:
        messages = peer.messages()
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                messages.next()
            except p2pdi.Closed as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        messages.close()
        thread.join(PATIENCE)
        assert [str(error) for error in raised] == ["these messages were closed"]

    async def main() -> None:
        async with aio.Peer("a", lan=False) as a:
            async with a.messages("NEWS") as news:
                reading = asyncio.ensure_future(news.next())
                await asyncio.sleep(0.1)
            with pytest.raises(p2pdi.Closed):
                await asyncio.wait_for(reading, PATIENCE)
            assert [message async for message in news] == []

    asyncio.run(main())


def test_a_registry_that_is_away_at_the_start_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdi._peer.REGISTER_TIMEOUT", 0.5)
    monkeypatch.setattr("p2pdi.aio._peer.REGISTER_TIMEOUT", 0.5)
    with p2pdi.Registry() as registry:
        address = registry.address
        with p2pdi.Peer("there", registry=registry.url, lan=False) as there:
            assert there.registered
        assert not there.registered
    assert caplog.text == ""

    async def main() -> None:
        async with aio.Peer("b", registry=f"http://{address}", lan=False) as b:
            assert not b.registered

    with p2pdi.Peer("a", registry=f"http://{address}", lan=False) as a:
        assert not a.registered
        assert [(record.name, record.levelno) for record in caplog.records] == [("p2pdi", logging.WARNING)]
        assert "a is not registered yet, and goes on trying" in caplog.text and address in caplog.text
        with p2pdi.Registry(listen=address):
            until(lambda: a.registered, "the registration")
    asyncio.run(main())
    assert len(caplog.records) == 2 and "b is not registered yet" in caplog.text
    with p2pdi.Peer("alone", lan=False) as alone:
        assert not alone.registered


def test_a_client_that_is_closed_says_so() -> None:
    with p2pdi.Registry() as registry:
        client = p2pdi.RegistryClient(registry.url)
        assert client.pquery() == []
        changes = client.watch()
        watching = threading.Thread(target=lambda: list(changes))
        watching.start()
        time.sleep(0.2)
        client.close()
        client.close()
        watching.join(PATIENCE)
        assert not watching.is_alive()
        for call in (client.pquery, client.keep_alive, client.watch, client.leave, lambda: client.register("a", "127.0.0.1:1")):
            with pytest.raises(p2pdi.Closed, match="the client was closed"):
                call()

        async def main() -> None:
            async with aio.RegistryClient(registry.url) as awaitable:
                assert await awaitable.pquery() == []
            with pytest.raises(p2pdi.Closed):
                await awaitable.pquery()
            with pytest.raises(p2pdi.Closed):
                awaitable.watch()

        asyncio.run(main())
