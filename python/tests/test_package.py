"""The package: its command, its documentation, its types."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import p2pdi
from conftest import PATIENCE

FOLDER = Path(__file__).parent.parent / "p2pdi"
MODULES = [
    "p2pdi",
    "p2pdi._errors",
    "p2pdi._fetch",
    "p2pdi._messages",
    "p2pdi._peer",
    "p2pdi._share",
    "p2pdi._registry",
    "p2pdi.aio",
    "p2pdi.aio._documents",
    "p2pdi.aio._peer",
    "p2pdi.aio._registry",
    "p2pdi.fsspec",
    "p2pdi.testing",
]


def examples(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(str(error))
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs={"p2pdi": p2pdi})
    return [example for example in found if example.examples]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_work(name: str) -> None:
    shown = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    found = examples(name)
    for example in found:
        runner.run(example, out=shown.write)
    assert runner.summarize(verbose=False).failed == 0, shown.getvalue()
    assert found


def public_items() -> Iterator[tuple[str, Any]]:
    """All that a program may use: functions, classes, and what classes have of their own."""
    from p2pdi import aio

    modules = {"p2pdi": p2pdi, "p2pdi.aio": aio, "p2pdi.testing": p2pdi.testing}
    if importlib.util.find_spec("fsspec"):
        modules["p2pdi.fsspec"] = importlib.import_module("p2pdi.fsspec")
    for module_name, module in modules.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if name == "__version__" or thing in (aio, p2pdi.testing):
                continue
            yield f"{module_name}.{name}", thing
            for base in thing.__mro__ if isinstance(thing, type) else ():
                if base.__module__.startswith("p2pdi"):
                    for member, value in vars(base).items():
                        if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                            yield f"{module_name}.{name}.{member}", value


def test_every_public_item_says_what_it_does() -> None:
    assert [name for name, thing in public_items() if not (thing.__doc__ or "").strip()] == []


def test_every_class_function_and_blocking_method_has_an_example_that_runs() -> None:
    texts = {example.docstring for name in MODULES for example in examples(name)}
    # What the awaitable methods do is told, and shown, at the blocking ones; those of files are those of every file.
    exempt = ("p2pdi.aio.", "p2pdi.fsspec.P2PFileSystem.", "p2pdi.RemoteFile.")
    missing = []
    for name, thing in public_items():
        is_method = name.count(".") > (2 if name.startswith(("p2pdi.aio", "p2pdi.testing", "p2pdi.fsspec")) else 1)
        if isinstance(thing, property) or (is_method and name.startswith(exempt)):
            continue
        if thing.__doc__ not in texts:
            missing.append(name)
    assert missing == []


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


def test_both_kinds_of_peers_have_the_same_methods() -> None:
    from p2pdi import aio

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(aio.Peer) - {"start"} == public(p2pdi.Peer)
    assert public(aio.Registry) - {"start"} == public(p2pdi.Registry)
    assert public(aio.RegistryClient) == public(p2pdi.RegistryClient)
    assert public(aio.Fetch) == public(p2pdi.Fetch)
    assert public(aio.Messages) == public(p2pdi.Messages)
    assert public(aio.Share) == public(p2pdi.Share)
    # A blocking one is a file of Python's, with all that those have; `blocking` makes one.
    own = {name for name in vars(p2pdi.RemoteFile) if not name.startswith("_")} | {"close", "closed"}
    assert public(aio.RemoteFile) - {"blocking"} == own - {"readable", "seekable", "write", "readall"}
    for name in aio.__all__:
        awaitable, blocking = getattr(aio, name), getattr(p2pdi, name)
        assert hasattr(awaitable, "__aenter__") == hasattr(blocking, "__enter__"), name
        assert hasattr(awaitable, "__aiter__") == hasattr(blocking, "__iter__") or blocking is p2pdi.RemoteFile, name
        for method in public(blocking) & public(awaitable):
            ours, theirs = getattr(blocking, method), getattr(awaitable, method)
            if inspect.isfunction(ours):
                assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), (name, method)


def run_checker(*command: str, cwd: Path) -> None:
    pytest.importorskip(command[0].split(".")[0], reason="the type checkers are installed in one Python only")
    environment = {**os.environ, "MYPY_CACHE_DIR": str(cwd / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"])
def test_types_of_the_sources(checker: list[str], tmp_path: Path) -> None:
    """Without the stubs, which would be looked at in their place."""
    shutil.copytree(FOLDER, tmp_path / "p2pdi", ignore=shutil.ignore_patterns("*.pyc", "*.so"))
    for stub in (tmp_path / "p2pdi").rglob("*.pyi"):
        if stub.name != "_p2pdi.pyi":
            stub.unlink()
    run_checker(*checker, "p2pdi", cwd=tmp_path)


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"])
def test_types_that_a_program_sees(checker: list[str], tmp_path: Path) -> None:
    """Of the installed package, by its stubs."""
    shutil.copy(Path(__file__).parent / "typed_program.py", tmp_path)
    run_checker(*checker, "typed_program.py", cwd=tmp_path)


def test_stubs_say_what_the_modules_do(tmp_path: Path) -> None:
    run_checker("mypy.stubtest", "p2pdi", "--allowlist", str(FOLDER.parent / "stubtest.allow"), cwd=tmp_path)


def test_stubs_are_what_the_sources_say() -> None:
    pytest.importorskip("mypy", reason="the type checkers are installed in one Python only")
    done = subprocess.run(
        [sys.executable, str(FOLDER.parent / "stubs.py"), "--check"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_a_stub() -> None:
    modules = {path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.py")} | {Path("_p2pdi")}
    assert modules == {path.relative_to(FOLDER).with_suffix("") for path in FOLDER.rglob("*.pyi")}
    installed = Path(p2pdi.__file__).parent
    assert (installed / "py.typed").exists()
    assert {path.relative_to(FOLDER) for path in FOLDER.rglob("*.pyi")} == {path.relative_to(installed) for path in installed.rglob("*.pyi")}
