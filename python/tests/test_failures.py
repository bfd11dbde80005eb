"""What goes wrong elsewhere, as the caller sees it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE
from p2pdi import aio

CONTENT = bytes(range(256)) * 8_000


def test_peers_that_do_not_answer_are_no_route_or_late() -> None:
    with p2pdi.Peer("a", lan=False) as a, socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(p2pdi.NoRoute, match="does not answer"):
            a.peers_from(("127.0.0.1", 1), timeout=PATIENCE)
        # It accepts, and says nothing.
        with pytest.raises(p2pdi.Error) as caught:
            a.peers_from(silent.getsockname(), timeout=PATIENCE)
        assert isinstance(caught.value, (p2pdi.PeerTimeout, p2pdi.NoRoute)), repr(caught.value)


def test_a_wait_that_is_too_long_is_not_valid() -> None:
    with p2pdi.Peer("a", lan=False) as a:
        for send in (lambda: a.broadcast("NEWS", "x", wait=61), lambda: a.send_message_to_peers("x", wait=61)):
            with pytest.raises(p2pdi.Invalid, match="at most 60 s"):
                send()


def test_a_listing_tells_of_peers_that_do_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    with p2pdi.testing.network(2, documents={"a.txt": b"x"}) as network:
        one, two = network
        # Somebody who is listed, and not there.
        ghost = p2pdi.RegistryClient(network.registry.url)
        ghost.register("ghost", "127.0.0.1:9")
        assert two.get_peer_count(wait=PATIENCE, expect=2) == 2
        for ask in (lambda from_: two.documents(from_=from_), lambda from_: two.search("a", from_)):
            with pytest.raises(p2pdi.NoRoute, match="ghost does not say what it shares: "):
                ask(["peer-1", "ghost"])
            assert caplog.text == ""
            assert [document.name for document in ask([])] == ["a.txt"]
            assert "ghost does not say what it shares, and is left out" in caplog.text
            caplog.clear()
        with pytest.raises(p2pdi.NoRoute, match="127.0.0.1:1 does not say"):
            two.documents(from_="127.0.0.1:1")

        async def main() -> None:
            async with aio.Peer("c", registry=network.registry.url, lan=False) as c:
                with pytest.raises(p2pdi.NoRoute, match="ghost does not say"):
                    await c.documents(from_="ghost")
                with pytest.raises(p2pdi.NoRoute, match="ghost does not say"):
                    await c.search("a", from_="ghost")

        asyncio.run(main())
        ghost.close()


def test_a_reply_that_cannot_be_sent_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with aio.Peer("a", lan=False) as a:

            @a.on("ASYNC")
            async def handle(message: p2pdi.Message) -> tuple[str, str]:
                return "two words", "x"

            fault = await a.whisper("a", "x", kind="ASYNC")
            assert fault.is_fault and fault.text == "the handler of ASYNC failed: Invalid"

    with p2pdi.Peer("a", lan=False) as a:
        a.on("KIND", lambda message: ("two words", "x"))
        a.on("LARGE", lambda message: bytes(256 * 1024 + 1))
        for kind in ("KIND", "LARGE"):
            fault = a.whisper("a", "x", kind=kind, timeout=PATIENCE)
            assert fault.is_fault and fault.text == f"the handler of {kind} failed: Invalid"
            assert f"the handler of {kind} failed" in caplog.text
    asyncio.run(main())


def test_a_handler_can_take_the_place_of_one_of_the_other_sort() -> None:
    async def main() -> None:
        import threading

        loop_thread = threading.current_thread()
        async with aio.Peer("a", lan=False) as a:

            async def on_loop(message: p2pdi.Message) -> str:
                return f"on the loop: {threading.current_thread() is loop_thread}"

            def elsewhere(message: p2pdi.Message) -> str:
                return f"on the loop: {threading.current_thread() is loop_thread}"

            for kind, handlers in (("X", (on_loop, elsewhere, on_loop)), ("Y", (elsewhere, on_loop, elsewhere))):
                for handler in handlers:
                    a.on(kind, handler)  # type: ignore[arg-type]
                    said = (await a.whisper("a", "x", kind=kind)).text
                    assert said == f"on the loop: {handler is on_loop}"

    asyncio.run(main())


def test_a_reply_of_a_forked_process_goes_nowhere(program: Any) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    text = """
import os, warnings, p2pdi
warnings.simplefilter("ignore", DeprecationWarning)
peer = p2pdi.Peer("a", lan=False)
def handle(message):
    child = os.fork()
    if child == 0:
        try:
            # What the thread of the handler does next, in the child.
            import sys
            replier = sys._getframe(1).f_locals["replier"]
            replier.send("X", b"from the child")
        except p2pdi.Closed:
            os._exit(3)
        os._exit(4)
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
peer.on("X", handle)
print(peer.whisper("a", "x", kind="X").text)
peer.close()
"""
    assert program(text)[:2] == (0, "3\n")


ATTEMPTS = 20


@pytest.mark.parametrize("how", ["fetch", "read"])
def test_a_holder_that_sends_wrong_bytes_is_named(how: str, tmp_path: Path) -> None:
    names = [f"{number}.bin" for number in range(ATTEMPTS)]
    with p2pdi.testing.network(2, documents={name: f"{name} ".encode() + CONTENT for name in names}) as network:
        one, two = network
        for name in names:
            document = two.find_document(name)
            opened = two.open(document)
            path = Path(network.folder(one)) / name
            before = path.stat()
            # Behind the back of its index: as large and as old as before.
            with path.open("r+b") as file:
                file.write(b"wrong")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            try:
                if how == "read":
                    opened.read()
                else:
                    two.fetch(document, tmp_path).result()
            except p2pdi.NotFound:
                # It looks at what changes in its folder, and was faster: it does not offer that document any more.
                continue
            except p2pdi.Corrupt as error:
                assert (error.peer, error.piece) == (one.name, 0)
                assert one.name in str(error)
                assert not (tmp_path / name).exists()
                return
            raise AssertionError("the bytes were wrong, and taken")
    raise AssertionError("it was faster each time")
