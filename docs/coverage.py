"""What the documentation of flsec's public items holds.

    python -m docs.coverage                      shares, one line a package
    python -m docs.coverage --without examples   the items that lack examples (or shapes, sources, raises)

An item is a class or a function that the ``__all__`` of a public module names. It counts for what its own docstring
says. Documented must be, beside the items, the public methods that a class defines.
"""

import importlib
import inspect
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flsec

__all__ = ["MARKS", "has", "public_items", "shares", "undocumented"]

_LENGTH = r"\*?(?:\d+|[A-Za-z]\w?|(?:num|input|vocab|batch|image)_\w+|height|width|channels|\w* ?[-+*/] ?\w*)"
MARKS = {
    "shapes": re.compile(rf"\((?!0)(?:\.\.\., )?{_LENGTH},(?: {_LENGTH},?)*\)"),
    "sources": re.compile(r"^Sources?:", flags=re.MULTILINE),
    "raises": re.compile(r"^Raises:", flags=re.MULTILINE),
    "examples": re.compile(r"^ *>>> ", flags=re.MULTILINE),
}


def has(item: Any, mark: str) -> bool:
    """Say whether an item's docstring has shapes, sources, raises or examples.

    Example:
        >>> from flsec.aggregation.krum import krum
        >>> has(krum, "shapes"), has(krum, "raises")
        (True, True)
    """
    text = inspect.getdoc(item) or ""
    if mark == "shapes":  # a tuple in an example is none
        text = re.sub(r"^ *>>> .*\n(?: *\S.*\n?)*", "", text, flags=re.MULTILINE)
    return bool(MARKS[mark].search(text))


def public_items() -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, class or function) of all that public modules define and export, by name."""
    root = Path(flsec.__file__).parent
    for path in sorted(root.rglob("[!_]*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        if any(part.startswith("_") for part in parts):
            continue
        module = importlib.import_module(".".join(parts))
        for name in getattr(module, "__all__", ()):
            item = getattr(module, name)
            if (inspect.isclass(item) or inspect.isroutine(item)) and item.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", item


def undocumented() -> list[str]:
    """Return the items, and public methods of classes among them, that have no docstring of their own."""
    missing = []
    for name, item in public_items():
        own = {name: item}
        if inspect.isclass(item):
            own |= {f"{name}.{key}": value for key, value in vars(item).items() if _is_method(key, value)}
        missing += [key for key, value in own.items() if not (value.__doc__ or "").strip()]
    return missing


def _is_method(name: str, value: Any) -> bool:
    callables = (property, classmethod, staticmethod)
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, callables))


def shares() -> dict[str, dict[str, float]]:
    """Return {package: {mark: share of its items that have it}}, and the same of all together.

    ``"library"`` is all but ``simulations``: what programs import, and what is compared with other libraries. The
    simulator's modules are behind a command, and few of their functions have to do with arrays or papers.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, item in public_items():
        package = name.split(".")[1]
        for group in (package, "all", *([] if package == "simulations" else ["library"])):
            counts[group].update(["items", *(mark for mark in MARKS if has(item, mark))])
    return {package: {mark: count[mark] / count["items"] for mark in MARKS} for package, count in counts.items()}


def main(arguments: list[str]) -> None:
    """Print the shares, or the items that lack something."""
    if arguments[:1] == ["--without"]:
        print("\n".join(name for name, item in public_items() if not has(item, arguments[1])))
        return
    print(f"{'':16}" + "".join(f"{mark:>10}" for mark in MARKS))
    for package, share in shares().items():
        print(f"{package:16}" + "".join(f"{share[mark]:>10.1%}" for mark in MARKS))
    print("\n".join([f"undocumented: {len(undocumented())}", *undocumented()]))


if __name__ == "__main__":
    main(sys.argv[1:])
