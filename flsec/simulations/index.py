"""What ``flsec describe`` says, from the files of ``described`` or, where these are old, from the code.

    python -m flsec.simulations.index            writes the files
    python -m flsec.simulations.index --check    fails where they are not up to date

Where a module has changed since its kind's file was written, or one has come or gone, that kind is read from the code
instead: slower, and never out of date.
"""

import json
import sys
from pathlib import Path

from flsec.simulations.catalogue import FOLDER, INDEXED, PACKAGE, Facts, digests, indexed, is_current

__all__ = ["members", "outdated"]

COMMAND = "python -m flsec.simulations.index"


def members(kind: str) -> dict[str, Facts]:
    """Return {name: what is to be said about it} of all of a kind, from its file, or from the code if that is newer.

    Args:
        kind: one of ``INDEXED``.
    """
    return indexed(kind) if is_current(kind) else _from_code(kind)


# --- writing ----------------------------------------------------------------------------------------------------


def _from_code(kind: str) -> dict[str, Facts]:
    from flsec.simulations.facts import facts_of, members_of

    return {name: facts_of(kind, name, member) for name, member in members_of(kind).items()}


def _text(kind: str) -> str:
    """Return what is to stand in the file of a kind."""
    from flsec.simulations.facts import package_of, sources_of

    package, sources = package_of(kind), [file.relative_to(PACKAGE).as_posix() for file in sources_of(kind)]
    made = {"package": package, "sources": digests(package, sources), "members": _from_code(kind)}
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
        print(f"{path.relative_to(PACKAGE.parent)}: {'out of date' if '--check' in arguments else 'written'}")
    if old and "--check" in arguments:
        print(f"run: {COMMAND}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
