"""What a simulation supplies to attacks by name, and SparseFed's studies."""

import json

import pytest
import torch
from safetensors.torch import load_file

from flsec.client_apps import AdaptiveTopK, ProjectedGradient
from flsec.data import load_dataset
from flsec.errors import ConfigError
from flsec.metrics import certified_radius_of_run
from flsec.simulations import engine
from flsec.simulations.checks import check_data
from flsec.simulations.config import load_config, packaged_experiments
from flsec.simulations.resources import Resources, StandIns
from flsec.strategies import SparseFed

EXPERIMENT = """
name: trial
seed: 5
data: {name: digits, partition: {name: one_class, samples_per_client: 5}}
model: {name: softmax}
training: {learning_rate: 0.1, steps: 1, batch_size: 1.0, schedule: triangular}
defenses:
  - {name: sparsefed, k: 40, max_norm: 1.0, momentum: 0.0, variant: paper_main}
attacks:
  - {name: projected_gradient, num_auxiliary: 30, max_norm: 0.9}
adversaries: {count: 20}
simulation: {engine: inprocess, num_clients: 200, clients_per_round: 40, num_rounds: 3}
"""


@pytest.fixture
def config(tmp_path):
    def load(*settings):
        file = tmp_path / "trial.yaml"
        file.write_text(EXPERIMENT)
        return load_config(file, [f"output.folder={tmp_path / 'runs'}", "output.plots=false", *settings])

    return load


def test_attackers_get_test_samples_the_model_and_the_clients_training(config):
    experiment = Resources(config())
    (attack,) = experiment.attacks
    assert isinstance(attack, ProjectedGradient)
    x, y = experiment.dataset.test.tensors()
    for sample, label in zip(attack.inputs, attack.true_labels, strict=True):
        rows = (x == sample).flatten(1).all(dim=1).nonzero().flatten().tolist()
        assert label in y[rows]
    assert len(attack.inputs) == 30
    assert attack.training == config().training
    assert (attack.num_rounds, attack.seed, attack.device) == (3, 5, torch.device("cpu"))
    ours, theirs = attack.model_factory(), experiment.new_model()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    again, labels = experiment.dataset.test.tensors()
    assert torch.equal(again, x)
    assert torch.equal(labels, y)  # the wrong labels are the attackers' alone


def test_the_defense_gets_training_and_rounds(config):
    strategy = Resources(config()).new_strategy()
    assert isinstance(strategy, SparseFed)
    assert strategy.training == config().training
    assert strategy.num_rounds == 3


def test_a_file_cannot_set_what_is_supplied_and_is_checked_without_data(config):
    (attack,) = StandIns(Resources(config())).attacks
    assert isinstance(attack, ProjectedGradient)
    for name in ("auxiliary_data", "model_factory", "training", "num_rounds", "device"):
        with pytest.raises(ConfigError, match=rf"attacks\[0\].{name}: no such key"):
            config(f"attacks=[{{name: projected_gradient, {name}: 3}}]")
    with pytest.raises(ConfigError, match=r"attacks\[0\].boost: must be more than 0"):
        config("attacks=[{name: projected_gradient, boost: 0}]")
    adaptive = config("attacks=[{name: adaptive_top_k, k: 0.1}]")
    check_data(adaptive)
    assert isinstance(Resources(adaptive).attacks[0], AdaptiveTopK)


def test_an_attacked_run_stays_within_its_certified_radius(config):
    """One plain step a client, nothing honest clipped, pixels in [0, 1]: the premises of SparseFed's theory."""
    folders = [engine.run(config(*s)) for s in ([], ["attacks=[]", "adversaries=null"])]
    attacked, clean = (folder.rounds() for folder in folders)
    for records in (attacked, clean):
        assert all(record["defenses"][0]["notes"]["clipped"] == 0 for record in records[1:])
    assert all(len(record["adversaries"]) > 0 for record in attacked[1:])
    assert all("attack_accuracy" in record["attack"] for record in attacked)
    models = [load_file(folder.path / "model.safetensors") for folder in folders]
    size = sum(value.numel() for value in models[0].values())
    distance = sum(float((models[0][name] - models[1][name]).abs().sum()) for name in models[0])
    training = config().training
    radii = certified_radius_of_run(attacked, training, size=size, num_rounds=3, twin=clean)
    assert 0 < distance <= radii[-1]
    assert radii == sorted(radii)
    assert json.loads((folders[0].path / "summary.json").read_text())["attack"]["attack_accuracy"]["max"] <= 1


STUDIES = [name for name in packaged_experiments() if name.startswith("sparsefed/")]


@pytest.mark.parametrize("name", STUDIES)
def test_studies_start_on_digits(name, tmp_path):
    small = [
        "data={name: digits, partition: {name: one_class, samples_per_client: 5}}",
        "model={name: softmax}",
        "simulation={engine: inprocess, num_clients: 250, clients_per_round: 20, num_rounds: 3}",
        "adversaries={fraction: 0.1}",
        f"output={{folder: {tmp_path}, plots: false}}",
        "defenses.0.k=50",
    ]
    whole = load_config(packaged_experiments()[name])
    assert whole.attacks[0].name == "projected_gradient"
    assert whole.adversaries["fraction"] == 0.02
    folder = engine.run(load_config(packaged_experiments()[name], small))
    last = folder.rounds()[-1]
    assert last["round"] == 3
    assert last["defenses"][0]["notes"]["k"] == 50
    assert 0 <= last["attack"]["attack_accuracy"] <= 1
    count = min(whole.attacks[0].params["num_auxiliary"], len(load_dataset("digits").test))
    poisoned = round(last["attack"]["attack_accuracy"] * count)
    oif = json.loads((folder.path / "summary.json").read_text())["outsized_impact_factor"]
    assert oif == pytest.approx(poisoned / (0.1 * 250 * 5))


def test_there_is_a_small_study_and_one_of_the_papers_size():
    assert STUDIES == ["sparsefed/cross_device", "sparsefed/small"]
    paper = load_config(packaged_experiments()["sparsefed/cross_device"])
    assert (paper.simulation.num_clients, paper.simulation.clients_per_round) == (10_000, 100)
    assert paper.data.partition.params["samples_per_client"] == 5
