"""What a run is made from is made once, in the check, and shared by all that works on it in this process."""

import functools
from collections import Counter
from typing import Any

import pytest
import torch

from flsec import parameters
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.simulations import data_resources, engine, resources
from flsec.simulations.config import load_config
from flsec.simulations.resources import Resources, StandIns, resources_of, resources_of_text
from flsec.simulations.schema import Config
from flsec.simulations.supplies import SUPPLIED_TO_ATTACKS, SUPPLIED_TO_DEFENSES
from flsec.strategies import DEFENSES

EXPERIMENT = """
data: {name: digits, root_samples: 57}
model: {name: softmax}
training: {learning_rate: 0.1}
defenses: [{name: krum, num_byzantine: 1}]
attacks: [{name: sign_flipping}, {name: class_flipping}]
adversaries: {fraction: 0.2}
simulation: {engine: inprocess, num_clients: 6, num_rounds: 2}
"""

ATTACKS_HERE = ("sign_flipping", "class_flipping", "projected_gradient")
DEFENSES_HERE = ("krum", "fltrust")


@pytest.fixture
def load(tmp_path: Any) -> Any:
    def _load(*settings: str) -> Config:
        file = tmp_path / "counted.yaml"
        file.write_text(EXPERIMENT)
        return load_config(file, [f"output={{folder: {tmp_path / 'runs'}, plots: false}}", *settings])

    return _load


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is built; nothing is there from another test."""
    made: Counter[str] = Counter()
    resources._resources_of.cache_clear()
    resources_of_text.cache_clear()

    def counted(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            made[name] += 1
            return function(*args, **kwargs)

        return call

    here = dict.fromkeys(("build_model", "Adversaries", "build_server_strategy"), resources)
    here |= dict.fromkeys(("load_dataset", "make_partition", "carve_root"), data_resources)
    for name, module in here.items():
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    for registry, names in ((ATTACKS, ATTACKS_HERE), (DEFENSES, DEFENSES_HERE)):
        for name in names:
            member = registry.get(name)
            monkeypatch.setattr(member, "__init__", counted(name, member.__init__))
    return made


def test_everything_is_built_once_for_check_server_and_clients(load: Any, counts: Counter[str]) -> None:
    config = load()
    assert counts == {
        "Adversaries": 1,
        "sign_flipping": 1,
        "class_flipping": 1,
        "build_server_strategy": 1,
        "krum": 1,
    }
    engine.run(config)
    assert counts == {
        "load_dataset": 1,
        "make_partition": 1,
        "build_model": 1,
        "Adversaries": 1,
        "sign_flipping": 1,
        "class_flipping": 1,
        "build_server_strategy": 2,  # a strategy remembers its rounds: one for the check, one for each run
        "krum": 2,
    }


def test_a_parameter_is_checked_once_for_each_object(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: Counter[str] = Counter()
    check = parameters.check_parameters

    def counting(target: Any, values: Any, *, name: str) -> None:
        checks.update(list(values))
        check(target, values, name=name)

    resources._resources_of.cache_clear()
    monkeypatch.setattr(parameters, "check_parameters", counting)
    config = load()
    assert (checks["num_byzantine"], checks["scale"]) == (1, 1)
    engine.run(config)
    assert (checks["num_byzantine"], checks["scale"]) == (2, 1)


def test_what_needs_data_is_tried_without_and_then_built_once(load: Any, counts: Counter[str]) -> None:
    config = load("defenses=[{name: fltrust}]", "attacks=[{name: projected_gradient, num_auxiliary: 10}]")
    before = Counter(counts)
    assert before["fltrust"] == before["projected_gradient"] == 1  # with stand-ins
    assert not before["load_dataset"] + before["build_model"]
    engine.run(config)
    once = ("fltrust", "projected_gradient", "load_dataset", "carve_root", "make_partition", "build_model")
    assert {name: (counts - before)[name] for name in once} == dict.fromkeys(once, 1)
    assert counts["Adversaries"] == 1


def test_a_second_run_and_a_resumed_one_build_nothing_but_strategies(load: Any, counts: Counter[str]) -> None:
    config = load()
    folder = engine.run(config)
    before = Counter(counts)
    engine.run(config)
    engine.resume(folder.path, from_round=1)
    assert set(counts - before) == {"build_server_strategy", "krum"}


def test_two_runs_of_one_config_do_not_share_a_strategy(load: Any) -> None:
    made = resources_of(load("strategy={name: fedadam}"))
    assert made.new_strategy() is not made.new_strategy()


def test_a_model_is_the_callers_own(load: Any) -> None:
    made = Resources(load("model={name: mlp, hidden: [4]}"))
    first = made.new_model()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    again, other = made.new_model(), Resources(made.config).new_model()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), other.parameters(), strict=True))
    assert not any((parameter == 7).any() for parameter in again.parameters())


def test_what_is_supplied_is_an_attribute_of_resources(load: Any) -> None:
    made = Resources(load("defenses=[{name: fltrust}]"))
    names = {*SUPPLIED_TO_ATTACKS, *SUPPLIED_TO_DEFENSES}
    assert {name: hasattr(made, name) for name in names} == dict.fromkeys(names, True)
    assert {name: hasattr(StandIns(made), name) for name in names} == dict.fromkeys(names, True)
    assert made.clients_per_round == 6
    assert isinstance(made.adversaries, Adversaries)
    assert made.root_data is not None
    assert len(made.root_data[0]) == 57
    assert len(made.dataset.train) + 57 == len(Resources(load()).dataset.train)


class Unadvised:
    """An attack that takes no adversaries."""

    poisons_cohort = poisons_data = False

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale


def test_an_attack_that_cannot_be_told_who_attacks_is_refused(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flsec.client_apps.Unadvised", Unadvised, raising=False)
    monkeypatch.setattr(ATTACKS, "_is_member", lambda member: True)
    with pytest.raises(ConfigError, match=r"attacks\[0\].name: flsec.client_apps:Unadvised cannot be told who attacks"):
        load("attacks=[{name: flsec.client_apps:Unadvised}]")
