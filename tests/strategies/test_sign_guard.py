import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.sign_guard import sign_guard
from flsec.errors import ConfigError
from flsec.strategies.sign_guard import SignGuard
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(n, SIZE, generator=generator)


def play(defense, rows, round=1, **facts):
    return defense.on_aggregation(defense.before_aggregation(cohort(rows, round=round, **facts)))


@pytest.mark.parametrize("similarity", ["none", "cosine", "distance"])
def test_computes_the_rule_with_the_aggregate_of_the_round_before(similarity):
    defense, previous = SignGuard(FedAvg(), similarity=similarity, fraction=0.5, seed=3), None
    for number in (1, 2, 3):
        expected = sign_guard(updates(number), similarity, previous, fraction=0.5, seed=3, round=number)
        previous = play(defense, updates(number), number)
        torch.testing.assert_close(previous, expected)
        assert torch.equal(defense.state_dict()["state"]["previous"], previous)


def test_reports_norms_in_units_of_their_median_and_who_is_kept():
    rows = updates(4)
    rows[2] *= 100
    defense = SignGuard(FedAvg())
    assert 2 not in defense.before_aggregation(cohort(rows)).client_ids
    middle = rows.norm(dim=1).median()
    torch.testing.assert_close(defense._facts["scores"], (rows.norm(dim=1) / middle).double())
    assert defense._facts["max_norm"] == pytest.approx(float(middle))


def test_trusted_numbers_of_examples_weigh_the_clipped_rows():
    row, counts = updates(5, 1)[0], torch.arange(1.0, 6.0, dtype=torch.float64)
    rows = row * torch.tensor([0.9, 0.95, 1.0, 2.0, 2.5])[:, None]
    defense = SignGuard(FedAvg(), weighting="examples")
    expected = row * (0.9 * 1 + 0.95 * 2 + 1.0 * (3 + 4 + 5)) / 15
    torch.testing.assert_close(play(defense, rows, num_examples=counts), expected)
    silent = play(defense, rows, num_examples=torch.zeros(5, dtype=torch.float64))  # claims of 0 count alike
    torch.testing.assert_close(silent, row * (0.9 + 0.95 + 3) / 5)


def test_nobody_is_kept_where_the_filters_contradict_each_other():
    rows = torch.zeros(4, SIZE)
    rows[0] = 1.0  # the median norm is 0, and so is the aggregate
    assert not play(SignGuard(FedAvg()), rows).any()


def test_refuses_bounds_that_exclude_the_median():
    with pytest.raises(ConfigError, match="upper"):
        SignGuard(FedAvg(), upper=1.0)
    with pytest.raises(ConfigError, match="similarity"):
        SignGuard(FedAvg(), similarity="euclid")
