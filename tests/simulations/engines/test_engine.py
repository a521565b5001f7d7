"""The engine, run in this process: the run folder, resumption, interruption, failure. Ray runs are elsewhere."""

import gc
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.client import NumPyClient
from safetensors.numpy import load_file

from flsec.errors import ConfigError, NoProgressError
from flsec.simulations import clients, engine
from flsec.simulations.clients import build_client
from flsec.simulations.config import Config, load_config
from flsec.simulations.engines import grid
from flsec.simulations.engines.machine import check_machine
from flsec.simulations.resources import Resources
from flsec.simulations.run_folder import RunFolder
from tests.support.figures import figures

EXPERIMENT = """
name: trial
seed: 5
data: {name: digits, partition: {name: group_bias, bias: 0.3}}
model: {name: mlp, hidden: [16]}
training: {learning_rate: 0.1, momentum: 0.9, epochs: 1, batch_size: 16}
strategy: {name: fedavgm, server_momentum: 0.5}
defenses:
  - {name: norm_clipping, max_norm: 2.0}
  - {name: multi_krum, num_byzantine: 2}
attacks:
  - {name: badnets, target: 3, fraction: 0.5}
  - {name: model_replacement, scale: 3.0}
adversaries: {count: 2, redraw: every_round}
simulation: {engine: inprocess, num_clients: 12, clients_per_round: 9, num_rounds: 5}
"""


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def load(*settings: str) -> Config:
        file = tmp_path / "trial.yaml"
        file.write_text(EXPERIMENT)
        return load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings])

    return load


def test_a_run_leaves_everything_needed_to_trust_and_repeat_it(config: Any) -> None:
    folder = engine.run(config())
    names = {path.name for path in folder.path.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "rounds.jsonl",
        "summary.json",
        "model.safetensors",
        "checkpoints",
        "lock",
        "accuracy.png",
        "run.log",
    }
    records = folder.rounds()
    assert [record["round"] for record in records] == [0, 1, 2, 3, 4, 5]
    for record in records[1:]:
        assert len(record["sampled"]) == 9
        assert record["sampled"] == sorted(set(record["sampled"]))
        assert set(record["adversaries"]) <= set(record["sampled"])
        clip, krum = record["defenses"]
        assert (clip["name"], clip["detection"]) == ("NormClipping", None)  # clipping judges nobody
        assert len(krum["kept"]) == 7
        counts = krum["detection"]
        assert counts["true_positives"] + counts["false_negatives"] == len(record["adversaries"])
        assert counts["true_positives"] + counts["false_positives"] == 2
        assert 0.0 <= record["attack"]["attack_success"] <= 1.0
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary["accuracy"] == records[-1]["accuracy"]
    assert summary["attack"]["attack_success"]["last"] == records[-1]["attack"]["attack_success"]
    assert load_config(folder.path / "config.yaml").to_dict() == config().to_dict()
    environment = json.loads((folder.path / "environment.json").read_text())
    assert set(environment["packages"]) >= {"flsec", "flwr", "torch", "numpy", "ray"}


def test_the_final_model_is_the_one_whose_accuracy_is_reported(config: Any) -> None:
    import torch

    folder = engine.run(config())
    experiment = Resources(config())
    model = experiment.new_model()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in load_file(folder.path / "model.safetensors").items()})
    x, y = experiment.test_data
    accuracy = (model.eval()(x).argmax(dim=1) == y).double().mean().item()
    assert math.isclose(accuracy, folder.rounds()[-1]["accuracy"], rel_tol=1e-12)


def test_the_same_seed_gives_the_same_run_and_another_does_not(config: Any) -> None:
    first, second, other = (engine.run(config(*s)) for s in ([], [], ["seed=6"]))
    assert figures(first) == figures(second)
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert figures(first) != figures(other)
    assert [first.path.name, second.path.name] == ["trial", "trial-2"]  # nothing is overwritten


@pytest.mark.parametrize("strategy", ["{name: fedadam, eta: 0.05}", "{name: fedavgm, server_momentum: 0.9}"])
def test_resumed_from_any_checkpoint_it_ends_with_the_same_numbers(config: Any, strategy: str) -> None:
    settings = (
        f"strategy={strategy}",
        "output.keep_checkpoints=null",
        "defenses=[{name: centered_clipping, radius: 1}]",
    )
    folder = engine.run(config(*settings))
    expected = figures(folder)
    model = (folder.path / "model.safetensors").read_bytes()
    summary = json.loads((folder.path / "summary.json").read_text())
    for round_ in range(1, 6):
        (folder.path / "model.safetensors").unlink()
        engine.resume(folder.path, from_round=round_)
        assert figures(folder) == expected
        assert (folder.path / "model.safetensors").read_bytes() == model
    again = json.loads((folder.path / "summary.json").read_text())
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}


def test_a_stopped_run_can_be_continued_to_the_same_numbers(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = figures(engine.run(config("name=whole", "output.checkpoint_every=4")))
    loops: list[Any] = []

    class Stopped(engine.ServerLoop):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            loops.append(self)

        def _record(self, record: dict[str, Any]) -> None:
            super()._record(record)
            if record["round"] == 2:
                self.stop.set()  # what Ctrl-C does

    with monkeypatch.context() as patch:
        patch.setattr(engine, "ServerLoop", Stopped)
        with pytest.raises(engine.Interrupted):
            engine.run(config("output.checkpoint_every=4"))
    folder = loops[0].folder
    assert [record["round"] for record in folder.rounds()] == [0, 1, 2]
    assert folder.load_checkpoint()[0] == 2  # written although only every fourth was due
    engine.resume(folder.path)
    assert figures(folder) == expected


class Broken(NumPyClient):
    def fit(self, parameters: Any, config: Any) -> Any:
        raise RuntimeError("out of order")


def test_a_round_without_any_reply_keeps_the_model_and_says_why(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "build_client", lambda resources, client_id: Broken())
    with pytest.raises(NoProgressError, match=r"in none of 5 rounds .* RuntimeError: out of order"):
        engine.run(config())
    (folder,) = map(RunFolder, Path(config().output.folder).iterdir())
    assert not (folder.path / "model.safetensors").exists()  # the first model is no result
    assert not (folder.path / "summary.json").exists()
    for record in folder.rounds()[1:]:
        assert "needs at least" in record["kept_previous_model"]
        assert len(record["quarantined"]) == 9
        assert all("out of order" in entry["reason"] for entry in record["quarantined"])
    assert len({record["accuracy"] for record in folder.rounds()}) == 1


def test_the_collector_passes_over_what_was_there_before_a_run_and_only_while_it_runs(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = []

    def explode(self: Any, *args: Any) -> Any:
        frozen.append(gc.get_freeze_count())
        raise RuntimeError("disk full")

    monkeypatch.setattr(engine.ServerLoop, "_evaluated", explode)
    with pytest.raises(RuntimeError, match="disk full"):
        engine.run(config())
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


def test_a_failure_of_the_server_is_raised_and_what_was_done_is_kept(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def explode(self: Any, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("disk full")
        return original(self, *args)

    original = engine.ServerLoop._evaluated
    monkeypatch.setattr(engine.ServerLoop, "_evaluated", explode)
    with pytest.raises(RuntimeError, match="disk full"):
        engine.run(config())
    (folder,) = (Path(config().output.folder)).iterdir()
    assert RunFolder.open(folder).load_checkpoint()[0] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["simulation.client_resources.num_cpus=4096"], "num_cpus: a client asks for 4096 CPUs"),
        (
            ["simulation.client_resources.num_gpus=0.05", "simulation.init_args.num_gpus=0"],
            r"num_gpus: a client asks for 0.05 GPUs, this machine has 0. For example: num_gpus: 0.0; .* device: cpu",
        ),
        (["simulation.device=cuda"], r"given no share of a GPU.* num_gpus: 0.05"),
    ],
)
def test_resources_that_are_not_there_are_refused_before_anything_is_written(
    config: Any, settings: list[str], words: str
) -> None:
    wanted = config("simulation.engine=pooled", *settings)
    with pytest.raises(ConfigError, match=words):
        engine.run(wanted)
    assert not Path(wanted.output.folder).exists()


def test_a_gpu_fraction_passes_the_check_where_ray_is_given_a_gpu(config: Any) -> None:
    check_machine(
        config(
            "simulation.engine=flower", "simulation.client_resources.num_gpus=0.05", "simulation.init_args.num_gpus=1"
        )
    )


def test_shares_of_a_gpu_are_not_asked_for_where_clients_train_on_the_cpu(config: Any) -> None:
    shares = [
        "simulation.engine=pooled",
        "simulation.client_resources.num_gpus=0.05",
        "simulation.init_args.num_gpus=0",
    ]
    with pytest.raises(ConfigError, match="num_gpus"):
        check_machine(config(*shares))
    check_machine(config(*shares, "simulation.device=cpu"))
    assert config(*shares, "simulation.device=cpu").simulation.num_gpus == 0
    assert config(*shares).simulation.num_gpus == 0.05


def test_a_flower_without_the_private_parts_runs_on_its_own_engine_only(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "_missing", "No module named 'flwr.supercore.run'")
    for name in ("inprocess", "pooled"):
        with pytest.raises(ConfigError, match=r"version 1\.\d+\.\d+ lacks \(No module.*Take engine: flower"):
            engine.run(config(f"simulation.engine={name}"))
    check_machine(config("simulation.engine=flower"))


@pytest.mark.parametrize("num_clients", [12, 14])
def test_without_replacement_nobody_is_asked_twice_also_after_a_resumption(config: Any, num_clients: int) -> None:
    settings = [
        "simulation.sampling=without_replacement",
        "simulation.clients_per_round=3",
        "simulation.num_rounds=4",
        f"simulation.num_clients={num_clients}",
        "defenses=[]",
    ]
    folder = engine.run(config(*settings))
    asked = [record["sampled"] for record in folder.rounds()[1:]]
    assert [len(round_) for round_ in asked] == [3] * 4
    everybody = [client for round_ in asked for client in round_]
    assert len(set(everybody)) == 12
    assert asked != [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    engine.resume(folder.path, from_round=2)
    assert [record["sampled"] for record in folder.rounds()[1:]] == asked
    twice = engine.run(config(*settings, "simulation.sampling=uniform")).rounds()[1:]
    assert len({client for record in twice for client in record["sampled"]}) < 12


def test_a_folder_that_is_no_run_and_a_missing_checkpoint_are_named(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        engine.resume(tmp_path)
    folder = engine.run(config())
    with pytest.raises(ConfigError, match=r"no checkpoint of round 99; there are: 3, 4, 5"):
        engine.resume(folder.path, from_round=99)


def test_poisoned_clients_never_touch_the_test_set(config: Any) -> None:
    experiment = Resources(config())
    x, y = (t.clone() for t in experiment.dataset.test.tensors())
    for client_id in range(12):
        arrays = [np.zeros_like(p.detach().numpy()) for p in experiment.new_model().parameters()]
        build_client(experiment, client_id).fit(arrays, {"server-round": 1})
    again_x, again_y = experiment.dataset.test.tensors()
    assert bool((again_x == x).all())
    assert bool((again_y == y).all())


def test_a_fixed_number_of_adversaries_takes_part_in_every_round(config: Any) -> None:
    settings = ("simulation.num_clients=30", "simulation.clients_per_round=8", "simulation.num_rounds=6")
    pool = ("adversaries={count: 9}", "simulation.adversaries_per_round=3", "defenses=[]")
    rounds = engine.run(config(*settings, *pool)).rounds()[1:]
    assert [len(record["adversaries"]) for record in rounds] == [3] * 6
    assert [len(record["sampled"]) for record in rounds] == [8] * 6
    assert len({tuple(record["adversaries"]) for record in rounds}) > 2
    by_chance = engine.run(config(*settings, "adversaries={count: 9}", "defenses=[]")).rounds()[1:]
    assert len({len(record["adversaries"]) for record in by_chance}) > 1


def test_when_fewer_adversaries_are_active_the_places_go_to_the_others(config: Any) -> None:
    settings = ("adversaries={count: 3, first_round: 3}", "simulation.adversaries_per_round=2", "defenses=[]")
    rounds = engine.run(config(*settings)).rounds()[1:]
    assert [len(record["adversaries"]) for record in rounds] == [0, 0, 2, 2, 2]
    assert [len(record["sampled"]) for record in rounds] == [9] * 5


def test_the_record_says_what_the_attackers_knew_and_chose(config: Any) -> None:
    folder = engine.run(config("attacks=[{name: alie, z: 0.5, knowledge: all}]", "adversaries={count: 3}"))
    assert [entry["name"] for entry in folder.rounds()[1]["defenses"]] == ["NormClipping", "MultiKrum"]
    assert folder.rounds()[1]["collusion"]["ALIE"]["z"] == 0.5
    known = json.loads((folder.path / "summary.json").read_text())["attackers"]
    assert known == [{"name": "ALIE", "knowledge": "all", "knows_defense": False}]


def test_colluders_change_the_run_and_a_resumed_one_ends_alike(config: Any) -> None:
    attack = ("attacks=[{name: alie, z: 1.5}]", "adversaries={count: 3}", "defenses=[{name: median}]")
    whole = engine.run(config(*attack))
    honest = engine.run(config(*attack[1:], "attacks=[]", "adversaries=null"))
    assert figures(whole)[-1]["accuracy"] != figures(honest)[-1]["accuracy"]
    again = engine.resume(whole.path, from_round=3)
    assert figures(again) == figures(whole)
