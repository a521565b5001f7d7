"""SIREN named in a file: its client half comes with it, it withstands a majority, and a resumed run is the same run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flsec.client_apps import ClientHalf, SirenClient
from flsec.simulations import engine
from flsec.simulations.clients import build_client
from flsec.simulations.config import load_config
from flsec.simulations.resources import Resources
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.server_strategies import fedavg
from flsec.strategies import Median, RobustStrategy, Siren
from tests.support.figures import figures

EXPERIMENT = """
name: siren
seed: 1
data: {name: digits, partition: {name: iid}}
model: {name: mlp, hidden: [32]}
training: {learning_rate: 0.1, momentum: 0.9, epochs: 2, batch_size: 16}
defenses:
  - {name: siren}
attacks:
  - {name: sign_flipping, scale: 4.0}
adversaries: {fraction: 0.8}
simulation: {engine: inprocess, num_clients: 10, num_rounds: 6}
output: {plots: false}
"""


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def start(*settings: str) -> RunFolder:
        file = tmp_path / "siren.yaml"
        file.write_text(EXPERIMENT)
        return engine.run(load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings]))

    return start


def accuracies(folder: RunFolder) -> list[float]:
    return [record["accuracy"] for record in folder.rounds()]


def test_against_80_percent_sign_flippers_siren_trains_and_neither_median_nor_averaging_do(run: Any) -> None:
    folder = run()
    assert accuracies(folder)[-1] > 0.85
    for others in ("[{name: median}]", "[]"):
        assert max(accuracies(run(f"defenses={others}", "simulation.num_rounds=4"))[1:]) < 0.3
    cases = [record["defenses"][0]["notes"]["case"] for record in folder.rounds()[1:]]
    assert cases[:2] == ["case 1 or 2: no alarm", "case 4: differing alarming clients"]
    second = folder.rounds()[2]
    assert second["clients"]["siren-alarm"] == 1.0
    [verdict] = second["defenses"]
    assert verdict["detection"]["recall"] == 1.0
    assert verdict["detection"]["false_positive_rate"] == 0.0
    notes, everybody = verdict["notes"], list(map(str, range(10)))
    assert notes["previous_round"] == "case 2: poisoned updates, no alarm"
    assert notes["alarms"] == list(range(10))
    assert sorted(notes["accuracies"], key=int) == everybody
    assert sorted(notes["dropped"], key=int) == sorted(map(str, second["adversaries"]), key=int)
    assert notes["penalties"] == {str(client): 1.0 for client in second["adversaries"]}
    assert notes["banned"] == []
    assert notes["rolled_back"]


def test_all_clients_run_the_half_of_a_defense_that_is_named_and_attacks_go_around_it(run: Any) -> None:
    folder = run("simulation.num_rounds=1")
    experiment = Resources(load_config(folder.path / "config.yaml"))
    assert [type(half) for half in experiment.halves] == [SirenClient]
    arrays = [p.detach().numpy() for p in experiment.new_model().parameters()]
    for client_id in range(10):
        client = build_client(experiment, client_id)
        uploaded, num_examples, metrics = client.fit([a.copy() for a in arrays], {"server-round": 1})
        whole = len(experiment.partition[client_id])
        assert num_examples == whole - whole // 10
        assert metrics["siren-alarm"] == 0
        own = vars(client)["_flsec_state"]["siren"][1]  # what was trained, before the attack
        sign = -4 if experiment.adversaries.is_adversary(client_id, 1) else 1  # type: ignore[union-attr]
        assert uploaded[0] - arrays[0] == pytest.approx(sign * (own[0] - arrays[0]), abs=1e-5)
    assert Resources(load_config(folder.path / "config.yaml", ["defenses=[]"])).halves == []


class Seeded(ClientHalf):
    def __init__(self, *, seed: int) -> None:
        super().__init__()
        self.seed = seed


def test_the_innermost_defenses_half_is_nearest_to_the_client_and_a_half_may_ask_for_the_seed() -> None:
    class Noisy(RobustStrategy):
        client_half = f"{__name__}:Seeded"

    members = [Noisy, Median, Siren]  # outermost first
    defenses, strategy = [SimpleNamespace(member=m) for m in members], SimpleNamespace(member=fedavg)
    halves = Resources(SimpleNamespace(defenses=defenses, strategy=strategy, seed=7)).halves  # type: ignore[arg-type]
    assert [type(half) for half in halves] == [SirenClient, Seeded]
    assert halves[1].seed == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_resumed_from_any_checkpoint_it_is_the_same_run(run: Any, strategy: str) -> None:
    settings = [
        f"strategy={{name: {strategy}}}",
        "output.keep_checkpoints=null",
        "simulation.clients_per_round=7",
        "training.epochs=1",
        "simulation.num_rounds=4",
    ]
    folder = run(*settings)
    expected, model = figures(folder), (folder.path / "model.safetensors").read_bytes()
    notes = [record["defenses"][0]["notes"] for record in folder.rounds()[1:]]
    assert any(note["rolled_back"] for note in notes[1:])
    assert any(set(note["alarms"]) - set(r["adversaries"]) for note, r in zip(notes, folder.rounds()[1:], strict=True))
    for round_ in (1, 3):
        (folder.path / "model.safetensors").unlink()
        engine.resume(folder.path, from_round=round_)
        assert figures(folder) == expected
        assert (folder.path / "model.safetensors").read_bytes() == model


def test_what_clients_keep_is_bounded_by_the_checkpoints_and_lies_in_the_runs_folder(run: Any) -> None:
    folder = run("output.checkpoint_every=2", "output.keep_checkpoints=2", "training.epochs=1")
    assert folder.checkpoint_rounds() == [4, 6]
    files = {path.name: sorted(p.name for p in path.iterdir()) for path in folder.client_states.iterdir()}
    assert files == {str(client): ["siren-000004.state", "siren-000006.state"] for client in range(10)}
    expected = figures(folder)
    engine.resume(folder.path, from_round=4)
    assert figures(folder) == expected
    plain = run("defenses=[]", "simulation.num_rounds=1")
    assert not plain.client_states.exists()


def test_a_client_without_its_half_loses_nothing_else(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flsec.simulations import clients

    def build(resources: Resources, client_id: int) -> Any:
        if client_id != 2:
            return build_client(resources, client_id)
        with monkeypatch.context() as patch:
            patch.setattr(Resources, "halves", [])
            return build_client(resources, client_id)

    monkeypatch.setattr(clients, "build_client", build)
    records = run("attacks=[]", "adversaries=null", "simulation.num_rounds=4").rounds()[1:]
    for record in records:
        assert record["quarantined"] == []
        (siren,) = record["defenses"]
        assert 2 in siren["kept"]
        assert 2 not in siren["notes"]["alarms"]
