"""Watching who joins, changes and leaves."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE
from p2pdi import aio


def told(change: p2pdi.PeerChange) -> tuple[str, str]:
    return change.change, change.name


def test_each_change_is_told_once_and_in_order() -> None:
    with p2pdi.Registry() as registry, p2pdi.RegistryClient(registry.url) as client:
        client.register("a", "127.0.0.1:1", {"zone": "x"})
        changes = p2pdi.RegistryClient(registry.url).watch(timeout=PATIENCE)
        first = next(changes)
        assert told(first) == ("joined", "a") and first.peer is not None and first.peer.labels == {"zone": "x"}
        client.register("a", "127.0.0.1:2", {"zone": "y"})
        match next(changes):
            case p2pdi.Changed(name, peer):
                assert (name, peer.endpoint, peer.labels) == ("a", "127.0.0.1:2", {"zone": "y"})
            case other:
                raise AssertionError(other)
        begun = time.monotonic()
        client.leave()
        assert next(changes) == p2pdi.Left("a")
        # It is told, not asked for.
        assert time.monotonic() - begun < PATIENCE / 2
        with p2pdi.RegistryClient(registry.url) as another:
            another.register("b", "127.0.0.1:3")
            assert told(next(changes)) == ("joined", "b")
        assert told(next(changes)) == ("left", "b")


def test_it_ends_after_its_time_and_its_observer_leaves() -> None:
    with p2pdi.Registry() as registry:
        begun = time.monotonic()
        assert list(p2pdi.RegistryClient(registry.url).watch(timeout=0.3)) == []
        assert 0.3 <= time.monotonic() - begun < PATIENCE
        with p2pdi.RegistryClient(registry.url) as client:
            assert client.pquery() == []


def test_it_goes_on_where_it_was_when_the_registry_was_away(tmp_path: Path) -> None:
    with p2pdi.Registry(state=tmp_path) as registry:
        address = registry.address
        first = p2pdi.RegistryClient(registry.url)
        first.register("stays", "127.0.0.1:1")
        goes = p2pdi.RegistryClient(registry.url)
        goes.register("goes", "127.0.0.1:2")
        changes = first.watch(timeout=2 * PATIENCE)
        assert {told(next(changes)), told(next(changes))} == {("joined", "stays"), ("joined", "goes")}
    with p2pdi.Registry(listen=address, state=tmp_path) as registry:
        goes.leave()
        new = p2pdi.RegistryClient(registry.url)
        new.register("new", "127.0.0.1:3")
        # What changed meanwhile, and not the whole list again.
        assert sorted([told(next(changes)), told(next(changes))]) == [("joined", "new"), ("left", "goes")]
        new.leave()
        assert told(next(changes)) == ("left", "new")


def test_it_goes_on_when_the_registry_lost_its_records() -> None:
    with p2pdi.Registry() as registry:
        address = registry.address
        for name, endpoint in [("a", "127.0.0.1:1"), ("b", "127.0.0.1:2")]:
            p2pdi.RegistryClient(registry.url).register(name, endpoint)
        changes = p2pdi.RegistryClient(registry.url).watch(timeout=2 * PATIENCE)
        assert {told(next(changes)), told(next(changes))} == {("joined", "a"), ("joined", "b")}
    with p2pdi.Registry(listen=address) as registry:
        p2pdi.RegistryClient(registry.url).register("a", "127.0.0.1:1")
        p2pdi.RegistryClient(registry.url).register("c", "127.0.0.1:3")
        seen: list[tuple[str, str]] = []
        while ("left", "b") not in seen or ("joined", "c") not in seen:
            seen.append(told(next(changes)))
        # The same peer at the same address is no change.
        assert sorted(seen) == [("joined", "c"), ("left", "b")] or ("left", "a") in seen


def test_a_reader_that_was_slower_than_its_lease_misses_nothing() -> None:
    with p2pdi.Registry(ttl=1) as registry:
        changes = p2pdi.RegistryClient(registry.url).watch(timeout=PATIENCE)
        stays = p2pdi.Peer("stays", registry=registry.url, lan=False)
        assert told(next(changes)) == ("joined", "stays")
        time.sleep(2.5)
        with p2pdi.Peer("came-and-went", registry=registry.url, lan=False):
            pass
        late = p2pdi.Peer("late", registry=registry.url, lan=False)
        seen = [told(next(changes))]
        while seen[-1] != ("joined", "late"):
            seen.append(told(next(changes)))
        # On a busy machine a lease of a second may end although its peer is there; it is told, too.
        others = {change for change in seen if change[1] != "stays"}
        assert others <= {("joined", "late"), ("joined", "came-and-went"), ("left", "came-and-went")}
        stays.close()
        late.close()


def test_a_registry_that_is_away_at_first_is_an_error() -> None:
    with p2pdi.Registry() as registry:
        url = registry.url
    with pytest.raises(p2pdi.NoRoute, match="the registry at"):
        next(p2pdi.RegistryClient(url).watch())
    with pytest.raises(TypeError):
        p2pdi.RegistryClient(url).watch(timeout="soon")  # type: ignore[arg-type]


def test_a_watch_on_an_event_loop() -> None:
    async def main() -> None:
        async with aio.Registry() as registry, aio.RegistryClient(registry.url) as client:
            seen: list[Any] = []

            async def watch() -> None:
                async for change in aio.RegistryClient(registry.url).watch():
                    seen.append(told(change))
                    if change.change == "left":
                        return

            watching = asyncio.ensure_future(watch())
            await client.register("a", "127.0.0.1:1")
            while not seen:
                await asyncio.sleep(0.02)
            await client.leave()
            await asyncio.wait_for(watching, PATIENCE)
            assert seen == [("joined", "a"), ("left", "a")]
            async for _ in client.watch(timeout=0.1):
                raise AssertionError("nobody is there")

    asyncio.run(main())


def test_changes_are_frozen_and_compare() -> None:
    left = p2pdi.Left("a")
    assert left == p2pdi.Left("a") != p2pdi.Left("b") and hash(left) == hash(p2pdi.Left("a"))
    assert repr(left) == "Left(name='a')" and isinstance(left, p2pdi.PeerChange)
    with pytest.raises(AttributeError):
        left.name = "b"
    with pytest.raises(AttributeError):
        del left.name


@pytest.mark.parametrize("daemon", [True, False])
def test_a_watch_in_another_thread_ends_with_the_program(daemon: bool, program: Any) -> None:
    text = """
import threading, time, p2pdi
registry = p2pdi.Registry()
threading.Thread(target=lambda: list(p2pdi.RegistryClient(registry.url).watch()), daemon=DAEMON).start()
time.sleep(0.5)
"""
    code, _, error = program(text.replace("DAEMON", str(daemon)))
    assert (code, error) == (0, "")
