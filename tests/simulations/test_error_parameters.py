"""Errors say which parameter they are about, so that a file's message blames the key that is to be changed."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from pydantic import ConfigDict, ValidationError, create_model

from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.simulations.config import make_config
from flsec.simulations.facts import snippet
from flsec.simulations.problems import Problem, blame_parameter
from flsec.simulations.schema import AttackEntry, DefenseEntry
from flsec.simulations.signatures import parameters_model
from flsec.strategies import DEFENSES

BASE: dict[str, Any] = {
    "name": "example",
    "model": {"name": "mlp"},
    "training": {"learning_rate": 0.1},
    "attacks": [{"name": "zero_attack"}],
    "adversaries": {"fraction": 0.2},
}
BAD = [{"no": {"such": "thing"}}, "no such value", -1.5, [[["x"]]]]
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
KINDS = {"defenses": (DEFENSES, DefenseEntry), "attacks": (ATTACKS, AttackEntry)}


def bad_value(hint: Any) -> Any:
    """Return what a parameter of this type refuses; None if it takes anything."""
    probe = create_model("Probe", __config__=_STRICT, value=(hint, ...))
    for value in BAD:
        try:
            probe.model_validate({"value": value})
        except ValidationError:
            return value
    return None


def members() -> Iterator[Any]:
    for kind, (registry, _) in KINDS.items():
        for name, member in registry.items():
            yield pytest.param(kind, name, member, id=f"{kind}-{name}")


@pytest.mark.parametrize(("kind", "name", "member"), members())
def test_a_bad_value_is_blamed_on_its_parameter(kind: str, name: str, member: Any) -> None:
    entry_class = KINDS[kind][1]
    writable = parameters_model(member, entry_class.supplied).model_fields
    sound = snippet(kind, name)
    around = {"strategy": FedAvg()} if kind == "defenses" else {}
    tried = 0
    for key, (hint, _) in parameters_of(member).items():
        value = bad_value(hint)
        if value is None:
            continue
        tried += 1
        with pytest.raises(ConfigError) as caught:
            member(**{**around, key: value})
        assert caught.value.parameter == key
        if key not in writable:
            continue
        entry = {**sound[kind][0], key: value}
        with pytest.raises(ConfigError, match=rf"{kind}\[0\]\.{key}\W") as caught:
            make_config({**BASE, kind: [entry]})
        assert caught.value.parameter == key
    assert tried >= len(writable) - 1


@pytest.mark.parametrize(
    ("section", "settings", "key"),
    [
        ("training", {"learning_rate": 0.1, "schedule": "step"}, "milestones"),
        ("training", {"learning_rate": 0.1, "optimizer": "adam", "momentum": 0.5}, "momentum"),
        ("adversaries", {"count": 5, "candidates": [1, 2]}, "count"),
        ("adversaries", {"fraction": 0.2, "camps": {"a": 0.5, "b": 0.6}}, "camps"),
        ("defenses", [{"name": "noisy_median", "std": 1.0, "device": "cuda"}], "device"),
        ("attacks", [{"name": "badnets", "shape": "plus", "size": 2}], "size"),
        ("attacks", [{"name": "label_flipping", "pairs": [[1, 1]]}], "pairs"),
    ],
)
def test_a_rule_of_a_constructor_is_blamed_on_its_parameter(section: str, settings: Any, key: str) -> None:
    if key == "device" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=rf"{section}(\[0\])?\.{key}: ") as caught:
        make_config({**BASE, section: settings})
    assert caught.value.parameter == key


def test_a_word_of_the_message_blames_nothing() -> None:
    """A parameter that the message only mentions, or one that no file can set, is not what it is about."""

    def refuse(parameter: str | None) -> None:
        raise ConfigError("Rule: scale and strategy do not go together.", parameter=parameter)

    for parameter, path in ((None, ()), ("strategy", ()), ("scale", ("scale",))):
        with pytest.raises(Problem) as caught:
            blame_parameter(("defenses", 0), ("scale",), refuse, parameter)
        assert caught.value.path == ("defenses", 0, *path)
        assert str(caught.value) == "scale and strategy do not go together."


def test_the_parameter_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("beta must be less than 0.5; got 2.", parameter="beta")))
    assert (str(error), error.parameter) == ("beta must be less than 0.5; got 2.", "beta")
    assert ConfigError("no parameter").parameter is None
    with pytest.raises(TypeError):
        ConfigError("message", "beta")  # type: ignore[misc]
