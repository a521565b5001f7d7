"""What can be named, and what ``flsec describe`` says about it, in files: looking something up imports none of it.

    python -m flsec.simulations.index            writes the files
    python -m flsec.simulations.index --check    fails where they are not up to date

A file holds all of one kind, and a digest of each module that it was made from. Where a module has changed since, or
one has come or gone, that kind is read from the code instead: slower, and never out of date.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["INDEXED", "indexed", "members", "outdated"]

COMMAND = "python -m flsec.simulations.index"
FOLDER = Path(__file__).parent / "described"
INDEXED = ("defenses", "attacks", "strategies", "datasets", "partitioners", "models", "tasks", "sections")
_PACKAGE = Path(__file__).parents[1]

Facts = dict[str, Any]


def indexed(kind: str) -> dict[str, Facts]:
    """Return all of a kind as it was when its file was written: for hints and for completion."""
    found: dict[str, Facts] = _read(kind)["members"]
    return found


def members(kind: str) -> dict[str, Facts]:
    """Return {name: what is to be said about it} of all of a kind, from its file, or from the code if that is newer.

    Args:
        kind: one of ``INDEXED``.
    """
    written = _read(kind)
    if written["sources"] != _digests(written["package"], written["sources"]):
        return _from_code(kind)
    return indexed(kind)


@functools.cache
def _read(kind: str) -> dict[str, Any]:
    file = FOLDER / f"{kind}.json"
    if not file.is_file():
        return {"package": None, "sources": {"": "none"}, "members": {}}
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def _digests(package: str | None, sources: Iterable[str]) -> dict[str, str]:
    """Return {module: digest} as it is now, of these modules and of all public ones of a package."""
    files = {_PACKAGE / name for name in sources} | set((_PACKAGE / package).glob("[!_]*.py") if package else ())
    return {file.relative_to(_PACKAGE).as_posix(): _digest(file) for file in sorted(files) if file.is_file()}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:12]


# --- writing ----------------------------------------------------------------------------------------------------


def _from_code(kind: str) -> dict[str, Facts]:
    from flsec.simulations.facts import facts_of, members_of

    return {name: facts_of(kind, name, member) for name, member in members_of(kind).items()}


def _text(kind: str) -> str:
    """Return what is to stand in the file of a kind."""
    from flsec.simulations.facts import package_of, sources_of

    package, sources = package_of(kind), [file.relative_to(_PACKAGE).as_posix() for file in sources_of(kind)]
    made = {"package": package, "sources": _digests(package, sources), "members": _from_code(kind)}
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def outdated() -> dict[Path, str]:
    """Return {file: what should stand there} of the kinds whose files are not up to date."""
    wanted = {FOLDER / f"{kind}.json": _text(kind) for kind in INDEXED}
    return {
        path: text for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` say whether they are up to date; return the exit status."""
    if set(arguments) - {"--check"}:
        raise SystemExit(f"usage: {COMMAND} [--check]")
    old = outdated()
    for path, text in old.items():
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(_PACKAGE.parent)}: {'out of date' if '--check' in arguments else 'written'}")
    if old and "--check" in arguments:
        print(f"run: {COMMAND}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
