"""Measures the module beside programs that do the same without Python: import, whispers, messages into a handler, fetches.

    benches/run            builds all in release, and calls this
    python benches/measure.py --rust BINARY --p2pctl BINARY [--mib 1024] [--rounds 3] [--only WORD]

Everything runs on this machine over loopback. Each figure is a median of rounds that alternate with those of its baseline, in the same run.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import p2pdi

WHISPERS = 2_000
BODY = b"x" * 64
# As many as an inbox keeps.
INBOX = 1_000
DRAINS = 20
FLOOD = 100_000


def row(what: str, mine: str, theirs: str = "", ratio: float | None = None, aim: str = "") -> None:
    shown = "" if ratio is None else f"{ratio:.2f} x"
    print(f"{what:58} {mine:>16} {theirs:>16} {shown:>8}  {aim}", flush=True)


def measure_import() -> None:
    text = "import time; begun = time.perf_counter(); import p2pdi; print(time.perf_counter() - begun)"
    took = [float(subprocess.check_output([sys.executable, "-c", text])) * 1000 for _ in range(15)]
    row("import p2pdi", f"{statistics.median(took):.1f} ms", aim="< 50 ms")


@contextmanager
def pair() -> Iterator[tuple[p2pdi.Peer, p2pdi.Peer]]:
    """Two peers with a link, as the program in Rust has them."""
    with p2pdi.Peer("one", lan=False) as one, p2pdi.Peer("two", lan=False) as two:
        one.join(two.endpoint)
        yield one, two


def whispers() -> tuple[float, float]:
    """Medians in microseconds: to PING, which the other peer answers itself, and to a handler."""
    with pair() as (one, two):
        two.on("ECHO", lambda message: message.body)

        def median(kind: str) -> float:
            took = []
            for _ in range(WHISPERS):
                begun = time.perf_counter()
                one.whisper("two", BODY, kind=kind)
                took.append(time.perf_counter() - begun)
            return statistics.median(took) * 1e6

        return median("PING"), median("ECHO")


def measure_whispers(rust: str, rounds: int) -> None:
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(whispers())
        theirs.append([float(word) for word in subprocess.check_output([rust, "whispers", str(WHISPERS)]).split()])
    for at, (what, aim) in enumerate([("whisper p50, answered by the peer", "<= 1.3"), ("whisper p50, answered by a handler", "")]):
        ours, other = (statistics.median(one[at] for one in some) for some in (mine, theirs))
        row(what, f"{ours:.0f} us", f"{other:.0f} us", ours / other, aim)


def drain() -> float:
    """Messages a second that a handler gets out of a full inbox: without their way to it."""
    with pair() as (one, two):
        go, done, handled, rates = threading.Event(), threading.Event(), 0, []

        def count(message: p2pdi.Message) -> None:
            nonlocal handled
            if handled % INBOX == 0:
                go.wait()
            handled += 1
            if handled % INBOX == 0:
                go.clear()
                done.set()

        two.on("DRAIN", count)
        for number in range(1, DRAINS + 1):
            for _ in range(INBOX):
                one.broadcast("DRAIN", BODY)
            while two.received < number * INBOX:
                time.sleep(0.005)
            begun = time.perf_counter()
            go.set()
            done.wait()
            rates.append(INBOX / (time.perf_counter() - begun))
            done.clear()
        assert two.dropped == 0
        return statistics.median(rates)


def measure_drain(rust: str, rounds: int) -> None:
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(drain())
        theirs.append(float(subprocess.check_output([rust, "drain", str(DRAINS)])))
    ours, other = statistics.median(mine), statistics.median(theirs)
    row("messages from a full inbox into a handler", f"{ours:,.0f} /s", f"{other:,.0f} /s", ours / other, ">= 100,000 /s")


def measure_flood(rust: str, rounds: int) -> None:
    """Broadcasts of another process in Rust, as quickly as it can, into a handler here: what the whole way carries."""
    handled_rates, sent_rates, shares = [], [], []
    for _ in range(rounds):
        with p2pdi.Peer("two", lan=False) as two:
            times: list[float] = []
            two.on("FLOOD", lambda message: times.append(time.perf_counter()))
            sent_rates.append(float(subprocess.check_output([rust, "flood", str(FLOOD), two.endpoint])))
            handled_rates.append(len(times) / (times[-1] - times[0]))
            shares.append(len(times) / FLOOD)
    mine, sent = statistics.median(handled_rates), statistics.median(sent_rates)
    row("messages of another process in Rust into a handler", f"{mine:,.0f} /s", f"sent {sent:,.0f} /s", mine / sent)
    print(f"    {statistics.median(shares):.0%} of what was sent was handled; the rest was dropped on its way, or in the inbox")


HOLDER = """
import os, sys, p2pdi
registry = p2pdi.Registry()
holder = p2pdi.Peer("holder", registry=registry.url, lan=False)
holder.share(sys.argv[1])
print(registry.url, flush=True)
sys.stdin.read()
"""
FETCH = """
import os, sys, p2pdi
with p2pdi.Peer(f"reader-{os.getpid()}", registry=sys.argv[1], lan=False) as peer:
    peer.fetch("large.bin", sys.argv[2], from_="holder").result()
"""


def measure_fetch(folder: str, mib: int, p2pctl: str, rounds: int) -> None:
    """Each fetch is a program of its own, from its start to its end; the holder is another one."""
    share, out = os.path.join(folder, "share"), os.path.join(folder, "out")
    os.mkdir(share)
    with open(os.path.join(share, "large.bin"), "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, share], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip()

        def seconds(fetch: Callable[[], object]) -> float:
            # What the last one wrote is not written meanwhile.
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            begun = time.perf_counter()
            fetch()
            took = time.perf_counter() - begun
            assert os.path.getsize(os.path.join(out, "large.bin")) == mib << 20
            return took

        def program(*command: str) -> Callable[[], object]:
            return lambda: subprocess.check_call(command, stdout=subprocess.DEVNULL)

        commands = {
            "python": program(sys.executable, "-c", FETCH, url, out),
            "p2pctl": program(p2pctl, "--registry", url, "get", "large.bin", "--from", "holder", "-q", "--out", out),
        }
        for command in commands.values():
            seconds(command)
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                took[name].append(seconds(command))
        mine, theirs = statistics.median(took["python"]), statistics.median(took["p2pctl"])
        row(f"fetch of {mib} MiB, from start to end of a program", f"{mine:.2f} s", f"{theirs:.2f} s", mine / theirs, "<= 1.05")
        with p2pdi.Peer("reader", registry=url, lan=False) as reader, reader.open("large.bin", from_="holder") as opened:
            buffer, begun, got = bytearray(4 << 20), time.perf_counter(), 0
            while read := opened.readinto(buffer):
                got += read
            row("the same read in place, 4 MiB at a time", f"{got / (time.perf_counter() - begun) / (1 << 20):.0f} MiB/s")
    finally:
        holder.communicate("")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rust", required=True, help="benches/rust.rs, built")
    arguments.add_argument("--p2pctl", required=True)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", choices=["import", "whispers", "drain", "flood", "fetch"])
    given = arguments.parse_args()
    print(f"p2pdi {p2pdi.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    row("", "Python", "without", None, "aim")
    parts: dict[str, Callable[[], None]] = {
        "import": measure_import,
        "whispers": lambda: measure_whispers(given.rust, given.rounds),
        "drain": lambda: measure_drain(given.rust, given.rounds),
        "flood": lambda: measure_flood(given.rust, given.rounds),
        "fetch": lambda: fetch(given),
    }
    for name, part in parts.items():
        if given.only in (None, name):
            part()


def fetch(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure_fetch(folder, given.mib, given.p2pctl, given.rounds)


if __name__ == "__main__":
    main()
