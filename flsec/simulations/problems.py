"""What is wrong with a setting and where it stands: key paths become files and lines, or the override."""

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from flsec.errors import ConfigError
from flsec.simulations.yaml_lines import KeyPath, Lines, dump

__all__ = [
    "ABSENT",
    "Findings",
    "Mend",
    "Origin",
    "Problem",
    "Problems",
    "SettingsError",
    "Unread",
    "as_yaml_data",
    "as_yaml_text",
    "blame_parameter",
    "has_yaml_notation",
    "key_text",
    "nearest",
    "nearest_key",
    "override_label",
    "problems_of",
    "say_where",
]

Result = TypeVar("Result")


class Mend(NamedTuple):
    """How a file's plain data are made readable in spite of a problem, so that what else is wrong can be seen.

    Attributes:
        path: of the key to change.
        value: in place of what is written; ``ABSENT``: none.
        hole: the key whose meaning stays unknown, so that no check may read it; None: none does.
    """

    path: KeyPath
    value: Any
    hole: KeyPath | None

    def below(self, path: KeyPath) -> "Mend":
        """Return the same seen from the section around."""
        return Mend((*path, *self.path), self.value, None if self.hole is None else (*path, *self.hole))


ABSENT = object()


class Problem(ConfigError):
    """A setting that cannot work, by its key path; ``Origin`` adds the file and the line.

    Args:
        path: of the key, or of the section around it if the key is not written.
        message: which rule, what was got and what would do.
        parameter: what it is about; by default the last key of the path.
        mend: how to read on.

    Example:
        >>> problem = Problem(("training", "learning_rate"), "learning_rate must be positive; got 0.")
        >>> problem.parameter, str(problem)
        ('learning_rate', 'learning_rate must be positive; got 0.')
    """

    def __init__(self, path: KeyPath, message: str, *, parameter: str | None = None, mend: Mend | None = None):
        super().__init__(message, parameter=_last_key(path) if parameter is None else parameter)
        self.path = path
        self.mend = mend


class Problems(ConfigError):
    """Several settings that cannot work.

    Args:
        problems: each a ``Problem``, or another ``ConfigError`` whose message says where.

    Example:
        >>> both = Problems([Problem(("seed",), "seed is wrong."), Problem(("name",), "name is wrong.")])
        >>> len(both.problems), both.parameter
        (2, 'seed')
    """

    def __init__(self, problems: Sequence[ConfigError]):
        super().__init__("\n".join(map(str, problems)), parameter=problems[0].parameter)
        self.problems = tuple(problems)


class SettingsError(ConfigError):
    """All that is wrong with an experiment's settings.

    Attributes:
        messages: one sentence or two each, with file and line, in the order of the file.
    """

    def __init__(self, messages: Sequence[str], parameter: str | None):
        super().__init__("\n".join(messages), parameter=parameter)
        self.messages = tuple(messages)


class Unread(Exception):
    """A check asks for a setting that is itself wrong: what it would say is not known."""


def problems_of(error: ConfigError) -> tuple[ConfigError, ...]:
    """Return the single problems of an error.

    Example:
        >>> both = Problems([Problem(("seed",), "seed is wrong."), Problem(("name",), "name is wrong.")])
        >>> [str(problem) for problem in problems_of(both)]
        ['seed is wrong.', 'name is wrong.']
    """
    if isinstance(error, SettingsError):
        return tuple(ConfigError(message, parameter=error.parameter) for message in error.messages)
    return error.problems if isinstance(error, Problems) else (error,)


class Findings:
    """Problems of checks that do not depend on each other: ``with findings: check()`` goes on after each.

    Example:
        >>> findings = Findings()
        >>> for key in ("seed", "name"):
        ...     with findings:
        ...         raise Problem((key,), f"{key} is wrong.")
        >>> findings.raise_all()
        Traceback (most recent call last):
        flsec.simulations.problems.Problems: seed is wrong.
        name is wrong.
    """

    def __init__(self) -> None:
        self.problems: list[ConfigError] = []
        self._seen: set[tuple[KeyPath, str]] = set()

    def add(self, error: ConfigError) -> None:
        """Keep the problems of an error, of each setting the first: what else is said of it may follow from that."""
        for problem in problems_of(error):
            key = (problem.path, str(problem.parameter)) if isinstance(problem, Problem) else ((), str(problem))
            if key not in self._seen:
                self._seen.add(key)
                self.problems.append(problem)

    def __enter__(self) -> "Findings":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if isinstance(error, ConfigError):
            self.add(error)
        return isinstance(error, ConfigError | Unread)

    def raise_all(self) -> None:
        """Raise what was found: one as it is, several as ``Problems``."""
        if len(self.problems) == 1 and isinstance(self.problems[0], Problem):
            raise self.problems[0]
        if self.problems:
            raise Problems(self.problems)


@dataclass(frozen=True)
class Origin:
    """Where settings come from. No part of what a config is: two from different files can be equal."""

    file: str = field(compare=False)
    lines: Lines = field(default_factory=dict, compare=False)
    overrides: dict[KeyPath, str] = field(default_factory=dict, compare=False)

    def locate(self, path: KeyPath) -> str:
        """Return ``FILE:LINE`` or ``--set ...`` of a key, or of the nearest section around it that is written."""
        near = self._written(path)
        return override_label(self.overrides[near]) if near in self.overrides else f"{self.file}:{self.line(path)}"

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest section around it that is written; 1 for an override."""
        return self.lines.get(self._written(path), 1)

    def _written(self, path: KeyPath) -> KeyPath:
        known = (path[:length] for length in range(len(path), 0, -1))
        return next((part for part in known if part in self.overrides or part in self.lines), ())


def override_label(text: str) -> str:
    """Return ``--set key=value`` as messages show it: in one printable line of bounded length.

    Example:
        >>> override_label("seed=3")
        '--set seed=3'
    """
    plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"--set {plain if len(plain) <= _LONGEST_LABEL else f'{plain[:_LONGEST_LABEL]} ...'}"


_LONGEST_LABEL = 100  # characters; a whole list of defenses is longer


@contextlib.contextmanager
def say_where(origin: Origin) -> Iterator[None]:
    """Turn problems into one error that says where each is, in the order of the file."""
    try:
        yield
    except (Problem, Problems) as error:
        problems = problems_of(error)
        lines = [origin.line(problem.path) if isinstance(problem, Problem) else 0 for problem in problems]
        order = sorted(range(len(problems)), key=lambda number: lines[number])
        messages = [_located(problems[number], origin) for number in order]
        raise SettingsError(list(dict.fromkeys(messages)), problems[order[0]].parameter) from None


def _located(problem: ConfigError, origin: Origin) -> str:
    if not isinstance(problem, Problem):
        return str(problem)
    name = key_text(problem.path)
    return f"{origin.locate(problem.path)}: {name}: {problem}" if name else f"{origin.locate(problem.path)}: {problem}"


def key_text(path: KeyPath) -> str:
    """Return a key path as messages print it and ``--set`` takes it.

    Example:
        >>> key_text(("defenses", 0, "beta"))
        'defenses[0].beta'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


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
    except (Problem, Problems):
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
    """Return a hint such as " Did you mean 'krum'?", or nothing if no known name is near.

    Example:
        >>> nearest("krumm", ["krum", "median"])
        " Did you mean 'krum'?"
    """
    near = nearest_key(key, known)
    return f" Did you mean {near!r}?" if near else ""


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the known name that is nearest, if any is near.

    Example:
        >>> nearest_key("krumm", ["krum", "median"]), nearest_key("xyz", ["krum", "median"])
        ('krum', None)
    """
    return next(iter(difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)), None)


def as_yaml_text(value: Any) -> str:
    """Return a value as a YAML file would have it, in one line.

    Example:
        >>> as_yaml_text({"name": "krum", "num_byzantine": 2})
        '{name: krum, num_byzantine: 2}'
    """
    return dump(as_yaml_data(value), flow=True) if has_yaml_notation(value) else repr(value)


def has_yaml_notation(value: Any) -> bool:
    """Whether YAML has a notation for the value.

    Example:
        >>> has_yaml_notation([1, None]), has_yaml_notation(object())
        (True, False)
    """
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and has_yaml_notation(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(map(has_yaml_notation, value))
    return value is None or type(value) in (bool, int, float, str)


def as_yaml_data(value: Any) -> Any:
    """Return a deep copy in which tuples are lists, as YAML has them.

    Example:
        >>> as_yaml_data({"seeds": (1, 2)})
        {'seeds': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: as_yaml_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_yaml_data(entry) for entry in value]
    return value
