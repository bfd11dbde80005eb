"""Libraries that read from peers by `p2pdi://`, as their users call them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import p2pdi

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

ROWS = 20_000


@pytest.fixture
def shared() -> Iterator[Any]:
    """Makes a network whose first peer shares these documents, and the storage options that reach it."""
    networks: list[p2pdi.testing.Network] = []

    def make(documents: dict[str, bytes]) -> dict[str, Any]:
        network = p2pdi.testing.network(1, documents=documents)
        networks.append(network)
        return {"registry": network.registry.url, "name": f"reader-{len(networks)}"}

    yield make
    for made in fsspec.get_filesystem_class("p2pdi")._cache.values():
        made.close()
    fsspec.get_filesystem_class("p2pdi").clear_instance_cache()
    for network in networks:
        network.close()


def test_pandas_reads_tables(shared: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"x": range(ROWS), "y": [f"row {number}" for number in range(ROWS)]})
    options = shared({"data/table.csv": frame.to_csv(index=False).encode()})
    read = pandas.read_csv("p2pdi://peer-1/data/table.csv", storage_options=options)
    pandas.testing.assert_frame_equal(read, frame)
    with pytest.raises(FileNotFoundError):
        pandas.read_csv("p2pdi://any/data/absent.csv", storage_options=options)
    with pytest.raises(NotImplementedError, match="read only"):
        frame.to_csv("p2pdi://any/data/new.csv", storage_options=options)


def test_pandas_reads_some_columns_of_a_parquet_file(shared: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = pandas.DataFrame({"x": range(ROWS), "y": [f"row {number}" for number in range(ROWS)]})
    content = io.BytesIO()
    frame.to_parquet(content)
    options = shared({"table.parquet": content.getvalue()})
    pandas.testing.assert_frame_equal(pandas.read_parquet("p2pdi://any/table.parquet", storage_options=options), frame)
    columns = pandas.read_parquet("p2pdi://any/table.parquet", columns=["x"], storage_options=options)
    assert list(columns.columns) == ["x"] and columns["x"].sum() == frame["x"].sum()


def test_safetensors_are_read(shared: Any, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    tensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    weights = {"layer.weight": numpy.arange(60_000, dtype="float32").reshape(200, 300), "layer.bias": numpy.ones(300)}
    options = shared({"models/model.safetensors": tensors.save(weights)})
    files = fsspec.filesystem("p2pdi", **options)
    loaded = tensors.load(files.cat_file("p2pdi://peer-1/models/model.safetensors"))
    assert {name: value.tolist() for name, value in loaded.items()} == {name: value.tolist() for name, value in weights.items()}
    # One tensor, without the rest of the file.
    with files.open("p2pdi://any/models/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin, end = header["layer.weight"]["data_offsets"]
        start = file.tell()
        file.seek(start + begin)
        one = numpy.frombuffer(file.read(end - begin), dtype="float32").reshape(header["layer.weight"]["shape"])
    assert (one == weights["layer.weight"]).all()
    # What maps files into memory gets one.
    files.get("p2pdi://any/models/model.safetensors", str(tmp_path / "model.safetensors"))
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as opened:
        assert set(opened.keys()) == set(weights)


DATASETS = """
import json, sys
import datasets
options = json.loads(sys.argv[1])
whole = datasets.load_dataset("csv", data_files={"train": "p2pdi://any/data/part-*.csv"}, storage_options=options)
print(whole["train"].num_rows, whole["train"][0])
streamed = datasets.load_dataset("json", data_files="p2pdi://any/data/rows.jsonl", storage_options=options, streaming=True)
print(next(iter(streamed["train"])))
"""


def test_datasets_load_files_of_peers(shared: Any, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    documents = {
        "data/part-1.csv": b"x,y\n1,one\n2,two\n",
        "data/part-2.csv": b"x,y\n3,three\n",
        "data/rows.jsonl": b'{"x": 7}\n{"x": 8}\n',
    }
    code, out, error = program(DATASETS, json.dumps(shared(documents)), timeout=240)
    assert code == 0, error
    assert out.splitlines() == ["3 {'x': 1, 'y': 'one'}", "{'x': 7}"]
