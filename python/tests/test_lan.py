"""Five receivers and a sender on a LAN: each a machine of its own, which is a network namespace on one bridge. Nobody is told of another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from conftest import PATIENCE

RECEIVERS = 5

RECEIVE = """
import sys, p2pdi
with p2pdi.Peer("receiver-" + sys.argv[1]) as peer:
    print("ready", flush=True)
    message = peer.wait(timeout=60)
    print("PASS" if message.text == "hello_there" and message.sender == "sender" else "FAIL", flush=True)
    sys.stdin.read()
"""

SEND = """
import sys, p2pdi
peer = p2pdi.Peer("sender")
count = peer.get_peer_count(wait=50, expect=5)
answers = peer.send_message_to_peers("hello_there", wait=30)
print("PASS" if (count, answers) == (5, 5) else f"FAIL: {count} peers, {answers}")
peer.close()
"""


@pytest.fixture
def machines() -> Iterator[list[list[str]]]:
    """What a command begins with to run on each machine."""
    ip = shutil.which("ip")
    if ip is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs ip of iproute2, and root")
    lan = f"p2pdi-py-{uuid.uuid4().hex[:8]}"
    names = [f"{lan}-{number}" for number in range(RECEIVERS + 2)]
    switch = names[0]

    def run(*arguments: str) -> None:
        subprocess.run([ip, *arguments], check=True, capture_output=True)

    try:
        try:
            for name in names:
                run("netns", "add", name)
                run("-n", name, "link", "set", "lo", "up")
            run("-n", switch, "link", "add", "bridge", "type", "bridge")
            run("-n", switch, "link", "set", "bridge", "up")
            for number, name in enumerate(names[1:], 1):
                run("-n", switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
                run("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
                run("-n", name, "address", "add", f"10.78.0.{number}/24", "dev", "eth0")
                run("-n", name, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not available: {error.stderr.decode().strip()}")
        yield [[ip, "netns", "exec", name] for name in names[1:]]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "delete", name], check=False, capture_output=True)


def test_five_receivers_and_a_sender_find_each_other_on_a_lan(machines: list[list[str]]) -> None:
    receivers = [
        subprocess.Popen(
            [*machine, sys.executable, "-c", RECEIVE, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number, machine in enumerate(machines[:RECEIVERS], 1)
    ]
    try:
        for receiver in receivers:
            assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
        sender = subprocess.run(
            [*machines[RECEIVERS], sys.executable, "-c", SEND], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        assert (sender.stdout, sender.stderr) == ("PASS\n", "")
        for receiver in receivers:
            assert receiver.stdout is not None and receiver.stdout.readline() == "PASS\n"
            _, _ = receiver.communicate("", timeout=PATIENCE)
            assert receiver.returncode == 0
    finally:
        for receiver in receivers:
            receiver.kill()
            receiver.wait()
