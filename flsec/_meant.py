"""What was meant by a name that is not there: in another package, or spelt in another way."""

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

__all__ = ["meant_module", "meant_name", "say_meant_modules"]

# With exports, in the order in which a name is looked for; none of them loads its modules.
_PACKAGES = (
    "strategies",
    "client_apps",
    "aggregation",
    "attacks",
    "reconstruction",
    "metrics",
    "models",
    "tasks",
    "data",
    "data.datasets",
    "data.partitioners",
)
_ALSO_CALLED = {
    "aggregators": "aggregation",
    "clients": "client_apps",
    "datasets": "data.datasets",
    "decorators": "client_apps",
    "defences": "strategies",
    "defense": "strategies",
    "defenses": "strategies",
    "mods": "client_apps",
    "partitioners": "data.partitioners",
    "simulation": "simulations",
}


def meant_name(package: str, name: str) -> str:
    """Return a sentence that says where a name is to be found, to go behind another; or nothing.

    Args:
        package: where it is not.
        name: as it was written.

    Example:
        >>> meant_name("flsec.strategies", "FlTrust")
        '. Did you mean FLTrust? from flsec.strategies import FLTrust'
        >>> meant_name("flsec.strategies", "SignFlipping")
        '. It is in flsec.client_apps: from flsec.client_apps import SignFlipping'
    """
    if name.startswith("_"):
        return ""
    places = [package, *(place for other in _PACKAGES if (place := f"flsec.{other}") != package)]
    exports = {place: list(getattr(importlib.import_module(place), "__all__", ())) for place in places}
    for place, names in exports.items():
        if name in names:
            return f". It is in {place}: from {place} import {name}"
    if found := _same_letters(name, exports[package]):
        return f". Did you mean {found}? from {package} import {found}"
    if importlib.util.find_spec(f"{package}.{name}") is not None:
        return f". It is a module: import {package}.{name}"
    for search in (_same_letters, _near):
        for place, names in exports.items():
            if found := search(name, names):
                return f". Did you mean {found}? from {place} import {found}"
    return meant_module(f"{package}.{name}")


def _same_letters(name: str, names: Iterable[str]) -> str | None:
    """Return the class of this spelling, or else the function: upper case and underscores do not matter."""
    wanted = name.replace("_", "").lower()
    found = [known for known in names if known.replace("_", "").lower() == wanted]
    return max(found, key=lambda known: known[0].isupper() == name[0].isupper(), default=None)


def _near(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)), None)


def meant_module(module: str) -> str:
    """Return a sentence that says which module was meant, to go behind another; or nothing.

    Example:
        >>> meant_module("flsec.strategies.krumm")
        '. Did you mean flsec.strategies.krum?'
        >>> meant_module("flsec.defenses")
        '. Did you mean flsec.strategies?'
    """
    package, _, name = module.rpartition(".")
    if package == "flsec" and name in _ALSO_CALLED:
        return f". Did you mean flsec.{_ALSO_CALLED[name]}?"
    path = getattr(sys.modules.get(package), "__path__", None)
    if path is None:
        return ""
    names = [info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_")]
    names += [folder.name for place in path for folder in Path(place).iterdir() if folder.is_dir()]  # of no __init__.py
    found = _same_letters(name, names) or _near(name, names)
    return f". Did you mean {package}.{found}?" if found else ""


class _Meant:
    """The last of all finders: nobody knows this module of ours."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Refuse an import with a sentence; to whoever only asks whether a module is there, say no."""
        asks = sys._getframe(2).f_code.co_name != "_find_and_load_unlocked"
        if asks or not name.startswith("flsec.") or not (sentence := meant_module(name)):
            return None
        raise ModuleNotFoundError(f"No module named {name!r}{sentence}", name=name)


def say_meant_modules() -> None:
    """Have every import of a module that flsec has not say which was meant."""
    if not any(getattr(finder, "__name__", "") == _Meant.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_Meant)
