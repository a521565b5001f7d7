"""What can be named in an experiment, and what each takes: read from signatures and docstrings, never from a list."""

import contextlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from flsec.attacks.adversaries import Adversaries
from flsec.errors import ConfigError
from flsec.parameters import describe_type, parameters_of
from flsec.registry import snake_case
from flsec.simulations.attack_forms import forms_in_words
from flsec.simulations.config import make_config, packaged_experiments
from flsec.simulations.problems import nearest
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
from flsec.simulations.supplies import SUPPLIED_TO_DEFENSES, SUPPLIED_TO_STRATEGIES
from flsec.simulations.yaml_lines import dump
from flsec.tasks import fits_in_words
from flsec.training import Training

__all__ = ["KINDS", "describe", "list_kinds", "snippet"]

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


def list_kinds(kind: str | None = None) -> RenderableType:
    """Return tables of what an experiment can name, one line each.

    Args:
        kind: a key of ``KINDS``, ``"sections"`` or ``"experiments"``; None: all.

    Raises:
        ConfigError: no such kind.
    """
    everything = _everything()
    if kind is not None and kind not in everything:
        raise ConfigError(f"no kind {kind!r}.{nearest(kind, everything)} Known: {', '.join(everything)}.")
    tables: list[RenderableType] = []
    for title in everything if kind is None else [kind]:
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, member in everything[title].items():
            table.add_row(Text(name), _code(_summary(member)))
        tables += [table, Text()]
    return Group(*tables[:-1])


def describe(name: str) -> RenderableType:
    """Return what something does, its parameters, what it needs, where it comes from and how to name it in YAML.

    Args:
        name: as ``list_kinds`` shows it; upper case and underscores do not matter.

    Raises:
        ConfigError: nothing has this name.
    """
    everything = _everything()
    wanted = name.replace("_", "").lower()
    found = [
        _description(kind, title, member)
        for kind, members in everything.items()
        for title, member in members.items()
        if title.replace("_", "").lower() == wanted
    ]
    if not found:
        names = [title for members in everything.values() for title in members]
        raise ConfigError(f"nothing is called {name!r}.{nearest(name.lower(), names)} `flsec list` shows all names.")
    return Group(*found)


def snippet(kind: str, name: str) -> dict[str, Any]:
    """Return the part of an experiment that names a member of a kind, with parameters that work.

    Example:
        >>> snippet("defenses", "krum")
        {'defenses': [{'name': 'krum', 'num_byzantine': 2}]}
    """
    fields = _model(kind, KINDS[kind].registry.get(name)).model_fields
    needed = {key: example_value(field_type(info)) for key, info in fields.items() if info.is_required()}
    optional = {key: example_value(field_type(info)) for key, info in fields.items() if key not in needed}
    entries = [{"name": name, **needed, **also} for also in ({}, *({k: v} for k, v in optional.items()))]
    for training in _TRAININGS if kind == "strategies" else ({},):
        for entry in entries:  # some take one of several
            candidate = {**_section(kind, entry), **training}
            with contextlib.suppress(ConfigError):
                make_config({**_BASE, **candidate})
                return candidate
    return _section(kind, {"name": name, **needed})


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


def _everything() -> dict[str, Mapping[str, Any]]:
    members: dict[str, Mapping[str, Any]] = {kind: dict(entry.registry.items()) for kind, entry in KINDS.items()}
    return {
        **members,
        "sections": _SECTIONS,
        "experiments": packaged_experiments(),
        "sweeps": packaged_experiments(".sweep"),
    }


def _description(kind: str, name: str, member: Any) -> RenderableType:
    title = Text.assemble((name, "bold"), f"  ({kind})\n")
    if kind in ("experiments", "sweeps"):
        return Group(title, Text(member.read_text(encoding="utf-8")))
    document, model = _parse(member), _model(kind, member)
    parts: list[RenderableType] = [title, Markdown(document["text"])]
    if model.model_fields:
        parts += [Text(), _parameters(model, member)]
    if kind == "attacks":
        parts += [Text(), Text(_knowledge(member)), Text("\n".join(["Goes on clients", *_as_list(member)]))]
    if hasattr(member, "client_half"):  # a wrapper: a defense, or a server optimizer that is one
        parts += [Text(), Text(_wrapping(member)), Text(_needs(member))]
    if kind in ("attacks", "defenses"):
        parts.append(Text(f"Fits {fits_in_words(member)}."))
    if kind == "models":
        parts += [Text(), Text(_serves(member))]
    if document["Source"]:
        parts += [Text(), _code(document["Source"])]
    written = {name: example_of(Config, name)} if kind == "sections" else snippet(kind, name)
    return Group(*parts, Text("\nIn YAML:\n"), Text(indent(dump(written), "  ")))


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


def _as_list(attack: Any) -> list[str]:
    return [f"- {sentence}" for sentence in forms_in_words(attack)]


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


def _model(kind: str, member: Any) -> type[BaseModel]:
    """Return a model of the parameters that a user may write."""
    if isinstance(member, type) and issubclass(member, BaseModel):
        return member
    supplied = ADVERSARIES_SUPPLIED if member is Adversaries else KINDS[kind].supplied if kind in KINDS else ()
    return parameters_model(member, supplied)


def _parameters(model: type[BaseModel], member: Any) -> Table:
    table = Table("parameter", "allowed", "default", "meaning", box=None, padding=(0, 2, 0, 0))
    owners = inspect.getmro(member)[:-1] if isinstance(member, type) else (member,)
    documents = [_arguments(_parse(owner)) for owner in owners]
    for name, info in fields_of(model).items():
        meanings = [document[name] for document in documents if name in document]
        meaning = next((text for text in meanings if not text.startswith("see ``")), "".join(meanings[:1]))
        default = "required" if info.is_required() else _default_text(info.default)
        table.add_row(Text(name), Text(describe_type(field_type(info))), Text(default), _code(meaning))
    return table


def _default_text(default: Any) -> str:
    return dump(default.model_dump(by_alias=True) if isinstance(default, BaseModel) else default, flow=True)


# --- docstrings -----------------------------------------------------------------------------------------------


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


def _summary(member: Any) -> str:
    if isinstance(member, Path):  # an experiment: its first comment
        return member.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
    return _parse(member)["text"].partition("\n\n")[0].replace("\n", " ")


def _code(text: str) -> Text:
    """Return text with its ``code`` in another style."""
    shown = Text()
    for index, part in enumerate(text.split("``")):
        shown.append(part, style="cyan" if index % 2 else "")
    return shown
