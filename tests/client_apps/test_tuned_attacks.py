"""Attacks that are tuned on the deployed defense, in whole short runs: they do harm, and the same harm every time."""

import pytest
from safetensors.numpy import load_file

from flsec.simulations import engine
from flsec.simulations.config import make_config


def run(folder, *attacks):
    config = {
        "name": "tuned",
        "data": {"name": "digits", "partition": {"name": "dirichlet", "alpha": 0.5}},
        "model": {"name": "softmax"},
        "training": {"learning_rate": 0.1, "batch_size": 16},
        "defenses": [{"name": "trimmed_mean", "num_trimmed": 3}],
        "attacks": list(attacks),
        "adversaries": {"count": 3} if attacks else None,
        "simulation": {"engine": "inprocess", "num_clients": 12, "num_rounds": 5},
        "output": {"folder": str(folder), "plots": False, "evaluate_every": 5},
    }
    return engine.run(make_config(config))


@pytest.fixture(scope="module")
def clean_loss(tmp_path_factory):
    return run(tmp_path_factory.mktemp("clean")).rounds()[-1]["loss"]


@pytest.mark.parametrize(
    "attack",
    [
        {"name": "adaptive_line_search", "reverse": "all"},
        {"name": "adaptive_pool", "jitter": 0.05},
        {"name": "agr_tailored"},
        {"name": "agr_tailored", "rule": "trimmed_mean"},
        {"name": "optimised_alie"},
        {"name": "optimised_ipm"},
    ],
    ids=lambda attack: "-".join(str(value) for value in attack.values()),
)
def test_it_raises_the_loss_and_two_runs_agree(attack, clean_loss, tmp_path):
    one, other = (run(tmp_path / name, attack) for name in "ab")
    assert one.rounds()[-1]["loss"] > 1.02 * clean_loss
    a, b = (load_file(folder.path / "model.safetensors") for folder in (one, other))
    assert all((a[name] == b[name]).all() for name in a)
    assert all(record["collusion"] for record in one.rounds()[1:])
