"""What is to be said about all that an experiment can name, as plain data: read from signatures and docstrings."""

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import Attack, forms_of
from flsec.errors import ConfigError
from flsec.parameters import describe_type, parameters_of
from flsec.registry import snake_case
from flsec.simulations.attack_forms import forms_in_words
from flsec.simulations.config import make_config
from flsec.simulations.problems import as_yaml_data
from flsec.simulations.schema import (
    ADVERSARIES_SUPPLIED,
    AttackEntry,
    Component,
    Config,
    DataEntry,
    DefenseEntry,
    ModelEntry,
    Output,
    PartitionEntry,
    Simulation,
    StrategyEntry,
    TaskEntry,
)
from flsec.simulations.signatures import example_of, example_value, field_type, fields_of, parameters_model
from flsec.simulations.supplies import SUPPLIED_TO_ATTACKS, SUPPLIED_TO_DEFENSES, SUPPLIED_TO_STRATEGIES
from flsec.simulations.yaml_lines import dump
from flsec.tasks import fits_in_words
from flsec.training import Training

__all__ = ["KINDS", "facts_of", "imported", "meanings_of", "members_of", "package_of", "snippet", "sources_of"]

KINDS: dict[str, type[Component]] = {
    "defenses": DefenseEntry,
    "attacks": AttackEntry,
    "strategies": StrategyEntry,
    "datasets": DataEntry,
    "partitioners": PartitionEntry,
    "models": ModelEntry,
    "tasks": TaskEntry,
}
_SECTIONS = {
    "data": DataEntry,
    "model": ModelEntry,
    "training": Training,
    "adversaries": Adversaries,
    "simulation": Simulation,
    "output": Output,
}
_WITH_PAGES = ("defenses", "attacks", "datasets", "models", "tasks")  # one each in the documentation
_FLSEC = Path(__file__).parents[1]


def members_of(kind: str) -> dict[str, Any]:
    """Return {name: class or function} of all of a kind: a key of ``KINDS``, or ``"sections"``."""
    return dict(_SECTIONS) if kind == "sections" else dict(KINDS[kind].registry.items())


def package_of(kind: str) -> str | None:
    """Return the folder below ``flsec`` whose modules are looked through for members, if it is one."""
    if kind == "sections" or not hasattr(importlib.import_module(KINDS[kind].registry.package), "__path__"):
        return None
    return "/".join(KINDS[kind].registry.package.split(".")[1:])


def sources_of(kind: str) -> list[Path]:
    """Return the modules of flsec that the members of a kind and their base classes stand in."""
    owners = {owner for member in members_of(kind).values() for owner in getattr(member, "__mro__", (member,))}
    files = {Path(inspect.getfile(owner)) for owner in owners if owner.__module__.partition(".")[0] == "flsec"}
    return sorted(file for file in files if file.is_relative_to(_FLSEC))


def _is_class(member: Any) -> bool:
    return isinstance(member, type)


def imported(path: str) -> tuple[str, Any]:
    """Return the kind of ``package.module:Name`` and the class or function itself.

    Raises:
        ConfigError: it cannot be imported, or is nothing that an experiment can name.
    """
    for kind in ("defenses", "attacks", "tasks"):
        with contextlib.suppress(ConfigError):
            return kind, KINDS[kind].registry.get(path)
    member = KINDS["strategies"].registry.get(path)
    parameters = parameters_of(member)
    if (_is_class(member) and issubclass(member, nn.Module)) or "input_shape" in parameters:
        return "models", member
    if "num_clients" in parameters and "labels" in parameters:
        return "partitioners", member
    strategy = _is_class(member) or "strategy" in str(inspect.signature(member).return_annotation).lower()
    kind = "strategies" if strategy else "datasets"
    KINDS[kind].check_member(path, member)
    return kind, member


def facts_of(kind: str, name: str, member: Any) -> dict[str, Any]:
    """Return what is to be said about a member of a kind, as plain data.

    Args:
        kind: a key of ``KINDS``, or ``"sections"``.
        name: in YAML.
        member: the class or function itself.

    Returns:
        Its ``summary``; ``text``, Markdown; ``parameters``, each with ``name``, ``allowed``, ``default`` and
        ``meaning``; ``source``; ``yaml``, the part of an experiment that names it; ``python``, the lines that make it;
        ``docs``, the page of the documentation; and what is said of its kind alone: ``knows``, ``forms``,
        ``wrapping``, ``needs``, ``fits``, ``serves``.
    """
    document, model = _parse(member), _model(kind, member)
    written = {name: example_of(Config, name)} if kind == "sections" else snippet(kind, name, member)
    facts: dict[str, Any] = {"name": name, "kind": kind, "summary": _summary(document), "text": document["text"]}
    facts["parameters"] = list(_parameters(model, member))
    if kind == "attacks":
        facts |= {"knows": _knowledge(member), "forms": forms_in_words(member)}
    if hasattr(member, "client_half"):  # a wrapper: a defense, or a server optimizer that is one
        facts |= {"wrapping": _wrapping(member), "needs": _needs(member)}
    if kind in ("attacks", "defenses"):
        facts["fits"] = f"Fits {fits_in_words(member)}."
    if kind == "models":
        facts["serves"] = _serves(member)
    facts |= {"source": document["Source"], "python": _python(kind, member, written), "yaml": as_yaml_data(written)}
    return facts | ({"docs": f"{kind}/{name}"} if kind in _WITH_PAGES and ":" not in name else {})


# --- in YAML ----------------------------------------------------------------------------------------------------


def snippet(kind: str, name: str, member: Any = None) -> dict[str, Any]:
    """Return the part of an experiment that names a member of a kind, with parameters that work.

    Args:
        kind: a key of ``KINDS``.
        name: in YAML.
        member: the class or function itself; by default the one that is registered.

    Example:
        >>> snippet("defenses", "krum")
        {'defenses': [{'name': 'krum', 'num_byzantine': 2}]}
    """
    fields = _model(kind, KINDS[kind].registry.get(name) if member is None else member).model_fields
    needed = {key: example_value(field_type(info)) for key, info in fields.items() if info.is_required()}
    optional = {key: example_value(field_type(info)) for key, info in fields.items() if key not in needed}
    entries = [{"name": name, **needed, **also} for also in ({}, *({k: v} for k, v in optional.items()))]
    for training in _TRAININGS if kind == "strategies" else ({},):
        for entry in entries:  # some take one of several
            candidate = {**_section(kind, entry), **training, **_other_half(kind, name)}
            with contextlib.suppress(ConfigError):
                make_config({**_BASE, **candidate})
                return candidate
    return _section(kind, {"name": name, **needed})


def _other_half(kind: str, name: str) -> dict[str, Any]:
    """Return the section of the only defense on which an attack has any effect, if that is so."""
    needed = getattr(KINDS[kind].registry.get(name), "needs_defense", None) if kind == "attacks" else None
    return {} if needed is None else {"defenses": [{"name": needed}]}


_BASE: dict[str, Any] = {
    "name": "example",
    "model": {"name": "mlp"},
    "training": {"learning_rate": 0.1},
    "attacks": [{"name": "zero_attack"}],
    "adversaries": {"fraction": 0.2},
}


# Some server optimizers are one only for clients that train in a certain way.
_TRAININGS: tuple[dict[str, Any], ...] = (
    {},
    {"training": {"learning_rate": 0.1, "steps": 10}},
    {"training": {"learning_rate": 0.1, "steps": 1, "batch_size": 1.0}},
)


def _section(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    if kind == "partitioners":
        return {"data": {"partition": entry}}
    if kind in ("defenses", "attacks"):
        return {kind: [entry]}
    return {{"datasets": "data", "models": "model", "strategies": "strategy", "tasks": "task"}[kind]: entry}


# --- in Python --------------------------------------------------------------------------------------------------


def _python(kind: str, member: Any, written: Mapping[str, Any]) -> list[str]:
    """Return the lines that make it in Python; ``...`` stands for what a simulation supplies."""
    if _is_class(member) and issubclass(member, BaseModel):
        return []  # a section of the file, and nothing else
    lines = [_import_of(member)]
    if kind == "sections":
        return [*lines, _call(member, next(iter(written.values())))]
    call = _call(member, _entry(kind, written))
    if kind == "attacks":
        return [*lines, *_as_forms(member, call)]
    if hasattr(member, "client_half"):
        half = (member.client_half or "").partition(":")[2]
        lines += [f"from flsec.client_apps import {half}"] if half else []
        lines += ["from flwr.serverapp.strategy import FedAvg  # or of flwr.server.strategy", ""]
        return [*lines, f"strategy = {call}", *([f"client = {half}(...)(client)"] if half else [])]
    return [*lines, call]


def _entry(kind: str, written: Mapping[str, Any]) -> dict[str, Any]:
    value = written["data"]["partition"] if kind == "partitioners" else next(iter(written.values()))
    entry = value[0] if isinstance(value, list) else value
    return {key: given for key, given in entry.items() if key != "name"}


def _import_of(member: Any) -> str:
    """Return the line that imports it, from its package where that exports it."""
    package = member.__module__.rpartition(".")[0]
    exported = package and getattr(importlib.import_module(package), member.__name__, None) is member
    return f"from {package if exported else member.__module__} import {member.__name__}"


# What a simulation supplies to those defenses that may do without.
_SUPPLIED = ("root_data", "client_samples", "model_factory", "training", "input_shape", "num_classes")


def _call(member: Any, given: Mapping[str, Any]) -> str:
    values = {key: repr(value) for key, value in given.items()}
    for key, (_, parameter) in parameters_of(member).items():
        supplied = hasattr(member, "client_half") and parameter.default is None and key in _SUPPLIED
        if parameter.default is inspect.Parameter.empty or supplied:
            values.setdefault(key, "...")
    if _is_class(member) and issubclass(member, Attack) and "..." not in values.values():
        try:
            member(**given)
        except ConfigError as error:  # in a simulation it is told what it lacks
            values |= {str(error.parameter): "..."} if error.parameter in SUPPLIED_TO_ATTACKS else {}
    first = ["FedAvg()"] if values.pop("strategy", None) else []
    return f"{member.__name__}({', '.join([*first, *(f'{key}={value}' for key, value in values.items())])})"


def _as_forms(attack: Any, call: str) -> Iterator[str]:
    """Yield an attack in each form that it has."""
    forms = forms_of(attack)
    if "simulation only" in forms:
        call = call.replace("(", "(adversaries=who, " if "()" not in call else "(adversaries=who", 1)
        yield "from flsec.client_apps import Adversaries"
        yield "from flsec.strategies import Adversary"
        yield "from flwr.serverapp.strategy import FedAvg  # or of flwr.server.strategy"
        yield from ("", "who = Adversaries(num_clients=20, fraction=0.2)")
        yield f"strategy = Adversary(FedAvg(), attacks=[{call}])"
        return
    if "mod" in forms:
        yield "from flsec.client_apps import numpy_client_app"
    yield ""
    if "decorator" in forms:
        yield f"@{call}  # a decorator"
        yield "class Client(NumPyClient): ..."
        yield f"client = {call}(client)  # or around an instance"
    if "mod" in forms:
        yield f"app = numpy_client_app(client_fn, mods=[{call}.mod])  # or a mod"
    if "Message API" in forms:
        yield f"@app.train(mods=[{call}.mod])  # or a mod of a function that trains"


# --- in words ---------------------------------------------------------------------------------------------------

_SEES = {
    "own": "its own data and update, and the global model",
    "colluders": "the attackers' updates",
    "all": "the updates of all clients",
}


def _knowledge(attack: Any) -> str:
    """Say what an attacker knows by default."""
    parameter = parameters_of(attack).get("knowledge")
    sees = attack.knowledge if parameter is None else parameter[1].default
    return f"Knows: {_SEES[sees]}{', and the defense' if attack.knows_defense else ''}."


def _wrapping(defense: Any) -> str:
    name, (_, _, half) = defense.__name__, (defense.client_half or "").partition(":")
    server = f"Goes around a strategy of flwr.server.strategy or of flwr.serverapp.strategy: {name}(strategy, ...)."
    if not half:
        return server
    return (
        f"{server}\nIts other half goes on clients: as a decorator, {half}(...)(client) or @{half}(...) above a class, "
        f"or as a mod, numpy_client_app(client_fn, mods=[{half}(...).mod])."
    )


def _needs(defense: Any) -> str:
    """Say what a defense needs on the clients, and on the server beside the strategy that it wraps."""
    half = defense.client_half and snake_case(defense.client_half.partition(":")[2])
    clients = f"flsec.client_apps.{half} around each, which a simulation puts there" if half else "nothing"
    wanted = [
        name
        for name, (_, parameter) in parameters_of(defense).items()
        if name in (*SUPPLIED_TO_DEFENSES, *SUPPLIED_TO_STRATEGIES) and parameter.default is inspect.Parameter.empty
    ]
    server = f"{', '.join(wanted)}, which a simulation supplies" if wanted else "nothing"
    return f"Needs on the clients: {clients}.\nNeeds on the server: {server}."


def _serves(model: Any) -> str:
    """Say which tasks a model is for."""
    if hasattr(model, "tasks"):
        return f"Serves the tasks: {', '.join(model.tasks)}."
    return "Serves classification, and any task that judges such outputs: two examples are tried before a run."


# --- parameters and docstrings ----------------------------------------------------------------------------------


def _model(kind: str, member: Any) -> type[BaseModel]:
    """Return a model of the parameters that a user may write."""
    if isinstance(member, type) and issubclass(member, BaseModel):
        return member
    supplied = ADVERSARIES_SUPPLIED if member is Adversaries else KINDS[kind].supplied if kind in KINDS else ()
    return parameters_model(member, supplied)


def meanings_of(member: Any) -> dict[str, str]:
    """Return {parameter: what the docstring says about it}, of a class also what those of its base classes say."""
    found: dict[str, str] = {}
    for owner in inspect.getmro(member)[:-1] if isinstance(member, type) else (member,):
        for name, meaning in _arguments(_parse(owner)).items():
            if found.get(name, "see ``").startswith("see ``"):
                found[name] = meaning
    return found


def _parameters(model: type[BaseModel], member: Any) -> Iterator[dict[str, Any]]:
    meanings = meanings_of(member)
    for name, info in fields_of(model).items():
        meaning = meanings.get(name, "")
        default = "required" if info.is_required() else _default_text(info.default)
        yield {"name": name, "allowed": describe_type(field_type(info)), "default": default, "meaning": meaning}


def _default_text(default: Any) -> str:
    return dump(default.model_dump(by_alias=True) if isinstance(default, BaseModel) else default, flow=True)


def _parse(member: Any) -> dict[str, str]:
    """Cut a Google-style docstring into its sections; what stands outside of all is ``"text"``."""
    sections: dict[str, list[str]] = {"text": [], "Args": [], "Source": []}
    current = "text"
    for line in (inspect.getdoc(member) or "").splitlines():
        if header := re.fullmatch(r"(Args|Attributes|Returns|Raises|Example|Examples):", line):
            current = header[1].replace("Attributes", "Args")
            sections.setdefault(current, [])
            continue
        if line.startswith("Source:"):
            current = "Source"
        elif not line if current == "Source" else line[:1].strip():
            current = "text"
        sections[current].append(line)
    return {name: "\n".join(lines).strip("\n") for name, lines in sections.items()}


def _arguments(document: Mapping[str, str]) -> dict[str, str]:
    """Return what an ``Args:`` section says about each parameter."""
    found: dict[str, str] = {}
    name = ""
    for line in document["Args"].splitlines():
        if start := re.match(r" {4}\**(\w+): (.*)", line):
            name, found[start[1]] = start[1], start[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _summary(document: Mapping[str, str]) -> str:
    return document["text"].partition("\n\n")[0].replace("\n", " ")
