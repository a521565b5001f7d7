"""A JSON Schema of the YAML files, made from the signatures that check them: with it editors complete and check.

It says what single settings may be. How they fit together, with each other and with the data, ``flsec check`` says.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from flsec.attacks.adversaries import Adversaries
from flsec.errors import ConfigError
from flsec.simulations.facts import meanings_of
from flsec.simulations.names import KINDS_OF_FILES, packaged_experiments
from flsec.simulations.problems import as_yaml_data, has_yaml_notation, nearest
from flsec.simulations.schema import ADVERSARIES_SUPPLIED, Component, Config
from flsec.simulations.signatures import field_type, fields_of, parameters_model

__all__ = ["schema_of"]

Schema = dict[str, Any]
_OWN = {"type": "string", "pattern": ":", "description": "package.module:Name, of your own"}


def schema_of(kind: str = "experiments") -> Schema:
    """Return the schema of a kind of files.

    Args:
        kind: ``"experiments"``, ``"sweeps"`` or ``"reconstructions"``.

    Raises:
        ConfigError: no such kind.

    Example:
        >>> schema_of()["properties"]["seed"]["anyOf"][0]["minimum"]
        0
    """
    if kind not in KINDS_OF_FILES:
        raise ConfigError(f"no schema of {kind!r}.{nearest(kind, KINDS_OF_FILES)} Known: {', '.join(KINDS_OF_FILES)}.")
    made = {"experiments": _experiment, "sweeps": _sweep, "reconstructions": _reconstruction}[kind]()
    title = f"{kind.removesuffix('s').capitalize()} of flsec"
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title, **made}


def _experiment(*, whole: bool = True) -> Schema:
    """Return the schema of an experiment; where it is not the whole of it, what is required may stand elsewhere."""
    made = _section(Config)
    required = made.pop("required")
    needed = [key for key in required if key != "name"] if whole else []  # default: the file's name
    keys = {key: {"anyOf": [value, {"type": "null"}]} for key, value in made["properties"].items() if key not in needed}
    return made | {"properties": made["properties"] | keys} | ({"required": needed} if needed else {})


def _sweep() -> Schema:
    settings = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["experiment", "vary"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "of the sweep and its folder"},
            "experiment": _named_or_written(_experiment(whole=False)),
            "vary": {
                "type": "object",
                "minProperties": 1,
                "description": "axes: a list of values for a setting, or labels and the settings that they stand for",
                "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, settings]},
            },
            "marks": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
        },
    }


def _reconstruction() -> Schema:
    from flsec.simulations.studies.reconstruct_settings import ReconstructionStudy

    made = _section(ReconstructionStudy)
    made["required"] = [key for key in made["required"] if key != "name"]
    made["properties"]["experiment"] = _named_or_written(_experiment())
    return made | {"oneOf": [{"required": ["experiment"]}, {"required": ["run"]}]}


def _named_or_written(experiment: Schema) -> Schema:
    named = {"type": "string", "examples": list(packaged_experiments())}
    return {"anyOf": [named, experiment], "description": "an experiment, or the name or file of one"}


# --- sections and what they name --------------------------------------------------------------------------------


def _section(model: type[BaseModel], meanings: dict[str, str] | None = None) -> Schema:
    """Return the schema of a model's own fields."""
    said = meanings_of(model) if meanings is None else meanings
    fields = fields_of(model)
    made: Schema = {"type": "object", "additionalProperties": False}
    made["properties"] = {key: _described(_field(key, info), said.get(key), info) for key, info in fields.items()}
    return made | {"required": [key for key, info in fields.items() if info.is_required()]}


def _described(schema: Schema, meaning: str | None, info: Any) -> Schema:
    said = {"description": meaning} if meaning else {}
    default = None if info.is_required() or not has_yaml_notation(info.default) else as_yaml_data(info.default)
    return {**schema, **said, **({} if default is None else {"default": default})}


def _field(key: str, info: Any) -> Schema:
    return _adversaries() if key == "adversaries" else _of(field_type(info))


def _adversaries() -> Schema:
    made = _callable(Adversaries, ADVERSARIES_SUPPLIED)
    holders = {"type": "object", "required": ["holders_of"], "additionalProperties": False}
    holders["properties"] = {"holders_of": {"type": "integer", "minimum": 0}}
    made["properties"]["candidates"] = {"anyOf": [made["properties"]["candidates"], holders]}
    return {"anyOf": [made, {"type": "null"}]}


def _callable(member: Any, supplied: tuple[str, ...] = ()) -> Schema:
    """Return the schema of the parameters of a class or function."""
    return _section(parameters_model(member, supplied), meanings_of(member))


def _component(entry: type[Component]) -> Schema:
    """Return the schema of an entry that names a member of a registry: each name has keys of its own."""
    own = _section(entry)
    names = entry.registry.names()
    info = entry.model_fields["name"]
    default = None if info.is_required() else info.default
    own["properties"]["name"] = {"anyOf": [{"enum": names}, _OWN]} | ({"default": default} if default else {})
    return {
        "type": "object",
        "required": own["required"],
        "properties": own["properties"],
        "allOf": list(_rules(entry, names, own["properties"], default)),
    }


def _rules(entry: type[Component], names: Sequence[str], own: Schema, default: Any) -> Iterator[Schema]:
    for name in names:
        member = _callable(entry.registry.get(name), entry.supplied)
        is_it: Schema = {"properties": {"name": {"const": name}}}
        if name != default:  # without a name, the default is meant
            is_it["required"] = ["name"]
        legal = dict.fromkeys(own, True) | member["properties"]
        then = {"additionalProperties": False, "properties": legal, "required": member["required"]}
        yield {"if": is_it, "then": then}


# --- types ------------------------------------------------------------------------------------------------------


def _of(hint: Any) -> Schema:
    """Return the schema of a type with its limits; of what no schema can say, one that allows everything."""
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if isinstance(bare, type) and issubclass(bare, Component):
        return _component(bare)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return _section(bare)
    if dataclasses.is_dataclass(bare) and isinstance(bare, type):
        return _callable(bare)
    origin, parts = typing.get_origin(bare), typing.get_args(bare)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(part) for part in parts]}
    if origin in (tuple, list, Sequence) and any(map(_has_sections, parts)):
        return {"type": "array", "items": _of(parts[0])}
    if origin is Annotated:  # within another
        return _of(bare)
    try:
        return TypeAdapter(hint).json_schema()
    except Exception:  # a class of torch's, a function
        return {}


def _has_sections(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint))
