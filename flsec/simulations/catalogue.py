"""What can be named, and what is to be said about it, read from files: looking something up imports none of it.

A file of ``described`` holds all of one kind, and a digest of each module that it was made from. ``index`` writes them.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "INDEXED", "PACKAGE", "Facts", "digests", "indexed", "is_current"]

FOLDER = Path(__file__).parent / "described"
INDEXED = ("defenses", "attacks", "strategies", "datasets", "partitioners", "models", "tasks", "sections")
PACKAGE = Path(__file__).parents[1]

Facts = dict[str, Any]


def indexed(kind: str) -> dict[str, Facts]:
    """Return all of a kind as it was when its file was written: for hints and for completion."""
    found: dict[str, Facts] = _read(kind)["members"]
    return found


def is_current(kind: str) -> bool:
    """Return whether the modules that a kind's file was made from are as they were, and no others have come."""
    written = _read(kind)
    return bool(written["sources"] == digests(written["package"], written["sources"]))


@functools.cache
def _read(kind: str) -> dict[str, Any]:
    file = FOLDER / f"{kind}.json"
    if not file.is_file():
        return {"package": None, "sources": {"": "none"}, "members": {}}
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def digests(package: str | None, sources: Iterable[str]) -> dict[str, str]:
    """Return {module: digest} as it is now, of these modules and of all public ones of a package."""
    files = {PACKAGE / name for name in sources} | set((PACKAGE / package).glob("[!_]*.py") if package else ())
    return {file.relative_to(PACKAGE).as_posix(): _digest(file) for file in sorted(files) if file.is_file()}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:12]
