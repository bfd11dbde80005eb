"""What the projects do that this system grew from, in Python."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import p2pdi
from conftest import PATIENCE, until

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_original_test_program_with_five_receivers_and_a_sender() -> None:
    with p2pdi.Registry() as registry:
        command = [sys.executable, str(EXAMPLES / "receivers_and_sender.py"), "--registry", registry.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS"


def test_a_sender_learns_who_did_not_get_its_message() -> None:
    with p2pdi.testing.network(3) as (one, two, three):
        three.close()
        answers = one.send_message_to_peers("hello_there", wait=2)
        assert answers == answers.answered and int(answers) == answers.answered
        assert answers.sent >= answers.answered >= 1
        match answers:
            case p2pdi.Answers(sent, answered, missing):
                assert sent - answered == len(missing)


def test_handlers_of_the_chat_test_ping_pong_and_broadcast() -> None:
    with p2pdi.testing.network(2) as (one, two):
        seen: list[tuple[str, str, str]] = []
        arrived = threading.Event()

        @two.on("TEST")
        def test(message: p2pdi.Message) -> bytes:
            return message.body

        @two.on("PONG")
        def pong(message: p2pdi.Message) -> None:
            seen.append((message.sender, message.kind, message.text))

        @two.on("BROADCAST")
        async def broadcast(message: p2pdi.Message) -> None:
            seen.append((message.sender, message.kind, message.text))
            arrived.set()

        assert one.whisper(two.name, "same", kind="TEST").body == b"same"
        # Every peer answers PING itself.
        pinged = one.whisper(two.name, "", kind="PING")
        assert (pinged.kind, pinged.text) == ("PONG", two.endpoint)
        assert not one.whisper(two.name, "x", kind="PONG").answered
        one.broadcast("BROADCAST", "to all")
        assert arrived.wait(PATIENCE)
        assert seen == [(one.name, "PONG", "x"), (one.name, "BROADCAST", "to all")]
        assert one.whisper(two.name, "?", kind="NOBODY").unclaimed


def test_bootstrap_from_a_list_of_addresses() -> None:
    with p2pdi.Peer("a", lan=False) as a, p2pdi.Peer("b", lan=False) as b:
        with p2pdi.Peer("c", lan=False, bootnodes=[a.address]) as c:
            assert c.get_peer_count(wait=PATIENCE, expect=1) >= 1
            assert {peer.name for peer in c.bootstrap([b.address, ("127.0.0.1", 1)])} == {"b"}
            until(lambda: {peer.name for peer in c.peers()} == {"a", "b"}, "both")
            assert {peer.name for peer in a.peers_from(c.address)} == {"b"}
            found = a.find_peer("B")
            assert found is not None and found.endpoint == b.endpoint
            assert a.find_peer("nobody") is None


def test_a_registry_for_those_without_a_peer() -> None:
    with p2pdi.Registry(ttl=30) as registry:
        client = p2pdi.RegistryClient(registry.url)
        lease = client.register("fff-a", "127.0.0.1:7901", {"zone": "x"})
        assert (lease.name, lease.registration_count) == ("fff-a", 1) and lease.ttl >= 1
        assert client.keep_alive().name == "fff-a"
        with p2pdi.RegistryClient(registry.url) as other:
            (record,) = other.pquery(labels={"zone": "x"})
            assert (record.name, record.endpoint, record.active) == ("fff-a", "127.0.0.1:7901", True)
            try:
                other.register("fff-a", "127.0.0.1:7902")
            except p2pdi.NameTaken as error:
                assert "fff-a" in str(error)
            else:
                raise AssertionError("two have one name")
            changes = other.watch(timeout=PATIENCE)
            # Times are what the registry says of how long ago, by this clock: they differ by a millisecond.
            joined = next(changes)
            assert isinstance(joined, p2pdi.Joined)
            assert (joined.name, joined.peer.endpoint, joined.peer.labels) == ("fff-a", record.endpoint, record.labels)
            client.leave()
            assert next(changes) == p2pdi.Left("fff-a")
        try:
            client.keep_alive()
        except p2pdi.Closed:
            pass
        else:
            raise AssertionError("there is no lease")
        with p2pdi.Peer("taken", registry=registry.url, lan=False):
            try:
                p2pdi.Peer("taken", registry=registry.url, lan=False)
            except p2pdi.NameTaken:
                pass
            else:
                raise AssertionError("two peers have one name")


def test_an_observer_asks_again_after_its_lease_ran_out() -> None:
    with p2pdi.Registry(ttl=1) as registry, p2pdi.Peer("alice", registry=registry.url, lan=False):
        with p2pdi.RegistryClient(registry.url) as client:
            for _ in range(2):
                assert [peer.name for peer in client.pquery()] == ["alice"]
                threading.Event().wait(2.5)
