"""``python -m p2pdi``: the version, and a demonstration that shows whether all works on this machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import p2pdi


def demo() -> bool:
    """A registry and three peers in this process. Returns whether all of it worked."""
    worked = True

    def check(what: str, passed: bool) -> None:
        nonlocal worked
        worked = worked and passed
        print(f"{'PASS' if passed else 'FAIL'}  {what}")

    content = bytes(range(256)) * 8192
    with p2pdi.testing.network(3, documents={"numbers.bin": content, "hello.txt": b"hello\n"}) as network:
        one, two, three = network
        check(f"{one.name}, {two.name} and {three.name} know each other", one.get_peer_count(wait=5, expect=2) == 2)
        two.on("TEST", lambda message: message.body.upper())
        reply = three.whisper(two.name, "ping", kind="TEST")
        check(f"{three.name} whispers to {two.name}, which answers in {reply.round_trip * 1000:.1f} ms", reply.body == b"PING")
        check("a message to all arrives at all", three.send_message_to_peers("hello_there", wait=10) == 2)
        with tempfile.TemporaryDirectory() as out:
            (path,) = three.fetch("numbers.bin", out).result()
            check(f"{three.name} fetches {len(content):,} verified bytes", Path(path).read_bytes() == content)
        with two.open("numbers.bin") as file:
            file.seek(1_000_000)
            check(f"{two.name} reads 10 bytes in the middle of it", file.read(10) == content[1_000_000:1_000_010])
    return worked


def main() -> int:
    """Runs the demonstration, unless only the version is asked for."""
    print(f"p2pdi {p2pdi.__version__}, Python {sys.version.split()[0]}")
    if sys.argv[1:] in (["--version"], ["-V"]):
        return 0
    if sys.argv[1:] not in ([], ["demo"]):
        print("usage: python -m p2pdi [demo | --version]", file=sys.stderr)
        return 2
    return 0 if demo() else 1


if __name__ == "__main__":
    sys.exit(main())
