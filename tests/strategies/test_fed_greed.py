import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.strategies.base import RobustStrategy
from flsec.strategies.fed_greed import FedGreed
from tests.support.tiny_rounds import Network, clients, cohort, errors_at, examples, flat, inner, loss_at, server

ROOT = examples(7, n=30)


def make(n=10, root=ROOT):
    return FedGreed(inner(n), root_data=root, model_factory=Network)


def test_scores_are_the_clients_own_losses_and_the_best_is_kept():
    c = cohort(torch.randn(8, 21, generator=torch.Generator().manual_seed(0)))
    strategy = make()
    kept = strategy.before_aggregation(c).client_ids
    losses = [float(loss_at(c.global_parameters + u, *ROOT)) for u in c.updates]
    np.testing.assert_allclose(strategy._facts["scores"], losses, rtol=1e-5)
    assert c.client_ids[int(np.argmin(losses))] in kept


def test_trains_with_a_hostile_majority():
    ids = range(1, 11)
    data = {i: examples(100 + i, n=40) for i in ids}
    hostile = clients(data, hostile=lambda round, client, update: update * (-4 if client <= 6 else 1))
    results = {}
    for name, strategy in {"trusting": RobustStrategy(inner(10)), "FedGreed": make()}.items():
        played = server(strategy, ids).play([1, 2, 3, 4, 5, 6], hostile)
        results[name] = errors_at(flat(played.arrays), *examples(55, n=200))
    assert results["FedGreed"] < 0.1
    assert results["trusting"] > 0.5
    assert set(played.strategy.last_report.verdicts[0].kept) <= {7, 8, 9, 10}


def test_nobody_with_a_finite_loss_keeps_the_previous_model():
    played = server(make(4, root=(ROOT[0] * torch.nan, ROOT[1])), range(1, 5))
    before = played.arrays
    played.play([1], clients({i: examples(i) for i in range(1, 5)}))
    assert played.strategy.last_report.kept_previous_model == "FedGreed: accepted no client"
    assert all(np.array_equal(a, b) for a, b in zip(before, played.arrays, strict=True))


def test_refuses_root_data_that_do_not_fit():
    with pytest.raises(ConfigError, match="root_data"):
        make(root=(ROOT[0][:0], ROOT[1][:0]))
