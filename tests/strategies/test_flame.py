import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.flame import flame
from flsec.errors import ConfigError
from flsec.strategies.flame import Flame
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(n, SIZE, generator=generator)


def play(defense, rows, **facts):
    return defense.on_aggregation(defense.before_aggregation(cohort(rows, **facts)))


@pytest.mark.parametrize("compare", ["updates", "models"])
def test_computes_the_rule_with_a_rounds_own_noise(compare):
    model = torch.linspace(-2, 2, SIZE)
    defense = Flame(FedAvg(), compare=compare, noise=0.01, seed=4)
    for number in (1, 2):
        around = model if compare == "models" else None
        expected = flame(updates(1), noise=0.01, seed=4, round=number, model=around)
        torch.testing.assert_close(play(defense, updates(1), round=number, model=model), expected)


def test_an_attacker_is_dropped_and_the_report_says_how_far_it_was():
    rows = updates(2)
    rows[3] *= -4
    defense = Flame(FedAvg(), noise=0.0)
    kept = defense.before_aggregation(cohort(rows))
    assert 3 not in kept.client_ids
    assert int(defense._facts["scores"].argmax()) == 3
    assert float(defense.on_aggregation(kept).norm()) <= defense._facts["max_norm"] * (1 + 1e-6)


def test_trusted_numbers_of_examples_weigh_the_clipped_rows():
    row, counts = updates(5, 1)[0], torch.arange(1.0, 6.0, dtype=torch.float64)
    rows = row * torch.tensor([0.9, 0.95, 1.0, 2.0, 2.5])[:, None]
    result = play(Flame(FedAvg(), noise=0.0, weighting="examples"), rows, num_examples=counts)
    torch.testing.assert_close(result, row * (0.9 * 1 + 0.95 * 2 + 1.0 * (3 + 4 + 5)) / 15)


def test_refuses_settings_before_the_run():
    with pytest.raises(ConfigError, match="noise"):
        Flame(FedAvg(), noise=-0.1)
    with pytest.raises(ConfigError, match="compare"):
        Flame(FedAvg(), compare="both")
