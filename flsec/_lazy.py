"""Packages whose exports are imported when they are asked for, so that a package costs only what is used of it."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flsec._calls import explained

__all__ = ["export_lazily"]


class _NoSuchName:
    """A message that says what was meant, as soon as somebody reads it: ``hasattr`` does not."""

    def __init__(self, package: str, name: str):
        self._package = package
        self._name = name

    def __str__(self) -> str:
        from flsec._meant import meant_name

        return f"module {self._package!r} has no attribute {self._name!r}{meant_name(self._package, self._name)}"

    __repr__ = __str__


class _LazyPackage(ModuleType):
    """A package that looks an export up in its module at every access.

    Nothing is kept in the package itself: what is done to a module (``reload``, ``mock.patch``) is seen here too.
    """

    _lazy_exports: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._lazy_exports:
            if _is_from_import() and importlib.util.find_spec(f"{self.__name__}.{name}") is None:
                from flsec._meant import meant_name

                text = f"cannot import name {name!r} from {self.__name__!r}{meant_name(self.__name__, name)}"
                raise ImportError(text, name=self.__name__)
            raise AttributeError(_NoSuchName(self.__name__, name), name=name)
        module = importlib.import_module(f"{self.__name__}.{self._lazy_exports[name]}")
        try:
            found = getattr(module, name)
            return explained(found) if isinstance(found, type) else found
        except AttributeError as error:  # as ImportError: `from package import name` would try a module of that name
            raise ImportError(
                f"{module.__name__} has no {name!r} (yet). Either two modules import each other: import from the "
                "module, not from the package. Or the list of exports is old: run `python -m flsec._exports`.",
                name=module.__name__,
            ) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; but a submodule named like an export, set by the import system, does not take its place."""
        if not (name in self._lazy_exports and _is_submodule(value, self.__name__)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._lazy_exports})

    def __reduce__(self) -> tuple[Any, ...]:  # cloudpickle knows plain modules only
        return importlib.import_module, (self.__name__,)


def _is_from_import() -> bool:
    """Whether ``from package import name`` asks: an AttributeError would be lost, and its sentence with it."""
    return sys._getframe(2).f_code.co_name == "_handle_fromlist"


def _is_submodule(value: Any, package: str) -> bool:
    return isinstance(value, ModuleType) and value.__name__.rpartition(".")[0] == package


def export_lazily(package: str, exports: Mapping[str, str]) -> None:
    """Let ``package`` export names of its modules, each imported when it is first asked for.

    An export may have its module's name: ``flsec.aggregation.krum`` is the function, whatever was imported before, and
    ``from flsec.aggregation.krum import krum_scores`` goes on working.

    Args:
        package: ``__name__`` of the package that calls.
        exports: {exported name: its module in the package}; written by ``python -m flsec._exports``.
    """
    module = sys.modules[package]
    for name in exports:
        if _is_submodule(vars(module).get(name), package):  # imported by the package's own file, before this call
            delattr(module, name)
    vars(module)["_lazy_exports"] = exports
    module.__class__ = _LazyPackage
