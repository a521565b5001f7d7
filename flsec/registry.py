"""Named things (defenses, attacks, data sets, ...) found by importing the modules of a package.

Nothing is listed by hand: a new file in the package, with an ``__all__``, is enough.
"""

import difflib
import functools
import importlib.util
import inspect
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flsec.errors import ConfigError
from flsec.parameters import check_parameters, parameters_of, say_nearest

__all__ = ["Registry", "find_spelling", "say_usual_name", "yaml_name"]

logger = logging.getLogger("flsec")


def yaml_name(member: Any) -> str:
    """Return the YAML name of a class or function: that of its file where the file is named after it, else snake case.

    ``MultiKrum`` in ``multi_krum.py`` is ``multi_krum``, and ``FoolsGold`` in ``foolsgold.py`` is ``foolsgold``: one
    spelling in every room.

    Example:
        >>> from flsec.strategies import FoolsGold, MultiKrum
        >>> yaml_name(MultiKrum), yaml_name(FoolsGold)
        ('multi_krum', 'foolsgold')
    """
    file = member.__module__.rpartition(".")[2]
    return file if file.replace("_", "") == member.__name__.lower() else snake_case(member.__name__)


def snake_case(name: str) -> str:
    """Return a class's name as a file would have it: ``MultiKrum`` -> ``multi_krum``, ``ALIE`` -> ``alie``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _exported(package: str) -> Iterator[Any]:
    """Import the public modules directly in a package and yield what their ``__all__`` names; for a module, its own."""
    parent = importlib.import_module(package)
    names = sorted(info.name for info in pkgutil.iter_modules(getattr(parent, "__path__", [])) if not info.ispkg)
    inside = [importlib.import_module(f"{package}.{name}") for name in names if not name.startswith("_")]
    for module in inside if hasattr(parent, "__path__") else [parent]:
        for name in getattr(module, "__all__", ()):
            yield getattr(module, name)


def _look_in_current_directory() -> None:
    """Let modules of the current directory be imported, as ``python -m`` does and a console script does not.

    After all others, so that no file there hides an installed package. Done wherever a name is looked up, so that
    worker processes do as well.
    """
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)
        importlib.invalidate_caches()


def find_spelling(written: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that differs from what was written in underscores and upper case alone, if any.

    Example:
        >>> find_spelling("fools_gold", ["foolsgold", "krum"])
        'foolsgold'
    """
    wanted = written.replace("_", "").lower()
    return next((name for name in names if name.replace("_", "").lower() == wanted), None)


@functools.cache  # once for each spelling, however often the name is looked up
def say_usual_name(kind: str, written: str, usual: str) -> None:
    """Log that a name is spelt in another way, unless it differs in what has never mattered."""
    if written not in (usual, usual.replace("_", "")) and written.islower():
        logger.warning("%s %r is now spelt %r; the old name goes on working.", kind, written, usual)


class Registry:
    """The members of one package by their YAML names.

    Args:
        kind: what messages call a member, such as ``"defense"``.
        package: dotted name of a package whose public modules are looked through, or of one module; imported at first
            use, and nothing beside it.
        is_member: which of the objects that an ``__all__`` names count.
        rule: what a member must be, for messages.

    Raises:
        ConfigError: by ``get``: no member has the name, or what a dotted name leads to is none.

    Example:
        >>> attacks = Registry("attack", "flsec.attacks.sign_flipping")
        >>> attacks.get("sign_flipping").__name__
        'sign_flipping'
    """

    def __init__(
        self, kind: str, package: str, is_member: Callable[[Any], bool] = callable, rule: str = "a class or a function"
    ):
        self.kind = kind
        self.package = package
        self._is_member = is_member
        self._rule = rule

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield (YAML name, object), sorted by name."""
        found = {yaml_name(member): member for member in _exported(self.package) if self._is_member(member)}
        yield from sorted(found.items())

    def names(self) -> list[str]:
        """Return the YAML names, sorted."""
        return [name for name, _ in self.items()]

    def get(self, name: str) -> Any:
        """Return the member called ``name``.

        ``multi_krum``, ``MultiKrum`` and ``multikrum`` are the same; ``package.module:Name`` is imported, also
        from the current directory. Another spelling than the usual one works, and the log says once which that is.

        Raises:
            ConfigError: there is none; the message gives the nearest names.
        """
        if ":" in name:
            return self._import(name)
        if member := self._in_own_file(name):
            return member
        members = dict(self.items())
        if usual := find_spelling(name, members):
            say_usual_name(self.kind, name, usual)
            return members[usual]
        names = list(members)
        near = difflib.get_close_matches(snake_case(name), names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no {self.kind} {name!r}.{hint} Known: {', '.join(names)}.")

    def _in_own_file(self, name: str) -> Any:
        """Return the member in the file of its name, if there is one: no other file is imported for it."""
        if not name.isidentifier() or name.startswith("_"):
            return None
        parent = importlib.import_module(self.package)
        if not hasattr(parent, "__path__") or importlib.util.find_spec(f"{self.package}.{name}") is None:
            return None
        module = importlib.import_module(f"{self.package}.{name}")
        members = [getattr(module, key) for key in getattr(module, "__all__", ())]
        return next((member for member in members if self._is_member(member) and yaml_name(member) == name), None)

    def _import(self, path: str) -> Any:
        module_name, _, attribute = path.partition(":")
        _look_in_current_directory()
        try:
            member = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: ".a:B" and ":B"
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            where = ""
            if missing == module_name.partition(".")[0]:
                where = (
                    f" It is looked for among installed packages, then in the current directory, {os.getcwd()}. Go to "
                    f"the folder that holds {missing}, or put that into PYTHONPATH."
                )
            reason = str(error).rstrip(".")
            raise ConfigError(f"{self.kind} {path!r} cannot be imported: {reason}.{where}") from error
        if not self._is_member(member):
            got = f"the {type(member).__name__} {getattr(member, '__name__', member)!r:.80}"
            raise ConfigError(f"{path!r} is no {self.kind}, which must be {self._rule}; got {got}.")
        return member

    def check(self, name: str, params: dict[str, Any], supplied: tuple[str, ...] = ()) -> Any:
        """Return the member after checking ``params`` against its signature, without calling it.

        Args:
            name: YAML name.
            params: what the user wrote.
            supplied: parameters that the caller will add itself; a user may not write them.
        """
        member = self.get(name)
        title = yaml_name(member)
        known = {key: value for key, value in parameters_of(member).items() if key not in supplied}
        for key in params:
            if key not in known:
                hint = say_nearest(key, known)
                takes = ", ".join(known) or "none"
                raise ConfigError(
                    f"{self.kind} {title!r} has no parameter {key!r}.{hint} It takes: {takes}.", parameter=key
                )
        for key, (_, parameter) in known.items():
            if parameter.default is inspect.Parameter.empty and key not in params:
                raise ConfigError(f"{self.kind} {title!r} needs the parameter {key!r}.", parameter=key)
        check_parameters(member, params, name=f"{self.kind} {title!r}")
        return member

    def build(self, name: str, params: dict[str, Any], **supplied: Any) -> Any:
        """Check ``params`` and call the member with them and with ``supplied``."""
        member = self.check(name, params, tuple(supplied))
        return member(**supplied, **params)
