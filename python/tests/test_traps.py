"""What others fell into."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE, until
from p2pdi import aio

# Ctrl-C may take so long. Of several, since others use this machine, too: what waits for the wrong thing waits for it each time.
INTERRUPT_MAX = 0.2
INTERRUPTS = 3

CALLS = {
    "wait": "peer.wait()",
    "get_peer_count": "peer.get_peer_count(wait=60)",
    "send_message_to_peers": "peer.send_message_to_peers('x', wait=9)",
    "whisper": "peer.whisper('hanging', 'x', kind='HANG', timeout=60)",
    "messages": "next(peer.messages())",
    "fetch": "peer.fetch('absent', out, wait_for_holders=60).result()",
    "iterate": "list(peer.fetch('absent', out, wait_for_holders=60))",
    "join": "peer.join(silent.getsockname(), timeout=60)",
    "share": "peer.share(out); peer._native.shared(); peer.wait()",
    "watch": "list(p2pdi.RegistryClient(registry.url).watch())",
    "read": "peer.messages().next(timeout=60)",
    "find_document": "peer.documents(from_='127.0.0.1:%d' % silent.getsockname()[1], timeout=60)",
    "asyncio": "asyncio.run(waits())",
    "broadcast": "peer.broadcast('X', 'x', wait=9)",
    "peers_from": "peer.peers_from(silent.getsockname(), timeout=60)",
    "bootstrap": "peer.bootstrap([silent.getsockname()], timeout=60)",
    "search": "peer.search('x', from_=SILENT, timeout=60)",
    "find one": "peer.find_document('absent', from_=SILENT, timeout=60)",
    "open": "peer.open('absent', from_=SILENT, timeout=60)",
    "read a file": "file().read_at(0, 10_000_000)",
    "read all": "file().read()",
    "readinto": "file().readinto(bytearray(10_000_000))",
    "fetch.wait": "peer.fetch('absent', out, wait_for_holders=60).wait()",
    "display": "peer.fetch('absent', out, wait_for_holders=60).display()",
    "pquery": "p2pdi.RegistryClient('http://' + SILENT).pquery()",
    "register": "p2pdi.RegistryClient('http://' + SILENT).register('x', '127.0.0.1:1')",
    "aio.pquery": "asyncio.run(asks())",
}

INTERRUPTED = """
import asyncio, os, signal, socket, tempfile, threading, time
# A program that a script starts in the background ignores the signal; here it is as in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
import p2pdi
from p2pdi import aio
silent = socket.create_server(("127.0.0.1", 0))
SILENT = "127.0.0.1:%d" % silent.getsockname()[1]
out = tempfile.mkdtemp()
registry = p2pdi.Registry()
# Somebody who never acknowledges.
p2pdi.RegistryClient(registry.url).register("ghost", "127.0.0.1:9")
peer = p2pdi.Peer("a", registry=registry.url, lan=False)
hanging = p2pdi.Peer("hanging", registry=registry.url, lan=False)
hanging.on("HANG", lambda message: time.sleep(3600))
hanging.join(peer.endpoint)
assert peer.get_peer_count(wait=30, expect=2) == 2
async def waits():
    async with aio.Peer("b", lan=False) as b:
        await b.wait()
async def asks():
    async with aio.RegistryClient("http://" + SILENT) as client:
        await client.pquery()
def slow():
    folder = tempfile.mkdtemp()
    with open(folder + "/large.bin", "wb") as large:
        large.write(bytes(10_000_000))
    slow.peer = p2pdi.Peer("slow", lan=False, share=folder, upload_limit=1_000)
    slow.peer.share(folder)
    return peer.open("large.bin", from_=slow.peer.endpoint)
opened = [slow()] if "file()" in '''CALL''' else []
def file():
    return opened[0]
for _ in range(NUMBER):
    sent = []
    def interrupt():
        time.sleep(0.5)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        CALL
        print("returned")
    except KeyboardInterrupt:
        print("took", time.monotonic() - sent[0], flush=True)
    thread.join()
os._exit(0)
"""


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_every_blocking_call(call: str, program: Any) -> None:
    text = INTERRUPTED.replace("CALL", CALLS[call]).replace("NUMBER", str(INTERRUPTS))
    code, out, error = program(text)
    assert code == 0, error
    lines = out.splitlines()
    assert len(lines) == INTERRUPTS and all(line.startswith("took ") for line in lines), out
    assert min(float(line.split()[1]) for line in lines) < INTERRUPT_MAX, out


def test_wait_for_that_times_out_ends_the_call_and_loses_no_message() -> None:
    async def main() -> None:
        async with aio.Peer("a", lan=False) as a, aio.Peer("b", lan=False) as b:
            await b.join(a.endpoint)
            for _ in range(20):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(a.wait(), 0.01)
            await b.whisper("a", "kept")
            assert (await a.wait(timeout=PATIENCE)).text == "kept"
            waiting = asyncio.ensure_future(a.wait())
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(p2pdi.PeerTimeout):
                await a.wait(timeout=0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(b.wait(timeout=0.01), PATIENCE)

    asyncio.run(main())


def test_async_handlers_run_on_the_loop_of_the_caller() -> None:
    async def main() -> None:
        loop, seen = asyncio.get_running_loop(), []
        async with aio.Peer("a", lan=False) as a, aio.Peer("b", lan=False) as b:

            @a.on("TEST")
            async def handle(message: p2pdi.Message) -> bytes:
                seen.append(asyncio.get_running_loop() is loop)
                await asyncio.sleep(0)
                return message.body

            @a.on("PLAIN")
            def plain(message: p2pdi.Message) -> str:
                seen.append(threading.current_thread() is not threading.main_thread())
                return "plain"

            await b.join(a.endpoint)
            assert (await b.whisper("a", "x", kind="TEST")).body == b"x"
            assert (await b.whisper("a", "x", kind="PLAIN")).text == "plain"
            with p2pdi.Peer("c", lan=False) as blocking:
                # In a notebook a loop runs already.
                @blocking.on("TEST")
                async def on_this_loop(message: p2pdi.Message) -> str:
                    seen.append(asyncio.get_running_loop() is loop)
                    return "c"

                await b.join(blocking.endpoint)
                assert (await b.whisper("c", "x", kind="TEST")).text == "c"
        assert seen == [True, True, True]

    asyncio.run(main())


def test_a_handler_that_raises_blocks_or_returns_nonsense_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with p2pdi.testing.network(2) as (one, two):
        release = threading.Event()

        @two.on("RAISES")
        def raises(message: p2pdi.Message) -> None:
            raise ValueError("secret")

        two.on("BLOCKS", lambda message: "late" if release.wait(PATIENCE) else "never")
        two.on("NONSENSE", lambda message: 7)  # type: ignore[arg-type, return-value]
        two.on("GOOD", lambda message: message.body)
        for _ in range(2):
            fault = one.whisper(two.name, "x", kind="RAISES")
            assert fault.is_fault and fault.text == "the handler of RAISES failed: ValueError"
        assert "secret" in caplog.text and "secret" not in fault.text
        begun = time.monotonic()
        assert not one.whisper(two.name, "x", kind="BLOCKS").answered
        assert one.whisper(two.name, "x", kind="NONSENSE").is_fault
        assert one.whisper(two.name, "x", kind="GOOD").body == b"x"
        assert time.monotonic() - begun < PATIENCE / 2
        release.set()


def test_ten_thousand_messages_to_a_slow_handler_are_bounded_and_counted() -> None:
    with p2pdi.testing.network(2) as (one, two):
        release, handled = threading.Event(), []

        @two.on("SLOW")
        def slow(message: p2pdi.Message) -> None:
            release.wait(PATIENCE)
            handled.append(message.text)

        for number in range(10_000):
            one.broadcast("SLOW", str(number))

        def has_all() -> bool:
            before = two.received
            time.sleep(0.5)
            return before == two.received > 3_000

        until(has_all, "what arrives")
        assert not handled
        release.set()
        # Those that waited here and in the inbox; all others were dropped, and counted.
        until(lambda: len(handled) + two.dropped >= two.received, "all to be handled or counted")
        assert 1_000 <= len(handled) <= 1_200 and two.dropped >= two.received - 1_200
        assert handled == sorted(handled, key=int)


def test_two_peers_in_two_threads() -> None:
    results: list[bytes] = []

    def work(name: str) -> None:
        with p2pdi.Peer(name, lan=False) as peer:
            for number in range(50):
                results.append(peer.whisper(name, f"{number}", kind="TEST").body)

    threads = [threading.Thread(target=work, args=(f"thread-{number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(results) == 100


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    peer = p2pdi.Peer("a", lan=False)
    messages = peer.messages()
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            peer.wait()
        except p2pdi.Closed as error:
            waiting.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    peer.close()
    peer.close()
    thread.join(PATIENCE)
    assert waiting and peer.closed
    assert list(messages) == []
    for call in (
        lambda: peer.whisper("b", "x"),
        lambda: peer.broadcast("x", "x"),
        lambda: peer.join("127.0.0.1:1"),
        lambda: peer.fetch("x", tmp_path),
        lambda: peer.documents(),
        lambda: peer.on("X", lambda message: None),
        lambda: peer.share(tmp_path),
        lambda: peer.wait(timeout=1),
    ):
        with pytest.raises(p2pdi.Closed, match="stopped"):
            call()
    assert peer.name == "a" and "closed" in repr(peer)
    with pytest.raises(p2pdi.Closed, match="not started"):
        aio.Peer("a").peers()


def test_a_peer_that_nobody_holds_any_more_stops() -> None:
    peer = p2pdi.Peer("a", lan=False)
    other = p2pdi.Peer("b", lan=False)
    peer.on("TEST", lambda message: message.body)
    endpoint = peer.endpoint
    other.join(endpoint)
    del peer
    gc.collect()

    def refuses() -> bool:
        try:
            other.peers_from(endpoint)
        except p2pdi.Error:
            return True
        return False

    until(refuses, "its end")
    other.close()


EXITS = {
    "a peer that was not closed": "peer.on('X', lambda message: 1)",
    "a thread that waits": "threading.Thread(target=lambda: swallow(peer.wait)).start(); time.sleep(0.3)",
    "a daemon that waits": "threading.Thread(target=lambda: swallow(peer.wait), daemon=True).start(); time.sleep(0.3)",
    "a handler at work": "peer.on('X', lambda message: time.sleep(3600)); swallow(lambda: peer.whisper('a', '', kind='X'))",
    "a fetch under way": "fetch = peer.fetch('absent', tempfile.mkdtemp(), wait_for_holders=3600)",
    "an exit in a function": "sys.exit(0)",
    "a loop with a task": "asyncio.run(abandon())",
}

EXIT = """
import asyncio, sys, tempfile, threading, time
import p2pdi
from p2pdi import aio
def swallow(call):
    try:
        call()
    except p2pdi.Error:
        pass
async def abandon():
    other = await aio.Peer("b", lan=False).start()
    asyncio.ensure_future(other.wait())
    await asyncio.sleep(0.1)
registry = p2pdi.Registry()
peer = p2pdi.Peer("a", lan=False)
CASE
"""


@pytest.mark.parametrize("case", EXITS)
def test_the_interpreter_ends(case: str, program: Any) -> None:
    begun = time.monotonic()
    code, _, error = program(EXIT.replace("CASE", EXITS[case]))
    assert (code, error) == (0, "")
    assert time.monotonic() - begun < PATIENCE / 2


FORKED = """
import os, sys
import p2pdi
peer = p2pdi.Peer("parent", lan=False)
messages = peer.messages()
child = os.fork()
if child == 0:
    status = 1
    try:
        peer.whisper("parent", "x")
    except p2pdi.Closed as error:
        assert "forked" in str(error) and "spawn" in str(error), error
        with p2pdi.Peer("child", lan=False) as own:
            own.whisper("child", "x")
            status = 0
    os._exit(status) if len(sys.argv) > 1 else sys.exit(status)
_, status = os.waitpid(child, 0)
assert status == 0, status
peer.whisper("parent", "x")
peer.close()
print("parent and child")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("arguments", [(), ("at once",)])
def test_a_forked_process_says_so_and_can_have_peers_of_its_own(arguments: tuple[str, ...], program: Any) -> None:
    code, out, error = program(FORKED, *arguments)
    assert code == 0, error
    assert out == "parent and child\n"


SPAWNED = """
import multiprocessing, p2pdi
def work(endpoint, answers):
    with p2pdi.Peer("child", lan=False) as child:
        child.join(endpoint)
        answers.put(child.whisper("parent", "hello", kind="TEST").text)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with p2pdi.Peer("parent", lan=False) as parent:
        parent.on("TEST", lambda message: message.text.upper())
        child = context.Process(target=work, args=(parent.endpoint, answers))
        child.start()
        print(answers.get(timeout=60))
        child.join()
    assert child.exitcode == 0
"""


def test_a_spawned_process_is_a_peer(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "spawned.py").write_text(SPAWNED)
    command = [sys.executable, str(tmp_path / "spawned.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "HELLO\n"), done.stderr


def test_no_signal_handler_and_no_limit_is_changed(program: Any) -> None:
    text = """
import resource
def state():
    # What the system says: Python does not know of handlers that others set.
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    # 32 and 33 are those of the C library itself, for the first thread.
    signals = [int(lines[name], 16) & ~(0b11 << 31) for name in ("SigCgt", "SigIgn", "SigBlk")]
    return resource.getrlimit(resource.RLIMIT_NOFILE), signals
before = state()
import p2pdi
with p2pdi.testing.network(2):
    assert before == state()
assert before == state()
print("same")
"""
    assert program(text)[:2] == (0, "same\n")


def test_threads_end_with_the_peer() -> None:
    before = threading.active_count()
    for number in range(3):
        with p2pdi.Peer(f"peer-{number}", lan=False) as peer:
            peer.on("X", lambda message: message.body)
            peer.whisper(peer.name, "x", kind="X")
    assert threading.active_count() == before


def test_importing_is_quick_and_takes_no_asyncio(program: Any) -> None:
    text = "import sys, p2pdi; print([name for name in ('asyncio', 'logging', 'pathlib', 'typing') if name in sys.modules])"
    code, out, error = program(text)
    loaded = program("import sys; print([name for name in ('asyncio', 'logging', 'pathlib', 'typing') if name in sys.modules])")
    assert code == 0 and out == loaded[1], error


def test_a_signal_handler_of_the_program_runs_while_it_waits() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        with p2pdi.Peer("a", lan=False) as peer:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(p2pdi.PeerTimeout):
                peer.wait(timeout=0.6)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]
