import math

import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._contracts.server import flower_strategy, identify
from flsec.errors import ConfigError
from flsec.strategies import AdaptiveQuantileClipping, Krum
from tests.strategies.test_pre_aggregation import assert_resumes, outliers, step
from tests.support.boundary import both_apis, play, report, sends
from tests.support.cohorts import SIZE, cohort

N = 11


@pytest.fixture(autouse=True)
def _identity():
    identify()


def rows_of(norms):
    directions = torch.randn(len(norms), SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lengths = torch.tensor(norms, dtype=torch.float64)[:, None]
    return (directions / directions.norm(dim=1, keepdim=True) * lengths).float()


def entries_of(values):
    rows = torch.zeros(len(values), SIZE)
    rows[:, 3] = torch.tensor(values)
    return rows


def notes(defense):
    return defense.stated_notes()


def test_a_round_is_clipped_by_the_estimate_that_it_finds():
    defense = AdaptiveQuantileClipping(FedAvg(), quantile=0.5, learning_rate=math.log(4.0))
    rows = rows_of([0.5, 1.5, 3.0, 8.0])
    clipped = defense.before_aggregation(cohort(rows))
    torch.testing.assert_close(clipped.updates.norm(dim=1), torch.tensor([0.5, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(torch.cosine_similarity(clipped.updates, rows), torch.ones(4))
    assert defense.norm_estimate == pytest.approx(4 ** (0.5 - 0.25))  # one of four is below
    assert notes(defense)["max_norm"] == 1.0
    assert notes(defense)["clipped"] == 3
    assert clipped.client_ids == (0, 1, 2, 3)
    within = cohort(rows_of([0.1, 0.2]))
    assert defense.before_aggregation(within) is within


def test_zeroing_goes_as_in_tensorflow_federated():
    """With an estimate of 1, a bound of 2 * 1 + 1: 3.5 goes; then the estimate is 2, and with a bound of 5 it stays."""
    defense = AdaptiveQuantileClipping(
        FedAvg(),
        initial_norm=100.0,
        zeroing=True,
        zeroing_quantile=0.5,
        zeroing_learning_rate=math.log(4.0),
        initial_entry=1.0,
    )
    given = cohort(entries_of([1.5, -3.5]), client_ids=(4, 9))
    first = defense.before_aggregation(given)
    assert first.updates[:, 3].tolist() == [1.5, 0.0]
    assert first.client_ids == (4, 9)  # a client of no update
    assert notes(defense)["max_entry"] == 3.0
    assert notes(defense)["zeroed"] == [9]
    assert defense.entry_estimate == pytest.approx(2.0)
    second = defense.before_aggregation(given)
    assert second.updates[:, 3].tolist() == [1.5, -3.5]
    assert notes(defense)["max_entry"] == pytest.approx(5.0)
    assert notes(defense)["zeroed"] == []


def test_a_zeroed_update_counts_as_short_for_the_clipping_after_it():
    defense = AdaptiveQuantileClipping(FedAvg(), initial_norm=1.0, zeroing=True, initial_entry=1.0)
    clipped = defense.before_aggregation(cohort(entries_of([2.0, 50.0, 0.5, 0.5])))
    assert clipped.updates[:, 3].tolist() == [1.0, 0.0, 0.5, 0.5]
    assert notes(defense)["clipped"] == 1
    assert defense.norm_estimate == pytest.approx(math.exp(-0.2 * (0.75 - 0.8)))


def test_defaults_are_those_of_tensorflow_federated():
    defense = AdaptiveQuantileClipping(FedAvg(), zeroing=True)
    assert (defense.norm_estimate, defense.quantile, defense.learning_rate) == (1.0, 0.8, 0.2)
    assert (defense.entry_estimate, defense.zeroing_quantile) == (10.0, 0.98)
    assert (defense.zeroing_multiplier, defense.zeroing_increment) == (2.0, 1.0)
    assert defense.zeroing_learning_rate == pytest.approx(math.log(10.0))


@pytest.mark.parametrize("zeroing", [False, True])
def test_hostile_norms_do_not_take_the_bound_away(zeroing):
    """Two of twelve send 1e30 in each of 200 rounds: the bound stays within the honest norms."""
    gen = torch.Generator().manual_seed(0)
    defense = AdaptiveQuantileClipping(FedAvg(), zeroing=zeroing, zeroing_quantile=0.8)
    for round in range(1, 201):
        norms = (0.5 + torch.rand(12, generator=gen)).tolist()
        clipped = defense.before_aggregation(cohort(rows_of([1e30, 1e30, *norms[2:]]), round=round))
    assert 0.5 <= defense.norm_estimate <= 1.5 * math.exp(0.2)
    assert float(clipped.updates.norm(dim=1).max()) <= 1.5 * math.exp(0.2)
    if zeroing:
        assert notes(defense)["zeroed"] == [0, 1]


def test_more_hostile_clients_than_the_quantile_leaves_room_for_let_its_estimate_grow():
    """What the docstring says: zeroing at 0.98 is for 2 % of them; each round still moves it by less than tenfold."""
    defense, before = AdaptiveQuantileClipping(FedAvg(), zeroing=True), 10.0
    for round in range(1, 20):
        defense.before_aggregation(cohort(rows_of([1e30, 1e30, *[1.0] * 10]), round=round))
        assert before < defense.entry_estimate < 10 * before
        before = defense.entry_estimate
    assert defense.norm_estimate < 1.5  # clipping at 0.8 leaves room for two of twelve


@both_apis
def test_the_bound_follows_the_updates_and_hostile_rounds_go_on(api):
    strategy = AdaptiveQuantileClipping(Krum(flower_strategy(api, "FedAvg", N), num_byzantine=2), initial_norm=1e-3)
    server, _, moved = step(api, strategy, {2: outliers, 9: outliers})
    assert float(moved.norm()) <= 1e-3 * (1 + 1e-3)
    for number in range(2, 80):
        server.play([number], sends({2: outliers, 9: outliers}))
    bound = report(server).verdicts[0].notes["max_norm"]
    assert 0.2 < bound < 2.0  # honest steps of 0.1 in 17 coordinates, and noise


@both_apis
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(api):
    def make():
        return AdaptiveQuantileClipping(flower_strategy(api, "FedAdam", N), initial_norm=0.3, zeroing=True)

    assert_resumes(api, make)
    strategy = make()
    play(api, strategy, N, [1, 2])
    assert strategy.state_dict()["state"] == {
        "norm_estimate": strategy.norm_estimate,
        "entry_estimate": strategy.entry_estimate,
    }
    assert strategy.norm_estimate != 0.3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("quantile", 1.0), ("quantile", 0.0), ("learning_rate", 0.0), ("initial_norm", 0.0), ("zeroing_increment", -1.0)],
)
def test_settings_out_of_range(name, wrong):
    with pytest.raises(ConfigError, match=name):
        AdaptiveQuantileClipping(FedAvg(), **{name: wrong})
