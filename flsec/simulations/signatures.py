"""Models of what may be written, read from signatures, and their errors as sentences: which rule, and what would do."""

import contextlib
import copy
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError

from flsec.parameters import describe_type, nearest_parameter, parameters_of, say_nearest
from flsec.simulations.problems import (
    ABSENT,
    Findings,
    Mend,
    Problem,
    Problems,
    as_yaml_data,
    as_yaml_text,
    has_yaml_notation,
    problems_of,
)
from flsec.simulations.yaml_lines import KeyPath, dump

__all__ = [
    "example_of",
    "example_value",
    "field_type",
    "fields_of",
    "parameters_model",
    "problems_in",
    "validate",
    "validate_as_far",
    "values_with_defaults",
]


@functools.cache
def parameters_model(member: Any, supplied: tuple[str, ...] = ()) -> type[BaseModel]:
    """Return a model of the parameters in a signature, less those that the simulation supplies.

    Example:
        >>> from flsec.aggregation.krum import krum
        >>> list(parameters_model(krum, supplied=("updates",)).model_fields)
        ['num_byzantine', 'num_neighbors', 'unsafe']
    """
    fields: dict[str, Any] = {
        name: (_checkable(hint), ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, (hint, parameter) in parameters_of(member).items()
        if name not in supplied and not name.startswith("_")
    }
    return create_model(member.__name__, __config__=_SETTINGS | {"extra": "forbid"}, **fields)


_SETTINGS = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=())


def _checkable(hint: Any) -> Any:
    """Return a type, or ``Any`` where pydantic cannot check it, as in a strategy of somebody else's."""
    try:
        _probe(hint)
    except (PydanticUserError, SchemaError):
        return Any
    return hint


def _probe(hint: Any) -> type[BaseModel]:
    """Return a model with one field of this type; unlike a TypeAdapter it takes dataclasses."""
    return create_model("Probe", __config__=_SETTINGS, value=(hint, ...))


def values_with_defaults(
    model: type[BaseModel], given: Mapping[str, Any], legal: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return plain values of all fields, the defaults filled in; ``legal`` are keys that may stand beside them.

    Example:
        >>> from flsec.aggregation.krum import krum
        >>> values_with_defaults(parameters_model(krum, supplied=("updates",)), {"num_byzantine": 2})
        {'num_neighbors': None, 'unsafe': False, 'num_byzantine': 2}
    """
    validate(model, dict(given), legal)
    defaults = {name: info.default for name, info in model.model_fields.items() if not info.is_required()}
    written = {name: value for name, value in defaults.items() if has_yaml_notation(value)} | dict(given)
    values: dict[str, Any] = as_yaml_data(written)
    return values


def validate(model: Any, given: dict[str, Any], legal: tuple[str, ...] = ()) -> Any:
    """Return the model made from ``given``; ``Problem`` or ``Problems`` say all that is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        findings = Findings()
        for problem in problems_in(model, error.errors(), legal):
            findings.add(problem)
        findings.raise_all()
        raise


def validate_as_far(model: Any, given: dict[str, Any], findings: Findings) -> tuple[Any, list[KeyPath]]:
    """Return the model made from ``given`` with what is wrong mended, and the paths of what could not be read.

    Args:
        model: the class.
        given: plain data; not modified.
        findings: where the problems go.

    Returns:
        The model, or None if what is wrong leaves nothing to read; and the paths of values that stand in for others.
    """
    data, holes = copy.deepcopy(given), list[KeyPath]()
    for _ in range(_MOST_MENDS):
        try:
            return model.model_validate(data), holes
        except ValidationError as error:
            for problem in problems_in(model, error.errors()):
                place = problem.mend.hole if problem.mend and problem.mend.hole else problem.path
                if problem.mend is None or problem.mend.value is ABSENT or not _is_below(place, holes):
                    findings.add(problem)
                if problem.mend is None or not _mend(data, problem.mend):
                    return None, []
                misspelt = problem.mend.value is ABSENT
                if problem.mend.hole is not None and not (misspelt and _is_written(data, problem.mend.hole)):
                    holes.append(problem.mend.hole)
    return None, []


def _is_below(path: KeyPath, holes: Iterable[KeyPath]) -> bool:
    return any(path[: len(hole)] == hole for hole in holes)


def _is_written(data: Any, path: KeyPath) -> bool:
    for part in path:
        try:
            data = data[part]
        except (IndexError, KeyError, TypeError):
            return False
    return True


_MOST_MENDS = 8  # what is wrong further inside is seen when what is around it has been mended


def _mend(data: Any, mend: Mend) -> bool:
    """Change plain data in place, if they have such a place."""
    *above, last = mend.path
    try:
        for part in above:
            data = data[part]
        if mend.value is ABSENT:
            data.pop(last, None)
        else:
            data[last] = copy.deepcopy(mend.value)
    except (AttributeError, IndexError, KeyError, TypeError):
        return False
    return True


def problems_in(model: type[BaseModel], errors: Sequence[Any], legal: tuple[str, ...] = ()) -> list[Problem]:
    """Put errors into sentences, one a key; an unknown key goes first, and in place of a missing one near it."""
    found: dict[KeyPath, list[Problem]] = {}
    meant: set[KeyPath] = set()
    for error in sorted(errors, key=lambda entry: entry["type"] != "extra_forbidden"):
        path, owner, hint = _find(model, error["loc"])
        if path in found or (error["type"] == "missing" and path in meant):
            continue
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, Problem | Problems):
            found[path] = [
                _below(path, problem, owner) for problem in problems_of(cause) if isinstance(problem, Problem)
            ]
        elif error["type"] == "extra_forbidden":
            known = [*legal, *fields_of(owner)]
            near = nearest_parameter(str(path[-1]), known)
            hole = None if near is None else (*path[:-1], near)
            meant |= {hole} if hole else set()
            text = f"no such key.{say_nearest(str(path[-1]), known)} Legal here: {', '.join(known) or 'none'}."
            found[path] = [Problem(path, text, mend=Mend(path, ABSENT, hole))]
        else:
            in_union = sum(_find(model, other["loc"])[0] == path for other in errors) > 1
            found[path] = [_problem(error, path, owner, hint, in_union)]
    return [problem for problems in found.values() for problem in problems]


def _below(path: KeyPath, problem: Problem, owner: type[BaseModel]) -> Problem:
    """Return a problem of what stands at a path as one of the whole."""
    mend = _replaced(path, owner) if problem.mend is None else problem.mend.below(path)
    return Problem((*path, *problem.path), str(problem), parameter=problem.parameter, mend=mend)


def _problem(error: Any, path: KeyPath, owner: type[BaseModel], hint: Any, in_union: bool) -> Problem:
    key, mend = _key_of(path), _replaced(path, owner)
    example = dump({key: example_of(owner, key)}, flow=True)[1:-1]
    if error["type"] == "missing":
        return Problem(path[:-1], f"{key} is missing. For example: {example}", parameter=key, mend=mend)
    rule = describe_type(hint) if in_union else _rule(error, hint)
    return Problem(path, f"must be {rule}; got {as_yaml_text(error['input'])}. For example: {example}", mend=mend)


def _key_of(path: KeyPath) -> str:
    return next((str(part) for part in reversed(path) if isinstance(part, str)), "")


def _replaced(path: KeyPath, owner: type[BaseModel]) -> Mend | None:
    """Return how an example takes the place of a value: of one entry of a list, where the example is a list of such."""
    key = _key_of(path)
    if key not in fields_of(owner):
        return None
    example = example_of(owner, key)
    if len(path) > 1 and path[-2] == key and isinstance(example, list | tuple) and example:
        return Mend(path, example[0], path)
    at = path[: len(path) - path[::-1].index(key)]
    return Mend(at, example, at)


def _find(model: type[BaseModel], loc: Iterable[str | int]) -> tuple[KeyPath, type[BaseModel], Any]:
    """Return the key path that pydantic's location stands for, the model that has the key, and the type there."""
    path: KeyPath = ()
    owner: type[BaseModel] = model
    hint: Any = model
    for part in loc:
        bare = _bare(hint)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            owner, info = bare, fields_of(bare).get(str(part))
            hint = Any if info is None else field_type(info)
        elif isinstance(part, int):
            hint = next(iter(typing.get_args(bare)), Any)
        else:
            break  # the name of a type in a union, or a key of a free mapping
        path = (*path, part)
    return path, owner, hint


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's fields by the keys that a file has for them, which Python may not have as names."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def field_type(info: Any) -> Any:
    """Return the type of a model's field with its limits."""
    return Annotated[(info.annotation, *info.metadata, None)]


def _bare(hint: Any) -> Any:
    """Return a type without its limits and without ``| None``."""
    if typing.get_origin(hint) is Annotated:
        return _bare(typing.get_args(hint)[0])
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(parts) == 1:
        return _bare(parts[0])
    return hint


_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_RULES = {
    "dataclass_type": "a section of 'key: value' lines",
    "dict_type": "a section of 'key: value' lines",
    "finite_number": "a finite number",
    "model_type": "a section of 'key: value' lines",
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list of '- name: ...' entries",
}


def _rule(error: Any, hint: Any) -> str:
    limits = [f"{word} {error['ctx'][name]}" for name, word in _LIMITS.items() if name in error.get("ctx", {})]
    return limits[0] if limits else _RULES.get(error["type"]) or describe_type(hint)


def example_of(owner: type[BaseModel], key: str) -> Any:
    """Return a value that a field of a model accepts."""
    info = fields_of(owner)[key]
    if info.examples:
        return info.examples[0]
    return example_value(field_type(info), info.default)


def example_value(hint: Any, default: Any = None) -> Any:
    """Return a value that a parameter of this type accepts: its default, or else the first of the usual that fits.

    Example:
        >>> from flsec.parameters import PositiveCount
        >>> example_value(PositiveCount)
        2
    """
    if default is not None and has_yaml_notation(default):
        return as_yaml_data(default)
    probe = _probe(hint)
    choices = typing.get_args(_bare(hint)) if typing.get_origin(_bare(hint)) is Literal else ()
    for value in (*choices, 0.1, 2, 1, 0, 0.5, 10, True, [0, 1], [[0, 1]], {"a": 0.5, "b": 0.5}, "name"):
        with contextlib.suppress(ValidationError):
            probe.model_validate({"value": value})
            return value
    return None
