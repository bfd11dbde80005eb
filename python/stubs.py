"""Writes the stubs of the package, `.pyi`, from its sources, by `stubgen` of mypy. That of the native half is written by hand.

    python stubs.py [--check]

`--check`: only compares, and fails if one is not what the sources say.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent / "p2pdi"
# Of another version the stubs look different, and say the same.
MYPY = "2.4.1"
NATIVE = "_p2pdi.pyi"
HEAD = "# Written by stubs.py. Do not edit.\n"


def generate() -> dict[Path, str]:
    """The stubs by their paths in the package."""
    import mypy.version

    if mypy.version.__version__ != MYPY:
        raise SystemExit(f"needs mypy {MYPY}, and this is {mypy.version.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        # Alone, so that the stubs of the last time have no say.
        sources = Path(folder) / "sources" / PACKAGE.name
        for source in [*PACKAGE.rglob("*.py"), PACKAGE / NATIVE]:
            target = sources / source.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        command = [sys.executable, "-c", "import mypy.stubgen; mypy.stubgen.main()", "-q", "-o", folder, str(sources)]
        subprocess.run(command, check=True, cwd=sources.parent)
        written = Path(folder) / PACKAGE.name
        found = {stub.relative_to(written): stub.read_text() for stub in written.rglob("*.pyi")}
    source = {path: (PACKAGE / path).with_suffix(".py").read_text() for path in found if path.name != NATIVE}
    return {path: HEAD + completed(text, found[path]) for path, text in source.items()}


def completed(source: str, stub: str) -> str:
    """The stub with what `stubgen` leaves out and type checkers need: what classes match by, as a literal, and what is ignored on purpose."""
    fields = iter(re.findall(r"^    __match_args__ = \(.*\)$", source, re.MULTILINE))
    stub = re.sub(r"^    __match_args__: Incomplete$", lambda _: next(fields), stub, flags=re.MULTILINE)
    for code, ignored in re.findall(r"^(\S.*?)(  # type: ignore.*)$", source, re.MULTILINE):
        stub = stub.replace(code + "\n", code + ignored + "\n")
    unused = "from _typeshed import Incomplete\n"
    return stub.replace(unused, "") if stub.count("Incomplete") == 1 else stub


def main() -> int:
    """Writes them, or compares."""
    stubs = generate()
    stale = [path for path, text in stubs.items() if not (PACKAGE / path).exists() or (PACKAGE / path).read_text() != text]
    stale += [path for stub in PACKAGE.rglob("*.pyi") if (path := stub.relative_to(PACKAGE)) not in stubs and stub.name != NATIVE]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not what the sources say; run python/stubs.py")
        return 1 if stale else 0
    for path in stale:
        if path in stubs:
            (PACKAGE / path).write_text(stubs[path])
        else:
            (PACKAGE / path).unlink()
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
