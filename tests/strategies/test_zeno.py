import json

import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.strategies.base import RobustStrategy
from flsec.strategies.zeno import Zeno
from tests.support.tiny_rounds import (
    Network,
    clients,
    cohort,
    descend,
    errors_at,
    examples,
    flat,
    inner,
    loss_at,
    server,
)

ROOT = examples(7, n=30)
D = 21


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(n=10, b=3, root=ROOT, **options):
    return Zeno(inner(n), root_data=root, model_factory=Network, num_byzantine=b, **options)


@pytest.mark.parametrize("rho", [0.0, 0.0005, 0.1])
@pytest.mark.parametrize("b", [0, 2, 7])
def test_agrees_with_literal_loops_on_a_network(rho, b):
    c = cohort(draw(0, 8, D))
    strategy = make(b=b, rho=rho, batch_size=1000)  # the whole root set
    kept = strategy.before_aggregation(c)
    w = c.global_parameters
    scores = [float(loss_at(w, *ROOT) - loss_at(w + u, *ROOT) - rho * u.double().square().sum()) for u in c.updates]
    best = sorted(range(8), key=lambda i: -scores[i])[: 8 - b]
    assert kept.client_ids == tuple(sorted(c.client_ids[i] for i in best))
    np.testing.assert_allclose(strategy._facts["scores"], scores, rtol=1e-4, atol=1e-5)


def test_a_fresh_batch_each_round():
    """The scores of a client that does nothing new tell which examples were drawn."""
    c = {round_: cohort(draw(0, 3, D), round=round_) for round_ in range(1, 40)}

    def scores(round_, **options):
        strategy = make(b=1, batch_size=5, **options)
        strategy.before_aggregation(c[round_])
        return tuple(strategy._facts["scores"].tolist())

    assert scores(1) == scores(1)
    assert scores(1) != scores(1, seed=5)
    assert len({scores(round_) for round_ in c}) > 30


def test_batches_are_examples_of_the_root_data_without_repetition():
    x = torch.arange(30.0)[:, None]
    strategy = Zeno(
        inner(3), root_data=(x, x[:, 0].long()), model_factory=Network, num_byzantine=1, batch_size=7, seed=3
    )
    drawn = [strategy._batch(round_) for round_ in range(1, 60)]
    assert all(len(set(y.tolist())) == 7 and torch.equal(x[:, 0].long(), y) for x, y in drawn)
    assert {int(label) for _, y in drawn for label in y} == set(range(30))


def test_trains_with_a_hostile_majority():
    ids = range(1, 11)
    data = {i: examples(100 + i, n=40) for i in ids}
    hostile = clients(data, hostile=lambda round, client, update: update * (-4 if client <= 6 else 1))
    results = {}
    for name, strategy in {"trusting": RobustStrategy(inner(10)), "Zeno": make(b=6)}.items():
        played = server(strategy, ids).play([1, 2, 3, 4, 5, 6], hostile)
        results[name] = errors_at(flat(played.arrays), *examples(55, n=200))
    assert results["Zeno"] < 0.1
    assert results["trusting"] > 0.5
    verdict = played.strategy.last_report.verdicts[0]
    assert verdict.kept == (7, 8, 9, 10)
    assert all(verdict.scores[i] > verdict.scores[j] for i in verdict.kept for j in range(1, 7))


@pytest.mark.parametrize("value", [1e30, 3e38])
def test_an_overflowing_client_is_dropped_and_the_record_is_plain(value):
    c = cohort(draw(0, 5, D))
    c.updates[2] = value
    strategy = make(b=1)
    assert 3 not in strategy.before_aggregation(c).client_ids
    json.dumps(strategy._facts["scores"].tolist(), allow_nan=False)


def test_nobody_with_a_finite_loss_keeps_the_previous_model():
    played = server(make(4, b=1, root=(ROOT[0] * torch.nan, ROOT[1])), range(1, 5))
    before = played.arrays
    played.play([1], clients({i: examples(i) for i in range(1, 5)}))
    assert played.strategy.last_report.kept_previous_model == "Zeno: accepted no client"
    assert all(np.array_equal(a, b) for a, b in zip(before, played.arrays, strict=True))


def test_too_few_clients_keep_the_previous_model():
    answer = clients({i: examples(i) for i in range(1, 4)})
    played = server(make(4, b=3), range(1, 5)).play([1], lambda r, i, a: answer(r, i, a) if i < 4 else [])
    assert "needs at least 4" in played.strategy.last_report.kept_previous_model


def test_honest_steps_lower_the_loss_by_being_added():
    w = cohort(draw(0, 1, D)).global_parameters
    u = descend(w, *ROOT, 0.1, 3).float()
    strategy = make(b=1)
    assert strategy.before_aggregation(cohort(torch.stack([-u, u]))).client_ids == (2,)


def test_refuses_root_data_that_do_not_fit():
    with pytest.raises(ConfigError, match="root_data"):
        make(root=(ROOT[0][:0], ROOT[1][:0]))
