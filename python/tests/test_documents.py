"""Documents: listing, fetching, reading, sharing."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

import p2pdi
from conftest import until
from p2pdi import aio

CONTENT = bytes(range(256)) * 12_000


def test_a_fetch_shows_its_progress_and_returns_paths(tmp_path: Path) -> None:
    documents = {"models/large.bin": CONTENT, "models/small.txt": b"small\n", "other.txt": b"other\n"}
    with p2pdi.testing.network(2, documents=documents) as (one, two):
        listed = two.documents("models/**")
        assert [(document.name, document.size, document.holders) for document in listed] == [
            ("models/large.bin", len(CONTENT), [one.name]),
            ("models/small.txt", 6, [one.name]),
        ]
        fetch = two.fetch("models/**", out=tmp_path / "out", limit=3_000_000)
        seen = list(fetch)
        assert seen[-1].ended and not seen[0].ended
        assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
        last = fetch.progress
        assert (last.done, last.documents_done) == (last.total, 2) and last.total == len(CONTENT) + 6
        paths = fetch.result()
        assert paths == fetch.result(timeout=timedelta(seconds=1))
        assert all(isinstance(path, os.PathLike) for path in paths)
        assert paths[0].read_bytes() == CONTENT
        (large, _) = fetch.documents()
        assert Path(large) == paths[0] and large.fetched_bytes == len(CONTENT)
        assert [source.peer for source in large.sources if source.bytes] == [one.name]
        assert two.fetch("models/**", out=tmp_path / "out").documents()[0].already_there


def test_a_fetch_is_cancelled_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with p2pdi.testing.network(2, documents={"large.bin": CONTENT}) as (_, two):
        fetch = two.fetch("large.bin", tmp_path, limit=500_000)
        with pytest.raises(p2pdi.PeerTimeout):
            fetch.result(timeout=0.2)
        assert not fetch.wait(timeout=0)
        for progress in fetch:
            if progress.done > 0:
                break
        fetch.cancel()
        with pytest.raises(p2pdi.Closed):
            fetch.result()
        assert len(list(fetch)) == 1 and fetch.progress.ended
        assert not (tmp_path / "large.bin").exists()
        (done,) = two.fetch("large.bin", tmp_path).documents()
        assert done.path.read_bytes() == CONTENT and done.resumed_bytes > 0
        ended = two.fetch("large.bin", tmp_path)
        assert ended.wait(timeout=60)
        ended.cancel()
        assert ended.result() == [done.path]


def test_an_open_document_is_a_file() -> None:
    with p2pdi.testing.network(2, documents={"large.bin": CONTENT}) as (_, two):
        with two.open("large.bin") as file:
            assert (file.readable(), file.seekable(), file.writable(), file.size) == (True, True, False, len(CONTENT))
            assert file.seek(-10, os.SEEK_END) == len(CONTENT) - 10
            assert file.read(100) == CONTENT[-10:] and file.read(1) == b""
            file.seek(1_000_001)
            buffer = bytearray(700_000)
            assert file.readinto(buffer) == len(buffer)
            assert bytes(buffer) == CONTENT[1_000_001:1_700_001] and file.tell() == 1_700_001
            assert file.read_at(5, 3) == CONTENT[5:8]
            with pytest.raises(ValueError):
                file.seek(-1)
            with pytest.raises(io.UnsupportedOperation):
                file.write(b"x")
            hash_ = file.document.hash
        with pytest.raises(p2pdi.Closed):
            file.read(1)
        assert two.open(hash_).readall() == CONTENT
        assert io.BufferedReader(two.open("large.bin")).peek(1)[:1] == CONTENT[:1]


def test_an_open_document_is_read_on_an_event_loop() -> None:
    async def main(registry: str) -> None:
        async with aio.Peer("reader", registry=registry, lan=False) as reader:
            async with await reader.open("large.bin") as file:
                assert file.seek(-10, os.SEEK_END) == len(CONTENT) - 10
                assert await file.read(100) == CONTENT[-10:] and await file.read(1) == b""
                assert file.seek(1_000_001) == file.tell()
                buffer = bytearray(700_000)
                assert await file.readinto(buffer) == len(buffer)
                assert bytes(buffer) == CONTENT[1_000_001:1_700_001] and file.tell() == 1_700_001
                assert await file.read() == CONTENT[1_700_001:] and file.tell() == len(CONTENT)
                assert await file.read_at(5, 3) == CONTENT[5:8]
                assert file.seek(-5, os.SEEK_CUR) == len(CONTENT) - 5 and not file.closed
                for wrong in (lambda: file.seek(-1), lambda: file.seek(0, 7)):
                    with pytest.raises(ValueError):
                        wrong()
                assert await asyncio.to_thread(file.blocking().read, 3) == CONTENT[:3]
            file.close()
            assert file.closed
            for call in (file.read, lambda: file.read_at(0, 1), lambda: file.readinto(bytearray(1)), file.__aenter__):
                with pytest.raises(p2pdi.Closed):
                    await call()
            for ask in (file.tell, lambda: file.seek(0), file.blocking):
                with pytest.raises(p2pdi.Closed):
                    ask()

    with p2pdi.testing.network(1, documents={"large.bin": CONTENT}) as network:
        asyncio.run(main(network.registry.url))


def test_a_folder_is_shared_after_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    with p2pdi.Peer("alice", lan=False) as alice:
        share = alice.share(tmp_path)
        assert [document.name for document in share.documents] == ["a.txt"]
        assert os.fspath(share) == str(tmp_path)
        assert alice.pin("a.txt") is False and alice.pin("a.txt") is True
        with pytest.raises(p2pdi.NotFound):
            alice.pin("b.txt")
        with pytest.raises(p2pdi.NotFound):
            alice.share(tmp_path / "absent")
        with pytest.raises(p2pdi.Invalid):
            alice.share(tmp_path.parent)


def test_what_goes_wrong_has_a_class_and_the_words_of_the_command_line(tmp_path: Path) -> None:
    with p2pdi.testing.network(3, documents={"a.txt": b"one"}) as network:
        one, two, three = network
        (Path(network.folder(two)) / "a.txt").write_bytes(b"two")
        share = two.share(network.folder(two))
        until(lambda: share.documents, "the new content")
        until(lambda: len(three.documents("a.txt")) == 2, "both contents")
        with pytest.raises(p2pdi.Ambiguous, match="2 different documents are called a.txt"):
            # On a busy machine one may answer too late to be heard.
            for _ in range(150):
                three.fetch("a.txt", tmp_path / "early", replace=True).result()
                time.sleep(0.2)
        with pytest.raises(FileNotFoundError, match="nobody has nothing.txt"):
            three.open("nothing.txt")
        with pytest.raises(p2pdi.NotFound, match="no document matches none"):
            three.fetch("none*", tmp_path).result()
        with pytest.raises(ConnectionError, match="request cannot be fulfilled: no route to nobody"):
            three.whisper("nobody", "x")
        with pytest.raises(ValueError, match="wanted"):
            three.fetch("../x", tmp_path)
        (tmp_path / "a.txt").write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="exists with other content"):
            three.fetch("a.txt", tmp_path, from_=one.name).result()
        assert three.fetch("a.txt", tmp_path, from_=two.name, replace=True).result()[0].read_bytes() == b"two"
    with pytest.raises(p2pdi.Invalid, match="name"):
        p2pdi.Peer("two words", lan=False)
    with pytest.raises(p2pdi.Invalid, match="ADDRESS:PORT"):
        p2pdi.Peer("a", listen="nowhere", lan=False)


def test_a_full_disk_says_so_with_its_number(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount a small disk")
    try:
        with p2pdi.testing.network(2, documents={"large.bin": CONTENT}) as (_, two):
            with pytest.raises(p2pdi.NoRoom, match="not enough space for large.bin") as caught:
                two.fetch("large.bin", tmp_path).result()
            assert caught.value.errno == errno.ENOSPC
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_errors_are_builtins_too() -> None:
    for error, builtin in [
        (p2pdi.NotFound, FileNotFoundError),
        (p2pdi.NoRoute, ConnectionError),
        (p2pdi.PeerTimeout, TimeoutError),
        (p2pdi.NoRoom, OSError),
        (p2pdi.Refused, PermissionError),
        (p2pdi.Invalid, ValueError),
        (p2pdi.Exists, FileExistsError),
    ]:
        assert issubclass(error, builtin) and issubclass(error, p2pdi.Error)
        assert str(error("words")) == "words"


def test_results_are_frozen_and_compare(tmp_path: Path) -> None:
    with p2pdi.testing.network(2, documents={"a.txt": b"text"}) as (one, two):
        document = two.find_document("a.txt")
        with pytest.raises(AttributeError):
            document.size = 1  # type: ignore[misc]
        assert document == two.find_document("A.TXT") and len({document, two.find_document("a.txt")}) == 1
        assert repr(document).startswith("Document(name='a.txt', size=4, hash='b3:")
        match two.peers()[0]:
            case p2pdi.PeerInfo(name, endpoint):
                assert (name, endpoint) == (one.name, one.endpoint)


def test_the_network_fixture(p2pdi_network: object) -> None:
    one, two = p2pdi_network(2)  # type: ignore[operator]
    assert one.whisper(two.name, "hello").sender == two.name


def test_a_file_system_for_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    documents = {"data/a.csv": b"x,y\n1,2\n", "data/b.bin": CONTENT, "top.txt": b"top\n"}
    with p2pdi.testing.network(2, documents=documents) as (one, two):
        files = fsspec.filesystem("p2pdi", peer=two, skip_instance_cache=True)
        assert files.ls("p2pdi://peer-1/", detail=False) == ["peer-1/data", "peer-1/top.txt"]
        assert files.ls("peer-1/data", detail=False) == ["peer-1/data/a.csv", "peer-1/data/b.bin"]
        assert files.info("p2pdi://any/top.txt")["size"] == 4 and files.isdir("peer-1/data")
        assert files.cat_file("any/data/b.bin", 10, 20) == CONTENT[10:20]
        assert not files.exists("peer-1/absent")
        with files.open("p2pdi://peer-1/data/a.csv", "rt") as text:
            assert text.read() == "x,y\n1,2\n"
        files.get_file("any/data/b.bin", str(tmp_path / "b.bin"))
        assert (tmp_path / "b.bin").read_bytes() == CONTENT
        files.get("any/data", str(tmp_path / "folder"), recursive=True)
        assert (tmp_path / "folder" / "a.csv").read_bytes() == b"x,y\n1,2\n"
        assert (tmp_path / "folder" / "b.bin").read_bytes() == CONTENT
        with pytest.raises(NotImplementedError):
            files.open("any/x", "wb")
        with pytest.raises(TypeError, match="no option 'registrry'; give settings of p2pdi.Peer: .*quota, registry"):
            fsspec.filesystem("p2pdi", registrry="http://127.0.0.1:7800", skip_instance_cache=True)
        address = fsspec.open("p2pdi://peer-1/top.txt", bootnodes=(one.endpoint,), name="reader")
        with address as file:
            assert file.read() == b"top\n"
        address.fs.peer.close()
