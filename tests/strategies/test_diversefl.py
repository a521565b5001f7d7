import json
import math

import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.strategies.base import RobustStrategy
from flsec.strategies.diversefl import DiverseFL
from flsec.training import Training
from tests.support.tiny_rounds import Network, clients, cohort, descend, errors_at, examples, flat, inner, server

WHOLE = Training(learning_rate=0.1, steps=1, batch_size=1.0)  # the paper's: one step on one batch
D = 21
SAMPLES = {i: examples(i, n=10) for i in range(1, 9)}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(n=8, samples=SAMPLES, training=WHOLE, **options):
    return DiverseFL(inner(n), client_samples=samples, model_factory=Network, training=training, **options)


def guides(steps=1, samples=SAMPLES, rate=0.1):
    """What plain gradient descent on each sample gives, in float64."""
    begin = cohort(torch.zeros(1, D)).global_parameters
    return torch.stack([descend(begin, *sample, rate, steps) for sample in samples.values()])


def test_follows_the_papers_algorithm():
    """C1, C2 and the accepted set of literal loops, with updates that meet and break both conditions."""
    g = guides()
    factors = torch.tensor([1.0, 0.3, 0.6, 1.9, 2.2, -1.0, -4.0, 1.0])[:, None]
    z = (factors * g + 0.2 * g.norm(dim=1, keepdim=True) / math.sqrt(D) * draw(0, 8, D)).float()
    strategy = make()
    kept = strategy.before_aggregation(cohort(z))
    expected, accepted = [], []
    for j in range(8):
        c1 = math.copysign(1, float(g[j] @ z[j].double()))
        c2 = float(z[j].double().norm() / g[j].norm())
        expected.append(c1 * c2)
        if c1 > 0 and 0.5 < c2 < 2:
            accepted.append(j + 1)
    np.testing.assert_allclose(strategy._facts["scores"], expected, rtol=1e-4)
    assert list(kept.client_ids) == accepted == [1, 3, 4, 8]
    assert torch.equal(kept.updates, z[[0, 2, 3, 7]])  # as they were sent


def test_bounds_are_exclusive_and_can_be_set():
    strategy, none = make(), cohort(torch.zeros(8, D))
    factors = (0.5, 2.0, 0.501, 1.999)
    c = cohort(torch.stack([factor * strategy.guiding_update(none, i) for i, factor in enumerate(factors, start=1)]))
    assert strategy.before_aggregation(c).client_ids == (3, 4)
    assert strategy._facts["scores"][:2].tolist() == [0.5, 2.0]
    assert make(epsilon_1=0.4, epsilon_2=3.0).before_aggregation(c).client_ids == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("training", "share", "steps"),
    [
        (Training(learning_rate=0.1, steps=7, batch_size=50), 0.01, 7),
        (Training(learning_rate=0.1, epochs=1, batch_size=100), 0.01, 10),  # 1000 examples
        (Training(learning_rate=0.1, epochs=2, batch_size=0.25), 0.05, 8),  # 200 examples
        (Training(learning_rate=0.1, epochs=3, batch_size=200), 0.1, 3),  # 100 examples
        (Training(learning_rate=0.1, epochs=1, batch_size=10), 1.0, 1),
    ],
)
def test_takes_as_many_steps_as_the_client(training, share, steps):
    """Ten examples stand for 10 / share; each step is on all of them, since a client's batch is larger still."""
    c = cohort(torch.zeros(8, D))
    local = make(training=training, client_sample_share=share).guiding_update(c, 3)
    np.testing.assert_allclose(local, guides(steps)[2], rtol=1e-4, atol=1e-6)
    single = make(training=training, client_sample_share=share, guiding="gradient").guiding_update(c, 3)
    np.testing.assert_allclose(single, steps * guides(1)[2], rtol=1e-4, atol=1e-6)


def test_guiding_batches_are_of_the_clients_size_where_the_sample_is_larger():
    small = Training(learning_rate=0.1, epochs=1, batch_size=4)
    c = cohort(torch.zeros(8, D))
    a, b = (make(training=small, client_sample_share=1.0, seed=seed).guiding_update(c, 3) for seed in (0, 1))
    assert not torch.equal(a, b)  # three batches of 4, 4 and 2, in another order
    assert not np.allclose(a, guides(3)[2], rtol=1e-3)
    assert torch.nn.functional.cosine_similarity(a, guides(3)[2].float(), dim=0) > 0.9


def test_what_a_client_claims_changes_nothing():
    training = Training(learning_rate=0.1, epochs=1, batch_size=50)
    updates = guides(7).float()
    results = []
    for claim in (20, 10**9):
        strategy = make(training=training)
        strategy.before_aggregation(cohort(updates, num_examples=torch.full((8,), claim)))
        results.append(strategy._facts["scores"])
    assert torch.equal(*results)
    assert bool((results[0] > 0.5).all())


def test_no_sample_or_no_guide_is_a_rejection_with_a_note():
    def without_bias():
        return Network(bias=False)

    samples = {
        1: SAMPLES[1],
        2: (torch.zeros(5, 6), torch.zeros(5).long()),
        4: (SAMPLES[1][0] * torch.nan, SAMPLES[1][1]),
    }
    strategy = DiverseFL(inner(4), client_samples=samples, model_factory=without_bias, training=WHOLE)
    c = cohort(torch.zeros(4, D - 3), model=without_bias)
    c.updates[:] = strategy.guiding_update(c, 1)
    assert strategy.before_aggregation(c).client_ids == (1,)
    facts = strategy._facts
    assert facts["no_sample"] == [3]
    assert facts["no_guiding_update"] == [2, 4]
    assert facts["scores"].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("guiding", ["local_training", "gradient"])
def test_byzantine_clients_are_redrawn_every_round_among_one_class_clients(guiding):
    """Sorted data, sign flips, zeros and model replacement by other clients each round: all are found, nobody else."""
    ids, training = range(1, 10), Training(learning_rate=0.03, epochs=1, batch_size=30)
    data = {i: examples(100 + i, n=90, classes=(i % 3,)) for i in ids}
    samples = {i: (x[:9], y[:9]) for i, (x, y) in data.items()}

    def byzantine(round):
        return {(4 * round + k) % 9 + 1 for k in range(4)}

    def hostile(round, client, update):
        return update * (-8, 4, 0, -8)[client % 4] if client in byzantine(round) else update

    kept, results = {}, {}
    options = {"client_samples": samples, "model_factory": Network, "training": training, "client_sample_share": 0.1}
    for name, strategy in {
        "trusting": RobustStrategy(inner(9)),
        "DiverseFL": DiverseFL(inner(9), guiding=guiding, **options),
    }.items():
        played = server(strategy, ids)
        for round_ in range(1, 9):
            played.play([round_], clients(data, rate=0.03, steps=3, hostile=hostile))
            kept[name, round_] = set(played.strategy.last_report.verdicts[0].kept)
        results[name] = errors_at(flat(played.arrays), *examples(55, n=200))
    assert all(kept["DiverseFL", r] == set(ids) - byzantine(r) for r in range(1, 9))
    assert results["DiverseFL"] < 0.1
    assert results["trusting"] > 0.3


def test_the_record_has_what_figure_1_needs_and_is_plain():
    data = {i: examples(100 + i, n=40) for i in range(1, 5)}
    samples = {i: (x[:10], y[:10]) for i, (x, y) in data.items() if i != 4}

    def hostile(round, client, update):
        return -update if client == 2 else update

    played = server(make(4, samples=samples), range(1, 5)).play([1], clients(data, steps=1, hostile=hostile))
    verdict = played.strategy.last_report.verdicts[0]
    assert verdict.judges
    assert verdict.kept == (1, 3)
    assert verdict.accused == (2,)
    assert verdict.scores[1] == pytest.approx(1, abs=0.5)
    assert verdict.scores[2] == pytest.approx(-1, abs=0.5)
    assert verdict.scores[4] == 0
    assert verdict.notes == {"no_sample": [4], "no_guiding_update": []}
    assert verdict.seconds > 0
    json.dumps([dict(verdict.scores), dict(verdict.notes)], allow_nan=False)


def test_a_clients_verdict_depends_on_itself_alone():
    training = Training(learning_rate=0.1, steps=3, batch_size=4)
    updates = guides(3).float()

    def scores(rows, round=2):
        strategy = make(training=training)
        strategy.before_aggregation(cohort(updates[rows], ids=[row + 1 for row in rows], round=round))
        return strategy._facts["scores"].tolist()

    everybody = scores(list(range(8)))
    assert scores([2, 5]) == [everybody[2], everybody[5]]
    assert scores([5]) != scores([5], round=3)  # another round, another batch


def test_other_clients_each_round_and_nothing_is_remembered():
    data = {i: examples(100 + i, n=40) for i in range(1, 9)}
    samples = {i: (x[:10], y[:10]) for i, (x, y) in data.items()}
    played, fresh = server(make(4, samples), range(1, 9)), server(make(4, samples), range(1, 9))
    answer = clients(data, steps=1)
    played.play([1], lambda r, i, arrays: answer(r, i, arrays) if i <= 4 else [])
    fresh.tensors = list(played.tensors)
    for either in (played, fresh):
        either.play([2], lambda r, i, arrays: answer(r, i, arrays) if i > 4 else [])
    assert played.strategy.last_report.verdicts[0].kept == (5, 6, 7, 8)
    assert played.tensors == fresh.tensors


def test_nobody_accepted_keeps_the_previous_model():
    data = {i: examples(100 + i, n=40) for i in range(1, 5)}
    played = server(make(4), range(1, 5))
    before = played.arrays
    played.play([1], clients(data, steps=1, hostile=lambda round, client, update: 3 * update))
    report = played.strategy.last_report
    assert report.kept_previous_model == "DiverseFL: accepted no client"
    assert report.verdicts[0].kept == ()
    assert all(score > 2 for score in report.verdicts[0].scores.values())
    assert all(np.array_equal(a, b) for a, b in zip(before, played.arrays, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon_1": 2.0}, "epsilon_1 < epsilon_2"),
        ({"samples": {4: (torch.zeros(3, 6), torch.zeros(2))}}, r"client_samples\[4\]"),
        ({"client_sample_share": 0.0}, "client_sample_share"),
        ({"guiding": "momentum"}, "guiding"),
        ({"training": {"learning_rate": 0.1}}, "training"),
    ],
)
def test_refuses_what_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
