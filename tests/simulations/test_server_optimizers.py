"""Server optimizers with a part on the clients, named in a file and nothing more."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.numpy import load_file

from flsec.client_apps import FedNovaClient, NoisyClient, ScaffoldClient
from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.resources import Resources
from flsec.simulations.run_folder import RunFolder
from flsec.strategies import Cohort
from flsec.strategies.server_optimizer import ServerOptimizer

EXPERIMENT = """
name: trial
seed: 1
data: {name: digits, partition: {name: dirichlet, alpha: 0.5}}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16}
simulation: {engine: inprocess, num_clients: 6, num_rounds: 3}
output: {plots: false, keep_checkpoints: null}
"""
NAMES = {
    "fednova": (["training.epochs=2"], FedNovaClient, ["FedNova", "NormClipping", "Krum"]),
    "scaffold": (["training.steps=5"], ScaffoldClient, ["NormClipping", "Krum", "Scaffold"]),
}
DEFENSES = "defenses=[{name: norm_clipping, max_norm: 1.0}, {name: krum, num_byzantine: 1}]"
each = pytest.mark.parametrize("name", NAMES)


class Halved(ServerOptimizer):
    """Takes half of each update."""

    def __init__(self, strategy: Any, *, share: float = 0.5, num_clients: int = 0, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.share, self.num_clients = share, num_clients

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        assert self.num_clients == 6
        return cohort.with_updates(self.share * cohort.updates)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import sys

    module = ModuleType("ours")
    module.Halved = Halved  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ours", module)
    file = tmp_path / "trial.yaml"
    file.write_text(EXPERIMENT)
    return lambda *settings: load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings])


def named(name: str) -> list[str]:
    return [f"strategy={{name: {name}}}", *NAMES[name][0]]


def weights(folder: RunFolder) -> bytes:
    return (folder.path / "model.safetensors").read_bytes()


@each
def test_the_half_comes_with_the_name_and_defenses_stand_where_they_belong(config: Any, name: str) -> None:
    settings = config(*named(name), DEFENSES)
    assert [type(half) for half in Resources(settings).halves] == [NAMES[name][1]]
    strategy: Any = Resources(settings).new_strategy()
    assert [type(wrapper).__name__ for wrapper in strategy.chain()] == NAMES[name][2]
    folder = engine.run(settings)
    last = folder.rounds()[-1]
    assert [verdict["name"] for verdict in last["defenses"]] == NAMES[name][2]
    assert last["kept_previous_model"] is None
    assert not last["quarantined"]


@each
@pytest.mark.parametrize("defended", [False, True])
def test_it_trains_and_a_resumed_run_is_the_same(config: Any, name: str, defended: bool) -> None:
    extra = ["defenses=[{name: noisy_median, std: 0.001}]"] if defended else []
    settings = config(*named(name), *extra, "simulation.clients_per_round=4")
    kinds = [type(half) for half in Resources(settings).halves]
    assert kinds == [NAMES[name][1], *([NoisyClient] if defended else [])]
    whole = engine.run(settings)
    assert whole.rounds()[-1]["accuracy"] > whole.rounds()[0]["accuracy"] + 0.1
    expected = weights(whole)
    (whole.path / "model.safetensors").unlink()
    engine.resume(whole.path, from_round=1)
    assert weights(whole) == expected
    plain = engine.run(config(*NAMES[name][0], *extra, "simulation.clients_per_round=4"))
    assert weights(plain) != expected


@each
def test_the_pool_gives_the_same_numbers(config: Any, name: str) -> None:
    settings = [*named(name), DEFENSES, "simulation.num_rounds=2"]
    here = engine.run(config(*settings))
    pool = engine.run(config(*settings, "simulation.engine=pooled", "simulation.init_args={num_cpus: 2}"))
    assert weights(pool) == weights(here)


@each
def test_attackers_who_work_together_are_seen_by_the_defense_within(config: Any, name: str) -> None:
    attack = ["attacks=[{name: ipm, epsilon: 50.0}]", "adversaries={count: 1}"]
    settings = config(*named(name), *attack, DEFENSES)
    folder = engine.run(settings)
    assert [verdict["name"] for verdict in folder.rounds()[-1]["defenses"]] == NAMES[name][2]
    assert type(Resources(settings).new_strategy()).__name__ == "Adversary"
    assert folder.rounds()[-1]["accuracy"] > 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["strategy={name: scaffold}"], "In training, set for example: optimizer: sgd, momentum: 0.0, steps: 10"),
        (["strategy={name: fednova}", "training.optimizer=adam"], "Set training.optimizer to sgd, or take fedavg"),
        (["strategy={name: fedsgd}"], "set steps: 1, batch_size: 1.0"),
        (["strategy={name: scaffold, num_clients: 3}", "training.steps=3"], "no such key"),
    ],
)
def test_what_cannot_work_is_refused_at_configuration(config: Any, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(*settings)
    assert message in str(caught.value)
    assert ": strategy" in str(caught.value)


def test_an_optimizer_of_ones_own_runs_by_its_path(config: Any) -> None:
    settings = ["strategy={name: 'ours:Halved', share: 0.25}", "simulation.num_rounds=1"]
    folder = engine.run(config(*settings, DEFENSES))
    plain = engine.run(config("simulation.num_rounds=1", "defenses=[{name: krum, num_byzantine: 1}]"))
    ours, whole = (load_file(run.path / "model.safetensors") for run in (folder, plain))
    assert folder.rounds()[-1]["defenses"][0]["name"] == "Halved"
    for key, array in ours.items():
        assert abs(array).max() < abs(whole[key]).max()
