import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.auror import auror_suspicions
from flsec.strategies.auror import Auror
from tests.support.claims import HONEST, HOSTILE, Descent
from tests.support.cohorts import SIZE, cohort

ATTACKERS = set(range(HONEST, HONEST + HOSTILE))


def updates(seed, n=9):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def play(defense, rows, ids=None, round=1):
    return defense.before_aggregation(cohort(rows, ids, round=round)).client_ids


def test_colluders_are_removed_for_good_once_they_were_watched_and_honest_clients_are_kept():
    removed = 0
    for seed in range(6):
        descent, defense = Descent(seed, "sign_flip"), Auror(FedAvg(), num_rounds_watched=4)
        kept = [descent.step(defense) for _ in range(6)]
        assert kept[:3] == [tuple(range(HONEST + HOSTILE))] * 3
        assert not set(kept[3]) & ATTACKERS
        assert set(defense.removed) >= ATTACKERS
        removed += len(set(defense.removed) - ATTACKERS)
    assert removed <= 0.05 * 6 * HONEST


def test_where_nobody_attacks_hardly_anybody_is_removed():
    removed = 0
    for seed in range(6):
        descent, defense = Descent(seed), Auror(FedAvg(), num_rounds_watched=4)
        for _ in range(5):
            descent.step(defense)
        removed += len(defense.removed)
    assert removed <= 0.05 * 6 * (HONEST + HOSTILE)


def test_shares_are_of_all_indicative_parameters_of_the_rounds_a_client_was_watched_in():
    defense = Auror(FedAvg(), min_distance=3.0, num_rounds_watched=3)
    parts = []
    for number in (1, 2):
        rows = updates(number)
        play(defense, rows, round=number)
        shares = auror_suspicions(rows, 3.0)
        assert defense._facts["indicative"] > 0
        parts.append((shares, defense._facts["indicative"]))
    total = sum(count for _, count in parts)
    expected = sum(shares * count for shares, count in parts) / total
    torch.testing.assert_close(defense._facts["scores"], expected)


def test_a_client_that_comes_late_is_watched_from_then_on_and_others_no_longer():
    defense = Auror(FedAvg(), num_rounds_watched=2, min_distance=15.0)
    for number in (1, 2):
        play(defense, updates(number), ids=range(9), round=number)
    before = {client_id: dict(known) for client_id, known in defense.clients.items()}
    rows = updates(3, 10)
    rows[9] = 50
    assert len(play(defense, rows, ids=range(10), round=3)) == 10
    assert {c: k for c, k in defense.clients.items() if c != 9} == before
    rows = updates(4, 10)
    rows[9] = -50
    assert play(defense, rows, ids=range(10), round=4) == tuple(range(9))
    assert defense.removed == {9: 4}
    assert defense._facts["removed"] == 1
    assert play(defense, updates(5, 10), ids=range(10), round=5) == tuple(range(9))


def test_half_or_more_are_never_removed():
    defense = Auror(FedAvg(), num_rounds_watched=1, min_distance=1.0, max_share=0.01)
    assert len(play(defense, updates(1))) == 9
    assert not defense.removed


@pytest.mark.parametrize("count", [1, 2])
def test_few_clients_are_not_judged(count):
    defense = Auror(FedAvg(), num_rounds_watched=1)
    assert len(play(defense, 9 * updates(1, count))) == count
