"""Rules that need n >= 2 f + 1: whom they keep, what they note, and that they go on where ``unsafe`` lets them."""

import importlib

import numpy as np
import pytest

from flsec import ConfigError
from flsec._contracts.faults import first_array
from flsec._contracts.server import MODEL, ClassicServer, flower_strategy, honest, identify
from flsec.strategies import (
    CAF,
    SMEA,
    ComparativeGradientElimination,
    DivideAndConquer,
    MeanAroundMedian,
    MedianOfMeans,
    MinimumDiameterAveraging,
    MoNNA,
)

F = 3
CLIENTS, HOSTILE = range(1, 12), {2, 7, 11}
DROPPING = [MinimumDiameterAveraging, SMEA, MoNNA, ComparativeGradientElimination, DivideAndConquer]
ALL = [*DROPPING, MeanAroundMedian, CAF, MedianOfMeans]


def answer(round, client_id, arrays):
    reply = honest(round, client_id, arrays)[0]
    return [first_array(reply, lambda a: a + np.float32(5)) if client_id in HOSTILE else reply]


def played(defense, clients=CLIENTS, reply=answer, **settings):
    identify()
    strategy = defense(flower_strategy("classic", "FedAvg", len(clients)), num_byzantine=F, **settings)
    server = ClassicServer(strategy, clients).play([1], reply)
    return server, server.strategy.last_report.verdicts[0]


def distance_moved(server):
    return np.abs(server.arrays[0] - MODEL["weight"] - 0.1).max()


@pytest.mark.parametrize("defense", DROPPING)
def test_f_clients_are_dropped(defense):
    server, verdict = played(defense)
    assert verdict.judges
    assert set(verdict.kept) == set(CLIENTS) - HOSTILE
    assert distance_moved(server) < 0.2


@pytest.mark.parametrize("defense", [MeanAroundMedian, CAF, MedianOfMeans])
def test_f_clients_do_not_move_an_aggregate(defense):
    server, verdict = played(defense)
    assert distance_moved(server) < 0.3
    assert defense is MeanAroundMedian or sum(verdict.weights[client] for client in HOSTILE) < 0.05


@pytest.mark.parametrize("defense", ALL)
def test_a_quarantined_client_is_one_of_the_f(defense):
    def with_nan(round, client_id, arrays):
        reply = answer(round, client_id, arrays)[0]
        return [first_array(reply, lambda a: a * np.nan) if client_id == 2 else reply]

    server, verdict = played(defense, reply=with_nan)
    assert verdict.notes["num_byzantine"] == 2
    assert defense not in DROPPING or len(verdict.kept) == 8
    assert distance_moved(server) < 0.3


@pytest.mark.parametrize("defense", ALL)
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_too_few_clients_are_refused_unless_unsafe(defense, n):
    server, verdict = played(defense, range(1, n + 1), honest, unsafe=True)
    assert "outside_guarantee" in verdict.notes
    assert 0 < distance_moved(server) < 0.3
    assert defense(flower_strategy("classic", "FedAvg", 7), num_byzantine=F).minimum_clients == 7


@pytest.mark.parametrize(
    ("defense", "limit", "value"), [(MinimumDiameterAveraging, "EXACT_UP_TO", 2), (SMEA, "EXACT_UP_TO", 0)]
)
def test_the_verdict_says_whether_the_subset_is_exact(monkeypatch, defense, limit, value):
    assert played(defense)[1].notes["exact"] is True
    module = importlib.import_module(defense.__module__.replace("strategies", "aggregation"))
    monkeypatch.setattr(module, limit, value)
    verdict = played(defense)[1]
    assert verdict.notes["exact"] is False
    assert set(verdict.kept) == set(CLIENTS) - HOSTILE


def test_settings_that_need_more_clients():
    inner = flower_strategy("classic", "FedAvg", 20)
    assert DivideAndConquer(inner, num_byzantine=3, filter_fraction=2.5).minimum_clients == 9
    assert DivideAndConquer(inner, num_byzantine=10, filter_fraction=1.1).minimum_clients == 21
    with pytest.raises(ConfigError, match="num_groups > 2"):
        MedianOfMeans(inner, num_byzantine=3, num_groups=6)


def test_other_rounds_draw_other_coordinates():
    kept = set()
    for seed in range(8):
        kept.add(played(DivideAndConquer, reply=honest, subsample=1, seed=seed)[1].kept)
    assert len(kept) > 1
