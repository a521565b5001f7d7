"""Every attack and every defense in a run whose model has BatchNorm: its statistics are no weights anywhere."""

import json

import pytest
from safetensors.numpy import load_file

from flsec.client_apps import ATTACKS
from flsec.parameters import parameters_of
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.supplies import SUPPLIED_TO_ATTACKS, SUPPLIED_TO_DEFENSES
from flsec.strategies import DEFENSES

EXPERIMENT = """
name: trial
seed: 5
data: {name: digits, root_samples: 20, client_sample_share: 0.1}
model: {name: tests.support.batch_norm:Model}
training: {learning_rate: 0.1, steps: 2, batch_size: 8}
simulation: {engine: inprocess, num_clients: 10, num_rounds: 2}
output: {plots: false}
"""
SETTINGS = {
    "alpha": 0.5, "boost": 4.0, "epsilon": 0.5, "k": 5, "max_norm": 3.0, "num_byzantine": 1, "num_iterations": 1,
    "num_selected": 3, "num_trimmed": 1, "radius": 3.0, "scale": 4.0, "std": 0.01, "threshold": 2.0,
}  # fmt: skip
BESIDES = {
    "back_gradient": {"iterations": 1, "num_samples": 8},
    "eavesdrop": {"attack": None},
    "fedinv": {"num_steps": 3},
    "label_flipping": {"source": 3, "target": 9},
    "trimmed_mean": {"num_trimmed": 1},
    "semantic_backdoor": {"source": 7, "target": 1},
}
BY = "adversaries={ids: [2, 7]}"


def entry(registry, name, supplied, **settings):
    """The shortest entry of an experiment's file for an attack or a defense."""
    known = parameters_of(registry.get(name))
    needed = [key for key, (_, p) in known.items() if p.default is p.empty and key not in (*supplied, "strategy")]
    given = {"name": name, **{key: SETTINGS[key] for key in needed}, **BESIDES.get(name, {}), **settings}
    return json.dumps([given])


def check_run(tmp_path, *settings):
    file = tmp_path / "trial.yaml"
    file.write_text(EXPERIMENT)
    folder = engine.run(load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings]))
    records = folder.rounds()[1:]
    assert [record["round"] for record in records] == [1, 2]
    for record in records:
        assert not record["quarantined"]
        assert record["kept_previous_model"] is None
    model = load_file(folder.path / "model.safetensors")
    assert (model["normalise.running_var"] > 0).all()
    assert (model["normalise.running_var"] != 1).any()  # clients' statistics arrive
    assert model["normalise.num_batches_tracked"] == 4  # two rounds of two steps, in every client


@pytest.mark.parametrize("name", [n for n, a in ATTACKS.items() if getattr(a, "fits_inputs", None) != "tokens"])
def test_every_attack_works_on_a_model_with_batch_norm(tmp_path, name):
    check_run(tmp_path, f"attacks={entry(ATTACKS, name, SUPPLIED_TO_ATTACKS)}", BY, *defense_needed_by(name))


def defense_needed_by(attack: str) -> list[str]:
    """Return the setting of the only defense on which an attack has any effect, if that is so."""
    needed = ATTACKS.get(attack).needs_defense
    return [] if needed is None else [f"defenses={entry(DEFENSES, needed, SUPPLIED_TO_DEFENSES)}"]


def test_attackers_who_try_the_defense_out_know_the_whole_model(tmp_path):
    attack = entry(ATTACKS, "adaptive_top_k", SUPPLIED_TO_ATTACKS, knowledge="all")
    check_run(tmp_path, f"attacks={attack}", BY, f"defenses={entry(DEFENSES, 'sparsefed', SUPPLIED_TO_DEFENSES)}")


@pytest.mark.parametrize("name", DEFENSES.names())
def test_every_defense_works_on_a_model_with_batch_norm(tmp_path, name):
    attacked = ["attacks=[{name: sign_flipping}]", BY] if name == "oracle_sgd" else []  # it must be told who attacks
    check_run(tmp_path, f"defenses={entry(DEFENSES, name, SUPPLIED_TO_DEFENSES)}", *attacked)


def test_noise_on_uploads_spares_the_statistics(tmp_path):
    check_run(tmp_path, f"defenses={entry(DEFENSES, 'noisy_median', SUPPLIED_TO_DEFENSES, std=100.0)}")


def test_resnet_20_goes_through_a_round_that_is_attacked_and_defended(tmp_path):
    file = tmp_path / "trial.yaml"
    file.write_text(EXPERIMENT.replace("tests.support.batch_norm:Model", "resnet"))
    settings = ["attacks=[{name: sign_flipping, scale: 4}]", BY, "defenses=[{name: multi_krum, num_byzantine: 2}]"]
    folder = engine.run(load_config(file, [f"output.folder={tmp_path / 'runs'}", "simulation.num_rounds=1", *settings]))
    record = folder.rounds()[1]
    assert not record["quarantined"]
    assert record["kept_previous_model"] is None
    assert record["defenses"][0]["kept"] == [0, 1, 3, 4, 5, 6, 8, 9]
    model = load_file(folder.path / "model.safetensors")
    variances = [value for name, value in model.items() if name.endswith("running_var")]
    assert len(variances) == 19
    assert all((value > 0).all() and (value != 1).any() for value in variances)
    assert {int(v) for name, v in model.items() if name.endswith("num_batches_tracked")} == {2}
