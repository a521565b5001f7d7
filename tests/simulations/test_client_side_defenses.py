"""Defenses with a client half, named in a file and nothing more."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flsec.client_apps import NoisyClient, RSAClient, SoteriaClient, WBCClient
from flsec.metrics import certified_accuracy, certify_model
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.resources import Resources
from flsec.simulations.run_folder import RunFolder

EXPERIMENT = """
name: trial
seed: 1
data: {name: digits, partition: {name: iid}}
model: {name: mlp, hidden: [24]}
training: {learning_rate: 0.1, momentum: 0.5, epochs: 2, batch_size: 16}
simulation: {engine: inprocess, num_clients: 6, num_rounds: 3}
output: {plots: false, keep_checkpoints: null}
"""
DEFENSES = {
    "{name: noisy_median, std: 0.02}": NoisyClient,
    "{name: rsa, delta: 0.03}": RSAClient,
    "{name: flwbc}": WBCClient,
    "{name: soteria, percentile: 25}": SoteriaClient,
}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    file = tmp_path / "trial.yaml"
    file.write_text(EXPERIMENT)
    return lambda *settings: load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings])


def accuracy(folder: RunFolder) -> float:
    return float(folder.rounds()[-1]["accuracy"])


def weights(folder: RunFolder) -> bytes:
    return (folder.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("defense", DEFENSES)
def test_the_half_comes_with_the_name_and_a_resumed_run_is_the_same(config: Any, defense: str) -> None:
    settings = config(f"defenses=[{defense}]", "simulation.clients_per_round=4")
    halves = Resources(settings).halves
    assert [type(half) for half in halves] == [DEFENSES[defense]]
    assert getattr(halves[0], "seed", 1) == 1
    whole = engine.run(settings)
    assert all(not record["quarantined"] for record in whole.rounds()[1:])
    expected = weights(whole)
    (whole.path / "model.safetensors").unlink()
    assert engine.resume(whole.path, from_round=1).path == whole.path
    assert weights(whole) == expected


def test_they_train_and_the_half_is_what_makes_the_difference(config: Any) -> None:
    plain = engine.run(config())
    assert accuracy(plain) > 0.8
    for defense in DEFENSES:
        convex = ["model={name: softmax}", "simulation.num_rounds=5"] if "rsa" in defense else []
        folder = engine.run(config(f"defenses=[{defense}]", *convex))
        assert accuracy(folder) > 0.5, defense
        assert weights(folder) != weights(plain), defense
    loud = engine.run(config("defenses=[{name: noisy_median, std: 5.0}]"))
    assert accuracy(loud) < 0.5


def test_halves_nest_as_their_defenses_do(config: Any) -> None:
    names = ["crfl", "soteria", "flwbc", "noisy_median, std: 0.01"]
    settings = config(f"defenses=[{', '.join('{name: ' + name + '}' for name in names)}]", "simulation.num_rounds=2")
    assert [type(half) for half in Resources(settings).halves] == [NoisyClient, WBCClient, SoteriaClient]
    folder = engine.run(settings)
    assert [verdict["name"] for verdict in folder.rounds()[-1]["defenses"]] == [
        "CRFL",
        "Soteria",
        "FLWBC",
        "NoisyMedian",
    ]
    assert accuracy(folder) > 0.3


def test_crfl_ends_without_noise_and_its_certified_accuracy_falls_with_the_radius(config: Any) -> None:
    settings = config("defenses=[{name: crfl, max_norm: 8.0, std: 0.02}]")
    folder = engine.run(settings)
    notes = [record["defenses"][0]["notes"] for record in folder.rounds()[1:]]
    assert [note["noise"] for note in notes] == [0.02, 0.02, 0.0]
    experiment = Resources(settings)
    model = experiment.new_model()
    state = load_file(folder.path / "model.safetensors")
    model.load_state_dict(state)
    norm = torch.cat([tensor.flatten() for tensor in state.values()]).norm()
    assert norm <= 8.0 * (1 + 1e-5)
    x, y = experiment.test_data
    certificate = certify_model(
        model,
        x[:100],
        attacker_weights=[1 / 6],
        learning_rate=0.1,
        num_steps=30,
        poisoned_share=0.05,
        lipschitz=10.0,
        max_norm=8.0,
        std=0.02,
        num_copies=200,
    )
    curve = certified_accuracy(certificate, y[:100], [0.0, 0.005, 0.01, 0.02, 1.0])
    assert curve[0] > 0.6
    assert all(a >= b for a, b in itertools.pairwise(curve))
    assert curve[-1] == 0
