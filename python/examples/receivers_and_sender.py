"""The original test program: five receivers wait for a message, and a sender counts who got it. Prints PASS or FAIL.

Without arguments the peers find each other on the local network; with --registry URL through that.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys

import p2pdi

RECEIVERS = 5


def receive(registry: str | None, network: str) -> None:
    with p2pdi.Peer(registry=registry, lan=registry is None, network=network) as peer:
        message = peer.wait(timeout=60)
        sys.exit(0 if message.text == "hello_there" else 1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--registry")
    arguments.add_argument("--network", default="default")
    given = arguments.parse_args()
    processes = multiprocessing.get_context("spawn")
    receivers = [processes.Process(target=receive, args=(given.registry, given.network)) for _ in range(RECEIVERS)]
    for receiver in receivers:
        receiver.start()

    # The four lines.
    peer = p2pdi.Peer(registry=given.registry, lan=given.registry is None, network=given.network)
    count = peer.get_peer_count(wait=30, expect=RECEIVERS)
    answers = peer.send_message_to_peers("hello_there", wait=30)
    peer.close()

    for receiver in receivers:
        receiver.join()
    print(f"{count} peers, {int(answers)} answers")
    passed = count == RECEIVERS and answers == RECEIVERS and all(receiver.exitcode == 0 for receiver in receivers)
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
