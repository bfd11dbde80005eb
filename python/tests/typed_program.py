"""A program that uses the package, for type checkers only: `test_package.py` runs them on it. What is annotated here is what they must infer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import assert_type

import p2pdi
from p2pdi import aio


def blocking(peer: p2pdi.Peer, client: p2pdi.RegistryClient) -> None:
    assert_type(peer.get_peer_count(wait=1), int)
    answers = peer.send_message_to_peers("hello_there", wait=timedelta(seconds=2))
    assert_type(answers, p2pdi.Answers)
    assert_type(answers.missing, list[str])
    assert_type(peer.wait(timeout=None).body, bytes)
    assert_type(peer.find_peer("bob"), p2pdi.PeerInfo | None)
    assert_type(peer.peers_from(("127.0.0.1", 1)), list[p2pdi.PeerInfo])
    assert_type(peer.whisper("bob", b"...").round_trip, float)

    @peer.on("TEST")
    def handle(message: p2pdi.Message) -> bytes:
        return message.body

    assert_type(handle(peer.wait()), bytes)

    @peer.on("ASYNC")
    async def later(message: p2pdi.Message) -> tuple[str, bytes]:
        return "DONE", message.body

    fetch = peer.fetch("models/**", out=Path("out"), from_=["bob"])
    for progress in fetch:
        assert_type(progress.stalled_reason, str | None)
    assert_type(fetch.result(), list[Path])
    for fetched in fetch.documents():
        os.stat(fetched)
    with peer.open("b3:...") as file:
        assert_type(file.read(10), bytes)
        assert_type(file.readinto(bytearray(10)), int)
        assert_type(file.document.holders, list[str])
    assert_type(peer.share(Path("models")).documents, list[p2pdi.Document])
    changes = client.watch(timeout=1)
    assert_type(changes, Iterator[p2pdi.Joined | p2pdi.Changed | p2pdi.Left])
    for change in changes:
        match change:
            case p2pdi.Joined(name, record) | p2pdi.Changed(name, record):
                assert_type(name, str)
                assert_type(record, p2pdi.PeerRecord)
            case p2pdi.Left(name):
                assert_type(name, str)
    try:
        peer.open("absent")
    except p2pdi.Corrupt as error:
        assert_type(error.piece, int | None)


async def awaitable(peer: aio.Peer, client: aio.RegistryClient) -> None:
    assert_type(await peer.get_peer_count(), int)
    assert_type(await peer.wait(timeout=1.5), p2pdi.Message)
    assert_type(await peer.fetch("a"), list[Path])
    async for progress in peer.fetch("a"):
        assert_type(progress.done, int)
    async for message in peer.messages("NEWS"):
        assert_type(message.text, str)
    async for change in client.watch():
        assert_type(change.name, str)
    assert_type(await (await peer.open("a")).read_at(0, 10), bytes)
    async with await peer.open("a") as file:
        assert_type(file.seek(1), int)
        assert_type(await file.read(), bytes)
        assert_type(await file.readinto(bytearray(3)), int)
    async with peer.messages("NEWS") as messages:
        assert_type(await messages.next(), p2pdi.Message)
    assert_type(peer.registered, bool)


def pytest_style() -> None:
    with p2pdi.testing.network(3, documents={"a": b"x"}) as (one, two, three):
        assert_type(one, p2pdi.Peer)
