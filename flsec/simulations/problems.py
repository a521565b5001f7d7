"""What is wrong with a setting and where it stands: key paths become files and lines, or the override."""

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flsec.errors import ConfigError
from flsec.simulations.yaml_lines import KeyPath, Lines, dump

__all__ = [
    "Origin",
    "Problem",
    "as_yaml_data",
    "as_yaml_text",
    "blame_parameter",
    "has_yaml_notation",
    "nearest",
    "override_label",
    "say_where",
]

Result = TypeVar("Result")


class Problem(ConfigError):
    """A setting that cannot work, by its key path; ``Origin`` adds the file and the line.

    Args:
        path: of the key, or of the section around it if the key is not written.
        message: which rule, what was got and what would do.
        parameter: what it is about; by default the last key of the path.
    """

    def __init__(self, path: KeyPath, message: str, *, parameter: str | None = None):
        super().__init__(message, parameter=_last_key(path) if parameter is None else parameter)
        self.path = path


@dataclass(frozen=True)
class Origin:
    """Where settings come from. No part of what a config is: two from different files can be equal."""

    file: str = field(compare=False)
    lines: Lines = field(default_factory=dict, compare=False)
    overrides: dict[KeyPath, str] = field(default_factory=dict, compare=False)

    def locate(self, path: KeyPath) -> str:
        """Return ``FILE:LINE`` or ``--set ...`` of a key, or of the nearest section around it that is written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return override_label(self.overrides[path[:length]])
            if path[:length] in self.lines:
                return f"{self.file}:{self.lines[path[:length]]}"
        return f"{self.file}:1"


def override_label(text: str) -> str:
    """Return ``--set key=value`` as messages show it: in one printable line of bounded length."""
    plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"--set {plain if len(plain) <= _LONGEST_LABEL else f'{plain[:_LONGEST_LABEL]} ...'}"


_LONGEST_LABEL = 100  # characters; a whole list of defenses is longer


@contextlib.contextmanager
def say_where(origin: Origin) -> Iterator[None]:
    """Turn a problem into an error that says where."""
    try:
        yield
    except Problem as problem:
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem.path)[1:]
        where = f"{origin.locate(problem.path)}: {name}: " if name else f"{origin.locate(problem.path)}: "
        raise ConfigError(f"{where}{problem}", parameter=problem.parameter) from None


def blame_parameter(
    path: KeyPath, writable: Collection[str], build: Callable[..., Result], *args: Any, **kwargs: Any
) -> Result:
    """Call ``build``; if it refuses, name the parameter that its error is about, where a file may say that one.

    Args:
        path: of the section that describes what is built.
        writable: the keys that may stand in this section.
        build: what to call.
        *args: for ``build``.
        **kwargs: for ``build``.
    """
    try:
        return build(*args, **kwargs)
    except Problem:
        raise
    except ConfigError as error:
        key = (error.parameter,) if error.parameter in writable else ()
        raise Problem((*path, *key), _without_title(str(error))) from None


def _without_title(message: str) -> str:
    """Leave out who says it, as in ``Adversaries: ...``, since the key path says that."""
    title, colon, rest = message.partition(": ")
    return rest if colon and title.isidentifier() else message


def _last_key(path: KeyPath) -> str | None:
    return next((part for part in reversed(path) if isinstance(part, str)), None)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return a hint such as " Did you mean 'krum'?", or nothing if no known name is near."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_yaml_text(value: Any) -> str:
    """Return a value as a YAML file would have it, in one line."""
    return dump(as_yaml_data(value), flow=True) if has_yaml_notation(value) else repr(value)


def has_yaml_notation(value: Any) -> bool:
    """Whether YAML has a notation for the value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and has_yaml_notation(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(map(has_yaml_notation, value))
    return value is None or type(value) in (bool, int, float, str)


def as_yaml_data(value: Any) -> Any:
    """Return a deep copy in which tuples are lists, as YAML has them."""
    if isinstance(value, Mapping):
        return {key: as_yaml_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_yaml_data(entry) for entry in value]
    return value
