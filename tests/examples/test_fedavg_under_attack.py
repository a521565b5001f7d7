"""A hundred plain lines and flsec's engine give the same numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from examples import fedavg_under_attack as plain
from flsec.aggregation import median
from flsec.simulations.config import load_config, resolve_experiment
from flsec.simulations.engine import run

NUM_ROUNDS = 6


def by_engine(folder: Path, *settings: str) -> plain.Run:
    """Run ``quickstart`` in this process; its model holds a weight and a bias for each layer, in this order."""
    given = [f"output.folder={folder}", "output.plots=false", "simulation.engine=inprocess"]
    config = load_config(resolve_experiment("quickstart"), [*given, f"simulation.num_rounds={NUM_ROUNDS}", *settings])
    finished = run(config)
    weights = load_file(finished.path / "model.safetensors")
    names = [name for layer in (1, 3) for name in (f"layers.{layer}.weight", f"layers.{layer}.bias")]
    assert sorted(weights) == sorted(names)
    accuracies = [record["accuracy"] for record in finished.rounds()]
    return plain.Run(accuracies, torch.cat([weights[name].flatten() for name in names]))


def median_rule(updates: Tensor, num_examples: Tensor) -> Tensor:
    return median(updates)


@pytest.mark.parametrize("attack", [False, True])
@pytest.mark.parametrize(
    ("rule", "defenses"), [(plain.fedavg, "defenses=[]"), (plain.robust, "name=quickstart")], ids=["fedavg", "robust"]
)
def test_the_engine_gives_the_numbers_of_the_plain_lines(rule, defenses, attack, tmp_path):
    settings = [defenses] if attack else [defenses, "attacks=[]", "adversaries=null"]
    engine = by_engine(tmp_path, *settings)
    expected = plain.run(rule, attack=attack, num_rounds=NUM_ROUNDS)
    assert engine.accuracies == expected.accuracies
    # The engine averages models, the plain lines add an average of updates: equal but for float32's rounding.
    size = max(1.0, float(expected.weights.abs().max()))  # undefended, the model grows by orders of magnitude
    torch.testing.assert_close(engine.weights, expected.weights, rtol=0, atol=1e-6 * size)


def test_with_a_rule_that_makes_one_aggregate_they_agree_to_the_bit(tmp_path):
    engine = by_engine(tmp_path, "defenses=[{name: median}]")
    expected = plain.run(median_rule, attack=True, num_rounds=NUM_ROUNDS)
    assert engine.accuracies == expected.accuracies
    assert torch.equal(engine.weights, expected.weights)


def test_the_comparison_can_fail():
    fedavg, robust = (plain.run(rule, attack=False, num_rounds=2) for rule in (plain.fedavg, plain.robust))
    assert fedavg.accuracies != robust.accuracies
    assert not torch.allclose(fedavg.weights, robust.weights, rtol=1e-6, atol=1e-6)


def test_the_attack_ruins_averaging_and_not_the_robust_rule():
    assert plain.run(plain.fedavg, attack=True, num_rounds=NUM_ROUNDS).accuracies[-1] < 0.5
    assert plain.run(plain.robust, attack=True, num_rounds=NUM_ROUNDS).accuracies[-1] > 0.8
