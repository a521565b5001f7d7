"""Packages whose exports are imported when they are asked for, so that a package costs only what is used of it."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["export_lazily"]


class _LazyPackage(ModuleType):
    """A package that looks an export up in its module at every access.

    Nothing is kept in the package itself: what is done to a module (``reload``, ``mock.patch``) is seen here too.
    """

    _exports: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._exports:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        module = importlib.import_module(f"{self.__name__}.{self._exports[name]}")
        try:
            return getattr(module, name)
        except AttributeError as error:  # as ImportError: `from package import name` would try a module of that name
            raise ImportError(
                f"{module.__name__} has no {name!r} (yet). Either two modules import each other: import from the "
                "module, not from the package. Or the list of exports is old: run `python -m flsec._exports`.",
                name=module.__name__,
            ) from error

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; but a submodule named like an export, set by the import system, does not take its place."""
        if not (name in self._exports and _is_submodule(value, self.__name__)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._exports})

    def __reduce__(self) -> tuple[Any, ...]:  # cloudpickle knows plain modules only
        return importlib.import_module, (self.__name__,)


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
    vars(module)["_exports"] = exports
    module.__class__ = _LazyPackage
