"""What each package exports, written into its ``__init__.py`` from the ``__all__`` of its modules.

    python -m flsec._exports            writes it
    python -m flsec._exports --check    fails where it is not up to date

Every package whose ``__init__.py`` has the two marker lines takes part; the rest of that file is written by hand. The
modules are read, not imported.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["outdated", "packages", "with_exports"]

ROOT = Path(__file__).resolve().parent
COMMAND = "python -m flsec._exports"
BEGIN = f"# Exports, made by `{COMMAND}` from the `__all__` of the modules here; do not edit.\n"
END = "# End of exports.\n"
WIDTH = 120


def packages(root: Path = ROOT) -> list[Path]:
    """Return the ``__init__.py`` files under ``root`` that have the markers."""
    return sorted(path for path in root.rglob("__init__.py") if BEGIN in path.read_text())


def outdated(root: Path = ROOT) -> dict[Path, str]:
    """Return {``__init__.py``: what should stand there} of the packages whose exports are not up to date."""
    wanted = {path: with_exports(path, root) for path in packages(root)}
    return {path: text for path, text in wanted.items() if path.read_text() != text}


def with_exports(init: Path, root: Path = ROOT) -> str:
    """Return the text of an ``__init__.py`` with its exports up to date.

    Raises:
        SystemExit: two places export one name, an ``__all__`` is no plain list, or a marker is missing.
    """
    before, begin, rest = init.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or "export_lazily" not in before:
        raise SystemExit(f"{init}: needs `from flsec._lazy import export_lazily`, and the line {END.strip()!r}.")
    found: dict[str, str] = {}
    for module, names in _modules(init.parent):
        for name in names:
            if name in found:
                raise SystemExit(f"{init.parent}: {found[name]}.py and {module}.py both export {name!r}; rename one.")
            found[name] = module
    own = _own_names(ast.parse(before + after))
    if both := sorted(found.keys() & own):
        raise SystemExit(f"{init}: defines {both[0]!r}, which {found[both[0]]}.py exports; rename one.")
    package = ".".join(init.parent.relative_to(root.parent).parts)
    return before + begin + _generated(package, found, own) + end + after


def _modules(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (module, its ``__all__``) of the public modules of a package, by name."""
    for path in sorted(folder.glob("[!_]*.py")):
        for statement in ast.parse(path.read_text()).body:
            target = _target(statement)
            if target is None or target[0] != "__all__":
                continue
            try:
                names = ast.literal_eval(target[1])
            except ValueError:
                raise SystemExit(f"{path}: `__all__` must be a plain list of names; it is read, not run.") from None
            yield path.stem, names


def _target(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """Return (name, value) of a plain assignment to one name."""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        return statement.target.id, statement.value
    return None


def _own_names(tree: ast.Module) -> set[str]:
    """Return the public names that the part by hand defines: registries, functions, classes."""
    names = {target[0] for target in map(_target, tree.body) if target}
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {name for name in names if not name.startswith("_")}


def _generated(package: str, exports: dict[str, str], own: set[str]) -> str:
    lines = ["if TYPE_CHECKING:"]
    for name, module in sorted(exports.items(), key=lambda item: (_order(item[1]), _order(item[0]))):
        line = f"    from {package}.{module} import {name} as {name}"
        if len(line) > WIDTH:
            line = f"    from {package}.{module} import (\n        {name} as {name},\n    )"
        lines.append(line)
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in sorted({*exports, *own}, key=_order)), "]", ""]
    lines += ["export_lazily(", "    __name__,", "    {"]
    lines += [f'        "{name}": "{exports[name]}",' for name in sorted(exports, key=_order)]
    lines += ["    },", ")"]
    return "\n".join(lines) + "\n"


def _order(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
    """Sort as ruff does: CONSTANTS, then Classes, then functions and modules; numbers by their value."""
    group = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return group, [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def main(arguments: list[str]) -> int:
    """Write the exports, or with ``--check`` say whether they are up to date; return the exit status."""
    if set(arguments) - {"--check"}:
        raise SystemExit(f"usage: {COMMAND} [--check]")
    old = outdated()
    for path, text in old.items():
        if "--check" not in arguments:
            path.write_text(text)
        print(f"{path.relative_to(ROOT.parent)}: {'out of date' if '--check' in arguments else 'written'}")
    if old and "--check" in arguments:
        print(f"run: {COMMAND}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
