"""Measures the module: import, whispers, messages into a handler, a fetch beside `p2pctl get`.

    python benches/measure.py [--p2pctl target/release/p2pctl] [--mib 1024]

Build the module with `pip install ./python` (a release build) first. Everything runs on this machine over loopback; ratios are of one run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import p2pdi

WHISPERS = 2_000
MESSAGES = 50_000


def measure_import() -> None:
    text = "import time; begun = time.perf_counter(); import p2pdi; print(time.perf_counter() - begun)"
    took = [float(subprocess.check_output([sys.executable, "-c", text])) * 1000 for _ in range(15)]
    print(f"import p2pdi: {statistics.median(took):.1f} ms")


def measure_whispers(one: p2pdi.Peer, two: p2pdi.Peer) -> None:
    two.on("ECHO", lambda message: message.body)
    for kind, what in [("PING", "answered by the peer in Rust"), ("ECHO", "answered by a handler in Python")]:
        walls, inside = [], []
        for _ in range(WHISPERS):
            begun = time.perf_counter()
            reply = one.whisper(two.name, b"x" * 64, kind=kind)
            walls.append(time.perf_counter() - begun)
            inside.append(reply.round_trip)
        wall, rust = statistics.median(walls) * 1e6, statistics.median(inside) * 1e6
        print(f"whisper, {what}: p50 {wall:.0f} us; of that in Rust {rust:.0f} us, so {wall / rust:.2f} x")


def measure_messages(one: p2pdi.Peer, two: p2pdi.Peer) -> None:
    handled = 0
    done = threading.Event()

    def count(message: p2pdi.Message) -> None:
        nonlocal handled
        handled += 1
        if message.body == b"last":
            done.set()

    two.on("MANY", count)
    begun = time.perf_counter()
    for _ in range(MESSAGES - 1):
        one.broadcast("MANY", b"x" * 64)
    sent = time.perf_counter() - begun
    one.whisper(two.name, b"last", kind="MANY")
    done.wait(60)
    took = time.perf_counter() - begun
    dropped = two.dropped
    print(
        f"broadcasts from one thread of Python: {MESSAGES / sent:,.0f}/s sent; {handled / took:,.0f}/s handled, "
        f"{dropped:,} of {MESSAGES:,} dropped before the handler"
    )


def measure_dispatch(peer: p2pdi.Peer) -> None:
    """What the way from the inbox to a function costs, without a network: messages of a peer to itself."""
    count = 5_000
    peer.on("SELF", lambda message: None)
    begun = time.perf_counter()
    for _ in range(count):
        peer.whisper(peer.name, b"x" * 64, kind="SELF")
    print(f"whispers of a peer to itself, with a handler: {count / (time.perf_counter() - begun):,.0f}/s")


def measure_fetch(folder: str, mib: int, p2pctl: str | None) -> None:
    share = os.path.join(folder, "share")
    os.mkdir(share)
    with open(os.path.join(share, "large.bin"), "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    with p2pdi.Registry() as registry, p2pdi.Peer("holder", registry=registry.url, share=share, lan=False) as holder:
        holder.share(share)
        reader = p2pdi.Peer("reader", registry=registry.url, lan=False)

        def python() -> float:
            begun = time.perf_counter()
            reader.fetch("large.bin", os.path.join(folder, "out-python"), from_="holder").result()
            took = time.perf_counter() - begun
            shutil.rmtree(os.path.join(folder, "out-python"))
            return took

        def command() -> float:
            assert p2pctl is not None
            begun = time.perf_counter()
            subprocess.check_call(
                [p2pctl, "--registry", registry.url, "get", "large.bin", "-q", "--out", os.path.join(folder, "out-p2pctl")],
                stdout=subprocess.DEVNULL,
            )
            took = time.perf_counter() - begun
            shutil.rmtree(os.path.join(folder, "out-p2pctl"))
            return took

        runs = [(python(), command() if p2pctl else 0.0) for _ in range(3)]
        mine, theirs = (statistics.median(times) for times in zip(*runs))
        print(f"fetch of {mib} MiB: {mine:.2f} s, {mib / mine:.0f} MiB/s", end="")
        print(f"; p2pctl get {theirs:.2f} s, so {mine / theirs:.2f} x" if p2pctl else "")
        with reader.open("large.bin") as opened:
            buffer, begun, got = bytearray(4 << 20), time.perf_counter(), 0
            while read := opened.readinto(buffer):
                got += read
            print(f"read in place, 4 MiB at a time: {got / (time.perf_counter() - begun) / (1 << 20):.0f} MiB/s")
        reader.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--p2pctl")
    arguments.add_argument("--mib", type=int, default=1024)
    given = arguments.parse_args()
    print(f"p2pdi {p2pdi.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    measure_import()
    with p2pdi.testing.network(2) as (one, two):
        measure_whispers(one, two)
        measure_messages(one, two)
        measure_dispatch(one)
    with tempfile.TemporaryDirectory() as folder:
        measure_fetch(folder, given.mib, given.p2pctl)


if __name__ == "__main__":
    main()
