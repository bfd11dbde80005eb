"""What programs do wrong, and what they may do although it looks wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE, until
from p2pdi import aio

CONTENT = bytes(range(256)) * 8_000


def test_values_that_are_not_valid_are_named(tmp_path: Path) -> None:
    for name in ("", "two words", "a" * 300, "a\0b", "-"):
        with pytest.raises(p2pdi.Invalid, match="name"):
            p2pdi.Peer(name, lan=False)
    with p2pdi.Peer("alice", lan=False) as alice:
        for kind in ("two words", "a" * 65, "é", "PING"):
            with pytest.raises(p2pdi.Invalid, match="kind"):
                alice.on(kind, lambda message: None)
        with pytest.raises(p2pdi.Invalid, match="body|bytes"):
            alice.whisper("alice", bytes(256 * 1024 + 1))
        with pytest.raises(p2pdi.Invalid, match="body|bytes"):
            alice.broadcast("X", bytes(100_000_000))
        with pytest.raises(p2pdi.Invalid, match="NaN"):
            alice.wait(timeout=float("nan"))
        with pytest.raises(p2pdi.PeerTimeout):
            alice.wait(timeout=-1)
        with pytest.raises(p2pdi.Invalid, match="limit is 0"):
            alice.fetch("x", tmp_path, limit=0)
        for wanted in ("", "../x", "a\0b"):
            with pytest.raises(p2pdi.Invalid):
                alice.fetch(wanted, tmp_path)
        for address in ("", "nowhere", "host:port", ("127.0.0.1", 70_000)):
            with pytest.raises(p2pdi.Error):
                alice.join(address, timeout=5)
    with pytest.raises(p2pdi.Invalid, match="upload_limit is -1"):
        p2pdi.Peer("alice", lan=False, upload_limit=-1)
    with pytest.raises(p2pdi.Invalid):
        p2pdi.Registry(ttl=-1)
    with pytest.raises(p2pdi.Invalid):
        p2pdi.RegistryClient("ftp://nowhere")


def test_values_of_another_type_are_type_errors(tmp_path: Path) -> None:
    wrong: Any = None
    with p2pdi.Peer("alice", lan=False) as alice:
        calls: list[Any] = [
            lambda: alice.whisper(wrong, "x"),
            lambda: alice.whisper("alice", wrong),
            lambda: alice.whisper("alice", 5),  # type: ignore[arg-type]
            lambda: alice.whisper("alice", "x", kind=wrong),
            lambda: alice.whisper("alice", "x", timeout="soon"),  # type: ignore[arg-type]
            lambda: alice.wait(timeout="1"),  # type: ignore[arg-type]
            lambda: alice.join(wrong),
            lambda: alice.join(("127.0.0.1", "80")),  # type: ignore[arg-type]
            lambda: alice.fetch(wrong, tmp_path),
            lambda: alice.fetch([5], tmp_path),  # type: ignore[list-item]
            lambda: alice.fetch("x", wrong),
            lambda: alice.documents(from_=("127.0.0.1", 80)),  # type: ignore[arg-type]
            lambda: alice.on(lambda message: None),  # type: ignore[call-overload]
            lambda: alice.on("X", 5),  # type: ignore[call-overload]
            lambda: alice.share(wrong),
        ]
        for call in calls:
            with pytest.raises(TypeError):
                call()
        assert alice.whisper("alice", bytearray(b"x"), kind="NOBODY").unclaimed


def test_one_address_and_what_listings_have_are_taken_for_names(tmp_path: Path) -> None:
    with p2pdi.testing.network(2, documents={"a.txt": b"hello"}) as (one, two):
        for bootnodes in (one.endpoint, one.address, [one.address], two.peers()[0]):
            with p2pdi.Peer("third", lan=False, bootnodes=bootnodes) as third:  # type: ignore[arg-type]
                until(lambda: any(peer.linked for peer in third.peers()), "a link")
        (document,) = two.documents()
        # The others are gone, and perhaps not forgotten yet.
        (holder,) = [peer for peer in two.peers() if peer.name == one.name]
        assert two.fetch(document, tmp_path, from_=holder).result()[0].read_bytes() == b"hello"
        assert two.open(document).read() == b"hello" and two.find_document(document) == document
        assert two.join(holder).name == one.name


def test_no_handler_of_what_is_not_a_function_stays() -> None:
    with p2pdi.Peer("alice", lan=False) as alice:
        with pytest.raises(TypeError):
            alice.on("X")(5)  # type: ignore[type-var]
        assert alice.whisper("alice", "x", kind="X").unclaimed


def test_a_handler_that_ends_its_thread_or_is_cancelled_gets_the_next_message() -> None:
    with p2pdi.Peer("alice", lan=False) as alice:
        alice.on("EXITS", lambda message: sys.exit(message.text))
        for _ in range(2):
            reply = alice.whisper("alice", "x", kind="EXITS")
            assert reply.is_fault and reply.text.endswith("SystemExit")

    async def main() -> None:
        async with aio.Peer("alice", lan=False) as alice:

            @alice.on("CANCELLED")
            async def cancelled(message: p2pdi.Message) -> None:
                raise asyncio.CancelledError

            for _ in range(2):
                assert (await alice.whisper("alice", "x", kind="CANCELLED")).is_fault

    if sys.version_info >= (3, 11):
        asyncio.run(main())


def test_a_handler_may_use_its_own_peer_and_close_it() -> None:
    with p2pdi.testing.network(2) as (one, two):
        two.on("ASK", lambda message: two.whisper(one.name, message.body, kind="ECHO").body)
        one.on("ECHO", lambda message: message.body)
        assert one.whisper(two.name, "there and back", kind="ASK").text == "there and back"
        two.on("CLOSE", lambda message: two.close())
        begun = time.monotonic()
        try:
            one.whisper(two.name, "x", kind="CLOSE")
        except p2pdi.NoRoute:
            pass  # It was gone before its answer was.
        until(lambda: two.closed, "its end")
        assert time.monotonic() - begun < PATIENCE / 2


def test_many_threads_use_one_peer_until_it_is_closed(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    with p2pdi.testing.network(2, documents={"a.bin": CONTENT}) as (one, two):
        two.on("ECHO", lambda message: message.body)
        file = two.open("a.bin")
        stop, closing = threading.Event(), threading.Event()

        def work(number: int) -> None:
            try:
                while not stop.is_set():
                    reply = one.whisper(two.name, f"{number}", kind="ECHO", timeout=PATIENCE)
                    # On a busy machine it may come later than the second that senders wait for it.
                    assert reply.text == f"{number}" or not reply.answered
                    one.broadcast("NEWS", bytes(number))
                    assert file.read_at(1_000 * number, 3) == CONTENT[1_000 * number : 1_000 * number + 3]
                    two.peers(), two.received, one.documents("*.bin")
                    out = tmp_path / f"{number}"
                    assert two.fetch("a.bin", out, replace=True).result()[0].read_bytes() == CONTENT
            except p2pdi.Closed:
                return
            except BaseException as error:
                # Once it closes, nobody has what is read and fetched.
                if not (closing.is_set() and isinstance(error, p2pdi.Error)):
                    failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        closing.set()
        one.close()
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert failures == []


def test_two_threads_wait_for_messages_and_each_is_read_once() -> None:
    with p2pdi.testing.network(2) as (one, two):
        read: list[str] = []

        def work() -> None:
            try:
                while True:
                    read.append(two.wait(timeout=PATIENCE).text)
            except p2pdi.Closed:
                pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(100):
            one.whisper(two.name, f"{number:02}")
        until(lambda: len(read) == 100, "all of them")
        assert sorted(read) == [f"{number:02}" for number in range(100)]
        two.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_what_is_collected_while_it_works_ends(tmp_path: Path) -> None:
    with p2pdi.testing.network(2, documents={"a.bin": CONTENT}) as (one, two):
        fetch = two.fetch("a.bin", tmp_path, limit=100_000)
        next(iter(fetch))
        del fetch
        gc.collect()
        messages = two.messages("NEWS")
        del messages
        gc.collect()
        file = two.open("a.bin")
        assert file.read(10) == CONTENT[:10]
        two.close()
        with pytest.raises(p2pdi.Closed):
            file.read_at(1_000_000, 10)
    assert not (tmp_path / "a.bin").exists()


def test_loops_that_end_leave_no_descriptor() -> None:
    async def main() -> None:
        async with aio.Peer("alice", lan=False) as alice:
            await alice.whisper("alice", "x", kind="NOBODY")

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    asyncio.run(main())
    before = descriptors()
    for _ in range(10):
        asyncio.run(main())
    # Sockets of peers that have ended close soon.
    until(lambda: descriptors() <= before + 3, "descriptors to close")


def test_a_forked_process_leaves_a_with_block_in_peace(program: Any) -> None:
    text = """
import os, sys, warnings, p2pdi
# From 3.12 on Python warns of each fork of a process with threads.
warnings.simplefilter("ignore", DeprecationWarning)
with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
    client.register("x", "127.0.0.1:1")
    with p2pdi.Peer("parent", registry=registry.url, lan=False) as peer, peer.messages() as messages:
        peer.on("X", lambda message: message.body)
        changes = client.watch()
        next(changes)
        child = os.fork()
        if child == 0:
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        assert peer.whisper("parent", "alive", kind="X").text == "alive"
        assert client.keep_alive().name == "x"
print("in peace")
"""
    code, out, error = program(text)
    assert (code, out, error) == (0, "in peace\n", "")


def test_bodies_of_all_sizes_arrive_as_they_are() -> None:
    with p2pdi.testing.network(2) as (one, two):
        two.on("ECHO", lambda message: message.body)
        for size in (0, 1, 65_536, 256 * 1024):
            body = os.urandom(size)
            for given in (body, bytearray(body), memoryview(body)):
                reply = one.whisper(two.name, given, kind="ECHO")
                assert reply.body == body and reply.body is reply.body
        assert one.whisper(two.name, memoryview(b"abcdef")[::2], kind="ECHO").body == b"ace"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_a_free_threaded_python_stays_without_the_gil(program: Any) -> None:
    text = "import sys, p2pdi\nwith p2pdi.Peer('a', lan=False):\n    print(sys._is_gil_enabled())"
    assert program(text)[:2] == (0, "False\n")
