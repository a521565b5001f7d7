"""ErrorRateRejection and LossFunctionRejection."""

import json

import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.strategies.base import RobustStrategy
from flsec.strategies.error_rate_rejection import ErrorRateRejection
from flsec.strategies.loss_function_rejection import LossFunctionRejection
from tests.support.tiny_rounds import Network, clients, cohort, errors_at, examples, flat, inner, loss_at, server

ROOT = examples(7, n=30)
D = 21
BOTH = pytest.mark.parametrize(
    ("defense", "objective"), [(ErrorRateRejection, errors_at), (LossFunctionRejection, loss_at)]
)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(defense, n=10, f=3, root=ROOT, **options):
    return defense(inner(n), root_data=root, model_factory=Network, num_byzantine=f, **options)


@BOTH
@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_agrees_with_literal_loops_on_a_network(defense, objective, weighting):
    c = cohort(draw(0, 8, D), num_examples=torch.arange(1, 9))
    strategy = make(defense, weighting=weighting)
    kept = strategy.before_aggregation(c)
    shares = c.num_examples.numpy() if weighting == "examples" else np.ones(8)
    scores = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        mean = np.average(c.updates[others].double().numpy(), axis=0, weights=shares[others])
        scores.append(float(objective(c.global_parameters + torch.from_numpy(mean), *ROOT)))
    np.testing.assert_allclose(strategy._facts["scores"], scores, rtol=1e-4, atol=1e-6)
    lengths = c.updates.norm(dim=1).tolist()
    dropped = sorted(range(8), key=lambda i: (round(scores[i], 9), -lengths[i]))[:3]
    assert kept.client_ids == tuple(i + 1 for i in range(8) if i not in dropped)


@BOTH
def test_trains_among_hostile_clients(defense, objective):
    ids = range(1, 11)
    data = {i: examples(100 + i, n=40) for i in ids}
    hostile = clients(data, hostile=lambda round, client, update: update * (-8 if client <= 3 else 1))
    results = {}
    for name, strategy in {"trusting": RobustStrategy(inner(10)), "defended": make(defense)}.items():
        played = server(strategy, ids).play([1, 2, 3, 4, 5, 6], hostile)
        results[name] = errors_at(flat(played.arrays), *examples(55, n=200))
    assert results["defended"] < 0.1
    assert results["trusting"] > 0.5
    verdict = played.strategy.last_report.verdicts[0]
    assert verdict.kept == (4, 5, 6, 7, 8, 9, 10)
    json.dumps([dict(verdict.scores), dict(verdict.notes)], allow_nan=False)


@BOTH
@pytest.mark.parametrize("value", [1e30, 3e38])
def test_overflowing_clients_are_dropped_and_the_record_is_plain(defense, objective, value):
    c = cohort(draw(0, 8, D))
    c.updates[2] = c.updates[4] = value * draw(3, D).sign()
    strategy = make(defense, f=2)
    kept = strategy.before_aggregation(c).client_ids
    if defense is LossFunctionRejection:  # with one of two such clients an error rate is what it is with both
        assert not {3, 5} & set(kept)
    assert 3 not in make(defense, f=1).before_aggregation(c.keep([0, 1, 2, 3])).client_ids
    json.dumps(strategy._facts["scores"].tolist(), allow_nan=False)


@BOTH
def test_too_few_clients_keep_the_previous_model(defense, objective):
    answer = clients({i: examples(i) for i in range(1, 4)})
    played = server(make(defense, 4, f=3), range(1, 5)).play([1], lambda r, i, a: answer(r, i, a) if i < 4 else [])
    assert "needs at least 4" in played.strategy.last_report.kept_previous_model


@BOTH
def test_other_clients_each_round(defense, objective):
    data = {i: examples(100 + i, n=40) for i in range(1, 9)}
    answer = clients(data, hostile=lambda round, client, update: update * (-8 if client in (2, 7) else 1))
    played = server(make(defense, 4, f=1), range(1, 9))
    for round_, present in ((1, {1, 2, 3, 4}), (2, {5, 6, 7, 8})):
        played.play([round_], lambda r, i, arrays, here=present: answer(r, i, arrays) if i in here else [])
        assert set(played.strategy.last_report.verdicts[0].kept) == present - {2, 7}


@BOTH
def test_refuses_root_data_that_do_not_fit(defense, objective):
    with pytest.raises(ConfigError, match="root_data"):
        make(defense, root=(ROOT[0], ROOT[1][:5]))
