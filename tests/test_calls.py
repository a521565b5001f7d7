"""A wrong call or a wrong name, from Python: one sentence, with the form that would do; and right ones as before."""

import dataclasses
import enum
import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

import flsec
from flsec._calls import MARK, explained
from flsec._meant import meant_module, meant_name
from flsec.client_apps import ATTACKS, Adversaries, LabelFlipping, SignFlipping
from flsec.errors import ConfigError
from flsec.metrics import psnr
from flsec.parameters import nearest_parameter, parameters_of
from flsec.reconstruction import deep_leakage
from flsec.strategies import DEFENSES, AuditLog, Krum, Median

ROOMS = ("strategies", "client_apps", "attacks", "reconstruction", "metrics", "models", "tasks", "data", "aggregation")


def public(room: str) -> dict[str, Any]:
    package = importlib.import_module(f"flsec.{room}")
    return {name: getattr(package, name) for name in package.__all__}


def is_made_by_calls(member: Any) -> bool:
    """Whether it is a class with a constructor of ours, which exceptions, enumerations and the like have not."""
    kinds = isinstance(member, type) and not issubclass(member, BaseException | tuple | enum.Enum)
    return kinds and inspect.isfunction(member.__init__) and not getattr(member, "_is_protocol", False)


CLASSES = {f"{room}.{name}": m for room in ROOMS for name, m in public(room).items() if is_made_by_calls(m)}
FUNCTIONS = {
    f"{room}.{name}": member
    for room in ("reconstruction", "metrics")
    for name, member in public(room).items()
    if inspect.isfunction(member)
}
CALLABLES = {
    name: member
    for name, member in (CLASSES | FUNCTIONS).items()
    if not inspect.isabstract(member) and member.__module__.startswith("flsec")
}


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_are_many() -> None:
    assert len(CALLABLES) > 200


@pytest.mark.parametrize("name", CALLABLES)
def test_a_parameter_that_there_is_not_is_named_with_those_that_there_are(name: str) -> None:
    member = CALLABLES[name]
    said = refusal(member, strange_setting=1)
    assert said.startswith(f"{member.__name__}: unknown parameter 'strange_setting'; it takes ")
    for key in parameters_of(member):
        assert key in said


@pytest.mark.parametrize("name", CALLABLES)
def test_too_many_by_position_are_refused_with_the_names(name: str) -> None:
    member = CALLABLES[name]
    known = parameters_of(member)
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(member).parameters.values()):
        return
    said = refusal(member, *[object()] * (len(known) + 1))
    assert member.__name__ in said
    by_name = [key for key, (_, parameter) in known.items() if parameter.kind is parameter.KEYWORD_ONLY]
    assert "takes keyword arguments only" in said if by_name else "and no more" in said or "no arguments" in said
    assert not by_name or f"{by_name[0]}=" in said


@pytest.mark.parametrize("name", CALLABLES)
def test_what_is_missing_is_named_with_a_call_that_would_do(name: str) -> None:
    member = CALLABLES[name]
    needed = [key for key, (_, parameter) in parameters_of(member).items() if parameter.default is parameter.empty]
    if needed:
        said = refusal(member)
        assert said.startswith(f"{member.__name__} needs {needed[0]}")
        assert f"For example: {member.__name__}(" in said


@pytest.mark.parametrize("name", DEFENSES.names())
def test_a_class_in_place_of_the_strategy_is_told_from_an_instance(name: str) -> None:
    defense = DEFENSES.get(name)
    assert "Is it an instance that is meant, FedAvg(...)?" in refusal(defense, FedAvg)
    assert "Without a list: strategy=" in refusal(defense, [FedAvg()])
    positional = [p for _, p in parameters_of(defense).values() if p.kind is not p.KEYWORD_ONLY]
    said = refusal(defense, *[FedAvg()] * (len(positional) + 1))
    assert said.startswith(f"{defense.__name__} takes keyword arguments only after strategy")
    assert "<" not in said  # no form that would not do


@pytest.mark.parametrize("name", ATTACKS.names())
def test_attacks_say_how_they_are_put_on_a_class(name: str) -> None:
    attack = ATTACKS.get(name)

    class Client: ...

    assert f"{attack.__name__}(...)(Client), or @{attack.__name__}(...) above a class" in refusal(attack, Client)
    assert f"unknown parameter 'f'; it takes {sorted(parameters_of(attack))[0]}" in refusal(attack, f=2)


def test_what_others_call_it_is_understood() -> None:
    assert refusal(Krum, FedAvg(), f=2).endswith("Did you mean 'num_byzantine'?")
    assert refusal(Adversaries, num_clients=10, num_malicious=2).endswith("Did you mean 'count'?")
    assert refusal(SignFlipping, multiplier=2.0).endswith("Did you mean 'scale'?")
    assert refusal(LabelFlipping, source_class=1).endswith("Did you mean 'source'?")
    assert nearest_parameter("f", ["max_norm"]) is None
    every = {key for member in CLASSES.values() for key in parameters_of(member)}
    from flsec.parameters import _ALSO_CALLED

    assert {ours for meant in _ALSO_CALLED.values() for ours in meant} <= every | {"epochs", "learning_rate"}


def test_values_that_are_nearly_right_get_the_right_ones() -> None:
    assert refusal(Krum, FedAvg(), num_byzantine="2").endswith("For example: num_byzantine=2.")
    assert refusal(Krum, FedAvg(), num_byzantine=np.int64(2)).endswith("For example: num_byzantine=2.")
    assert refusal(Krum, FedAvg(), num_byzantine=2.0).endswith("For example: num_byzantine=2.")
    assert refusal(Krum, FedAvg(), num_byzantine=[2]).endswith("Without a list: num_byzantine=...")
    assert refusal(AuditLog, FedAvg()).startswith("AuditLog: path must be")
    assert refusal(psnr, 1).startswith("psnr needs original")
    assert "deep_leakage(model, gradients, input_shape=..., num_classes=...)" in refusal(deep_leakage, 1, 2)
    assert refusal(Krum, FedAvg(), strategy=FedAvg()).startswith("Krum got strategy twice")


@explained
@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.y == 13:
            raise TypeError("deep inside")
        if self.x < 0:
            raise ValueError("negative")


class Point3(Point):
    def __init__(self, z: int):
        super().__init__(z, z, z)  # type: ignore[call-arg]


def test_only_calls_that_fail_are_explained() -> None:
    assert pickle.loads(pickle.dumps(Point(1, y=2))) == Point(1, 2)
    assert hasattr(Point.__init__, MARK)
    assert str(inspect.signature(Point)) == "(x: int, y: int = 0) -> None"
    assert explained(Point) is Point
    assert explained(3) == 3
    with pytest.raises(TypeError, match="deep inside"):
        Point(1, 13)
    with pytest.raises(ValueError, match="negative"):
        Point(-1)
    with pytest.raises(ConfigError, match="x must be a valid integer"):
        Point("one")  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match="positional arguments"
    ):  # a mistake inside of somebody's class is Python's to say
        Point3(1)


@pytest.mark.parametrize("name", ["krum", "median", "fltrust", "trimmed_mean"])
def test_checks_of_defenses_are_on_however_they_are_imported(name: str) -> None:
    """What explains a call must not stand in the way of what checks it."""
    defense = DEFENSES.get(name)
    assert getattr(importlib.import_module("flsec.strategies"), defense.__name__) is defense
    with pytest.raises(ConfigError, match="patience"):
        defense(FedAvg(), patience=0, **({"num_byzantine": 1} if name == "krum" else {}))


# --- names ---


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("from flsec.strategies import FlTrust", "Did you mean FLTrust? from flsec.strategies import FLTrust"),
        ("from flsec.strategies import Fltrust", "Did you mean FLTrust? from flsec.strategies import FLTrust"),
        ("from flsec.strategies import Krumm", "Did you mean Krum? from flsec.strategies import Krum"),
        (
            "from flsec.strategies import SignFlipping",
            "It is in flsec.client_apps: from ",
        ),
        ("from flsec.attacks import LabelFlipping", "from flsec.client_apps import LabelFlipping"),
        ("from flsec.client_apps import label_fliping", "Did you mean"),
        ("from flsec import Krum", "It is in flsec.strategies: from flsec.strategies import Krum"),
        ("from flsec.data import mnist", "from flsec.data.datasets import mnist"),
        ("from flsec.aggregation import multikrum", "from flsec.aggregation import multi_krum"),
        ("import flsec.strategies.krumm", "Did you mean flsec.strategies.krum?"),
        ("from flsec.strategies.krumm import Krum", "Did you mean flsec.strategies.krum?"),
        ("import flsec.defenses", "Did you mean flsec.strategies?"),
        ("import flsec.aggregations", "Did you mean flsec.aggregation?"),
        ("import flsec.simulation.engine", "Did you mean flsec.simulations?"),
    ],
)
def test_an_import_says_what_was_meant(statement: str, sentence: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(statement)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_is_found_in_another_spelling_and_from_another_room(room: str) -> None:
    package = importlib.import_module(f"flsec.{room}")
    for name in package.__all__:
        for written in (name.lower(), name.upper(), name.replace("_", "")):
            if not hasattr(package, written):
                assert "import " in meant_name(f"flsec.{room}", written), written
        assert f"import {name}" in meant_name("flsec", name)


def test_attributes_say_it_too_and_whoever_only_asks_gets_no() -> None:
    with pytest.raises(AttributeError, match="Did you mean FLTrust"):
        _ = flsec.strategies.FlTrust
    with pytest.raises(AttributeError, match="'flsec' has no attribute 'Krum'"):
        _ = flsec.Krum  # type: ignore[attr-defined]
    assert not hasattr(flsec.strategies, "FlTrust")
    assert getattr(flsec, "Krum", None) is None
    assert importlib.util.find_spec("flsec.strategies.krumm") is None
    assert meant_name("flsec.strategies", "__wrapped__") == meant_module("flsec.qqqqqqq") == ""
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'flsec\.qqqqqqq'$"):
        importlib.import_module("flsec.qqqqqqq")
    from flsec.strategies import krum

    assert inspect.ismodule(krum)  # a module that is there can still be imported so


def test_asking_costs_no_import() -> None:
    code = (
        "import sys, flsec; hasattr(flsec, 'Krum'); print([name for name in sys.modules if name.startswith('flsec.s')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_strategy_of_other_people_is_made_as_before() -> None:
    class Mine(Median):
        def __init__(self, strategy: Any, *, factor: float = 2.0, **options: Any) -> None:
            super().__init__(strategy, **options)
            self.factor = factor

    assert Mine(FedAvg(), factor=3.0, patience=4).factor == 3.0
    assert "unknown parameter 'faktor'" in refusal(Mine, FedAvg(), faktor=2.0)
