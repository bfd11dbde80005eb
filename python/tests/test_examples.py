"""The examples, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import p2pdi
from conftest import PATIENCE

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_two_people_chat() -> None:
    alice = example("chat.py", "alice")
    bob = None
    try:
        endpoint = line(alice).rpartition(" ")[2]
        bob = example("chat.py", "bob", "--join", endpoint)
        assert line(bob).startswith("bob listens on ")
        assert line(bob) == f"joined alice@{endpoint}"
        assert bob.stdin is not None and alice.stdin is not None
        bob.stdin.write("hello\n@alice you\n@nobody x\n")
        bob.stdin.flush()
        assert {line(alice), line(alice)} == {"bob: hello", "bob (to you): you"}
        assert line(bob).startswith("not sent: request cannot be fulfilled: no route to nobody")
        for talking in (alice, bob):
            talking.communicate("", timeout=PATIENCE)
            assert talking.returncode == 0
    finally:
        for process in (alice, bob):
            if process is not None:
                process.kill()


def test_a_folder_of_safetensors_is_shared_fetched_and_looked_into(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(16)
    (tmp_path / "models" / "tiny.safetensors").write_bytes(content)
    with p2pdi.Registry() as registry:
        # The registry is on this machine: what listens on all addresses is reached there.
        options = ["--registry", registry.url, "--listen", "127.0.0.1:0"]
        sharing = example("share_models.py", "share", str(tmp_path / "models"), *options)
        try:
            assert "shares 1 documents" in line(sharing)
            fetching = example("share_models.py", "fetch", "**", *options, "--out", str(tmp_path / "out"))
            shown, _ = fetching.communicate(timeout=PATIENCE)
            assert fetching.returncode == 0 and shown.strip().endswith("tiny.safetensors")
            assert (tmp_path / "out" / "tiny.safetensors").read_bytes() == content
            looking = example("share_models.py", "tensors", "tiny.safetensors", *options)
            assert looking.communicate(timeout=PATIENCE)[0] == "weight F32 [2, 2]\n"
        finally:
            sharing.kill()
            sharing.wait()


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"markdown", "code"})
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Stored without what a run printed.
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    check = "assert [path.name for path in paths] == ['large.bin', 'readme.txt'] and part == bytes(range(64, 80)), (paths, part)"
    program = "\n".join([*cells, check])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path
    )
    # Shown on the stream of errors, which a notebook shows, too.
    assert (done.returncode, done.stdout) == (0, "") and done.stderr, done.stderr


def blocks() -> list[str]:
    """The programs of the README that need no other machine, and end by themselves."""
    found = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if "10.0.0." not in block and "peer.wait()" not in block]


@pytest.mark.parametrize("number", range(len(blocks())))
def test_what_the_readme_shows_works_as_it_is_pasted(number: int, tmp_path: Path) -> None:
    block = blocks()[number]
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, ""), block
    if "# HELLO" in block:
        assert done.stdout == "HELLO\n"


def test_the_readme_shows_programs_that_are_run() -> None:
    assert len(blocks()) == 3
