"""The package: its command, its documentation, its types."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import p2pdi
from conftest import PATIENCE

FOLDER = Path(__file__).parent.parent / "p2pdi"
MODULES = ["p2pdi", "p2pdi._fetch", "p2pdi._peer", "p2pdi._registry", "p2pdi.aio", "p2pdi.testing"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_work(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"p2pdi": p2pdi}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0 and result.attempted > 0


def test_the_command_shows_the_version_and_a_demonstration() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "p2pdi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert run("--version").stdout.startswith(f"p2pdi {p2pdi.__version__}, Python 3.")
    shown = run()
    assert shown.returncode == 0, shown.stdout + shown.stderr
    lines = shown.stdout.splitlines()[1:]
    assert len(lines) == 5 and all(line.startswith("PASS  ") for line in lines)
    assert run("nonsense").returncode == 2


def test_every_public_thing_has_a_docstring() -> None:
    for name in p2pdi.__all__:
        thing = getattr(p2pdi, name)
        if name.startswith("__"):
            continue
        assert thing.__doc__, name
        for method, value in vars(thing).items() if isinstance(thing, type) else ():
            if not method.startswith("_") and callable(value) and name in ("Peer", "Fetch", "Registry", "RegistryClient"):
                assert value.__doc__, f"{name}.{method}"


def test_both_kinds_of_peers_have_the_same_methods() -> None:
    from p2pdi import aio

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(aio.Peer) - {"start"} == public(p2pdi.Peer)
    assert public(aio.Registry) - {"start"} == public(p2pdi.Registry)
    assert public(aio.RegistryClient) == public(p2pdi.RegistryClient)
    assert public(aio.Fetch) == public(p2pdi.Fetch)


@pytest.mark.parametrize(
    "command",
    [
        ["mypy", "--strict", str(FOLDER)],
        ["mypy.stubtest", "p2pdi._p2pdi"],
        ["pyright", "--pythonpath", sys.executable, str(FOLDER)],
    ],
    ids=["mypy", "stubtest", "pyright"],
)
def test_types(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip(command[0].split(".")[0])
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
