import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from flsec.aggregation import fedinv, fedinv_distances, fedinv_scores
from flsec.errors import ConfigError
from flsec.strategies import DEFENSES
from flsec.strategies.base import RobustStrategy
from flsec.strategies.fedinv import FedInv
from flsec.training import Training
from tests.support.tiny_rounds import (
    CLASSES,
    FEATURES,
    Network,
    clients,
    cohort,
    descend,
    errors_at,
    examples,
    flat,
    inner,
    server,
)

D = FEATURES * CLASSES + CLASSES
TRAINING = Training(learning_rate=0.1, epochs=5, batch_size=20)  # 5 steps for the cohort's 20 examples


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(n=10, f=3, training=TRAINING, model=Network, **options):
    form = {"input_shape": (FEATURES,), "num_classes": CLASSES, "batch_size": 6}
    inversion = {"num_steps": 40, "learning_rate": 0.1, "amplification": 1.0}
    return FedInv(inner(n), num_byzantine=f, model_factory=model, training=training, **{**form, **inversion, **options})


def test_is_registered_under_its_yaml_name():
    assert DEFENSES.get("fedinv") is FedInv


def network_of(c):
    model = Network()
    weight, bias = c.global_parameters[:18].view(3, 6), c.global_parameters[18:]
    model.load_state_dict({"linear.weight": weight, "linear.bias": bias})
    return model


def test_is_algorithm_1_on_minus_the_mean_step():
    """The dummies are those of -u / (rate x steps) x s^t; who is kept follows from their distances."""
    c = cohort(0.2 * draw(0, 9, D), round=4)
    strategy = make(scale=1.5, seed=3)
    kept = strategy.before_aggregation(c)
    model = Network()
    model.load_state_dict(
        {"linear.weight": c.global_parameters[:18].view(3, 6), "linear.bias": c.global_parameters[18:]}
    )
    found = strategy.invert(c)
    gradients = -c.updates / (0.1 * 5) * 1.5**4
    for i in range(9):
        x = found.inputs[i]
        got = torch.autograd.grad(cross_entropy(model(x), found.labels), list(model.parameters()))
        error = (torch.cat([g.flatten() for g in got]) - gradients[i]).square().sum()
        assert float(found.loss[i]) == pytest.approx(float(error), rel=1e-4)
    distances = fedinv_distances(found.inputs - found.start, found.labels)
    torch.testing.assert_close(strategy._facts["scores"], fedinv_scores(distances, 3))
    assert kept.client_ids == tuple(i + 1 for i in fedinv(distances, 3).tolist())
    assert torch.equal(kept.updates, c.updates[[i - 1 for i in kept.client_ids]])  # as they were sent


def test_selection_is_the_rules():
    c = cohort(0.2 * draw(5, 9, D))
    strategy = make(selection="lowest")
    kept = strategy.before_aggregation(c)
    lowest = strategy._facts["scores"].argsort()[:6]
    assert kept.client_ids == tuple(sorted(i + 1 for i in lowest.tolist()))


def equivalent(strategy, c):
    return strategy._equivalent_gradients(c, Network())


def test_sign_is_against_the_update():
    """After one step of SGD on some examples, it is the gradient of these examples; the paper prints the opposite."""
    x, y = examples(3, n=20)
    c = cohort(torch.zeros(1, D))
    update = descend(c.global_parameters, x, y, 0.1, 1).float()
    model = Network()
    model.load_state_dict(
        {"linear.weight": c.global_parameters[:18].view(3, 6), "linear.bias": c.global_parameters[18:]}
    )
    gradient = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    strategy = make(training=Training(learning_rate=0.1, steps=1, batch_size=1.0), scale=1.0, f=0)
    found = equivalent(strategy, cohort(update[None]))[0]
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in gradient]), rtol=1e-3, atol=1e-4)


def test_the_update_is_taken_per_step_and_in_units_of_the_rounds_rate():
    c = cohort(draw(1, 2, D), round=2)
    sgd = Training(learning_rate=0.4, epochs=2, batch_size=5, schedule="inverse_sqrt")
    adam = Training(optimizer="adam", learning_rate=0.4, epochs=2, batch_size=5)
    torch.testing.assert_close(equivalent(make(training=sgd, scale=1.0), c), -c.updates / 8 / (0.4 / 2**0.5))
    torch.testing.assert_close(equivalent(make(training=adam, scale=1.0), c), -c.updates / 8 / 0.4)
    torch.testing.assert_close(equivalent(make(training=adam, scale=3.0), c), -c.updates / 8 / 0.4 * 9)
    torch.testing.assert_close(
        equivalent(make(training=adam, scale=1.0, amplification=7.0), c), -c.updates / 8 / 0.4 * 7
    )


def test_steps_follow_the_examples_that_a_client_is_believed_to_have():
    c = cohort(torch.ones(3, D), num_examples=torch.tensor([20.0, 40.0, 10.0**9]))
    training = Training(learning_rate=0.1, epochs=1, batch_size=20)
    steps = {
        name: (-c.updates / 0.1 / equivalent(make(training=training, scale=1.0, f=1, **options), c))[:, 0].tolist()
        for name, options in {
            "paper": {},
            "bounded": {"max_weight_ratio": 5},
            "distrusted": {"weighting": "uniform"},
        }.items()
    }
    assert steps["paper"] == pytest.approx([1, 2, 5e7])
    assert steps["bounded"] == pytest.approx([1, 2, 10])
    assert steps["distrusted"] == pytest.approx([2, 2, 2])


def test_labels_and_start_are_new_in_each_round_and_the_same_in_a_repeated_one():
    c = cohort(draw(2, 5, D))
    a, b, later = (make(f=1).invert(c.replace(round=r)) for r in (1, 1, 2))
    assert torch.equal(a.inputs, b.inputs)
    assert not torch.equal(a.start, later.start)
    assert not torch.equal(a.start, make(f=1, seed=1).invert(c).start)


def test_weights_by_examples_as_the_paper():
    assert make().weighting == "examples"
    assert make(weighting="uniform").weighting == "uniform"


def with_norm():
    return Network(normalise=True)


def test_models_with_buffers_and_counters():
    shape = cohort(torch.zeros(1, 1), model=with_norm).layout.size
    c = cohort(0.1 * draw(3, 7, shape), model=with_norm)
    gradients = make(f=2, model=with_norm)._equivalent_gradients(c, with_norm())
    assert [slot.name for slot in c.layout.slots if slot.start is None][:2] == [
        "normalise.running_mean",
        "normalise.running_var",
    ]
    assert gradients.shape == (7, shape)
    kept = make(f=2, model=with_norm).before_aggregation(c)
    assert 0 < len(kept) <= 5


def test_dummies_are_found_with_the_statistics_that_the_clients_started_from():
    c = cohort(0.1 * draw(3, 7, D + 2 * FEATURES), model=with_norm)
    mean, variance, counter = c.global_state
    moved = c.replace(global_state=(mean + 3, variance * 4, counter))
    defense = make(f=2, model=with_norm)
    assert torch.equal(defense.invert(c).loss, defense.invert(c).loss)
    assert not torch.equal(defense.invert(c).loss, defense.invert(moved).loss)


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    make(f=2).before_aggregation(cohort(draw(4, 7, D)))
    assert torch.equal(torch.get_rng_state(), state)


def gaussian(round, client, update):
    return 4 * draw(100 * round + client, D) if client in (2, 5, 7) else update


@pytest.mark.parametrize("name", ["FedInv", "mean"])
def test_drops_gaussian_updates_that_spoil_the_mean(name):
    """Clients of two classes each; three of ten send noise, as in the paper's attack."""
    data = {i: examples(100 + i, n=60, classes=(i % 3, (i + 1) % 3)) for i in range(1, 11)}
    strategy = make(scale=1.0, weighting="uniform") if name == "FedInv" else RobustStrategy(inner(10))
    played = server(strategy, range(1, 11))
    kept = []
    for round_ in range(1, 7):
        played.play([round_], clients(data, hostile=gaussian))
        kept += [set(played.strategy.last_report.verdicts[0].kept)]
    wrong = errors_at(flat(played.arrays), *examples(55, n=300))
    if name == "FedInv":
        assert not any(chosen & {2, 5, 7} for chosen in kept)
        assert all(len(chosen) >= 4 for chosen in kept)
        assert wrong < 0.1
    else:
        assert wrong > 0.1


@pytest.mark.parametrize("size", [1e4, 1e20, 1e38])
def test_huge_updates_neither_break_the_round_nor_win(size):
    c = cohort(torch.cat([0.1 * draw(6, 7, D), size * draw(7, 3, D).sign()]))
    strategy = make()
    kept = strategy.before_aggregation(c)
    assert len(kept)
    assert max(kept.client_ids) <= 7
    assert set(strategy._facts["not_invertible"]) <= {8, 9, 10}


def test_a_zero_update_is_one_vote_like_any_other():
    honest = 0.1 * draw(8, 9, D)
    alone, joined = make(f=3), make(f=3)
    alone.before_aggregation(cohort(honest))
    joined.before_aggregation(cohort(torch.cat([honest, torch.zeros(1, D)])))
    assert bool(joined._facts["scores"].isfinite().all())
    a, b = (s.invert(cohort(u)) for s, u in ((alone, honest), (joined, torch.cat([honest, torch.zeros(1, D)]))))
    torch.testing.assert_close(a.inputs, b.inputs[:9])  # nobody else's dummies change


def test_nobody_invertible_keeps_the_previous_model():
    played = server(make(4, f=1), range(1, 5))
    before = played.arrays
    data = {i: examples(i) for i in range(1, 5)}
    played.play(
        [1], clients(data, hostile=lambda round, client, update: torch.full_like(update, (1 + client / 9) * 1e38))
    )
    report = played.strategy.last_report
    assert report.kept_previous_model
    assert report.verdicts[0].notes["not_invertible"] == [1, 2, 3, 4]
    assert report.verdicts[0].notes["inversion_error"] is None
    for a, b in zip(before, played.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_few_replies_keep_the_previous_model():
    assert make(f=3).minimum_clients == 7
    played = server(make(7, f=3), range(1, 8))
    data = {i: examples(i) for i in range(1, 8)}
    answer = clients(data)
    played.play([1], lambda r, i, arrays: answer(r, i, arrays) if i < 7 else [])
    assert "at least 7" in played.strategy.last_report.kept_previous_model


def test_the_record_has_the_scores_and_the_time():
    data = {i: examples(i) for i in range(1, 8)}
    played = server(make(7, f=2), range(1, 8)).play([1], clients(data))
    verdict = played.strategy.last_report.verdicts[0]
    assert verdict.judges
    assert set(verdict.scores) == set(range(1, 8))
    assert 0 < verdict.notes["inversion_seconds"] <= verdict.seconds
    assert 0 <= verdict.notes["inversion_error"] < 1
    json.dumps([dict(verdict.scores), dict(verdict.notes)], allow_nan=False)


def test_other_clients_each_round_and_nothing_is_remembered():
    data = {i: examples(100 + i, n=40) for i in range(1, 13)}
    played, fresh = (server(make(6, f=1), range(1, 13)) for _ in range(2))
    answer = clients(data)
    played.play([1], lambda r, i, arrays: answer(r, i, arrays) if i <= 6 else [])
    fresh.tensors = list(played.tensors)
    for either in (played, fresh):
        either.play([2], lambda r, i, arrays: answer(r, i, arrays) if i > 6 else [])
    assert played.tensors == fresh.tensors


def test_parts_of_a_cohort_at_once_do_not_change_the_verdict():
    c = cohort(0.3 * draw(9, 9, D))
    assert make(clients_at_once=2).before_aggregation(c).client_ids == make().before_aggregation(c).client_ids


def test_another_model_than_the_clients_is_named():
    with pytest.raises(ConfigError, match="shape"):
        make(f=1, model=lambda: torch.nn.Linear(4, 2)).before_aggregation(cohort(torch.ones(4, D)))
    with pytest.raises(ConfigError):
        make(f=1, model=lambda: torch.nn.Sequential(Network(), Network())).before_aggregation(cohort(torch.ones(4, D)))


def targets(strategy, c):
    """What the dummies are asked for: the gradients whose squared distance from those at the start is start_loss."""
    model = Network()
    model.load_state_dict(
        {"linear.weight": c.global_parameters[:18].view(3, 6), "linear.bias": c.global_parameters[18:]}
    )
    found = strategy.invert(c)
    own = torch.autograd.grad(cross_entropy(model(found.start), found.labels), list(model.parameters()))
    return torch.cat([g.flatten() for g in own]), found


@pytest.mark.parametrize("size", [1e-4, 1.0, 50.0])
@pytest.mark.parametrize("round_", [1, 40])
def test_the_common_target_asks_as_much_of_the_dummies_whatever_the_updates_size_and_the_round(size, round_):
    c = cohort(draw(1, 9, D), round=round_)
    own, reference = targets(make(target="common"), c)
    gradients = -c.updates.double()
    factor = float(own.double().norm()) / float(gradients.norm(dim=1).median())
    expected = (gradients * factor - own.double()).square().sum(dim=1)
    torch.testing.assert_close(reference.start_loss.double(), expected, rtol=1e-4, atol=1e-6)
    found = make(target="common").invert(c.replace(updates=c.updates * size))
    torch.testing.assert_close(found.start_loss, reference.start_loss, rtol=1e-4, atol=1e-6)


def test_the_common_factor_is_set_by_the_median_whatever_a_minority_sends():
    honest = draw(2, 7, D)
    alone = make(target="common").invert(cohort(honest))
    for size in (0.0, 1e6, float("inf")):
        joined = make(target="common").invert(cohort(torch.cat([honest, size * torch.ones(3, D)])))
        ratio = joined.start_loss[:7].sqrt() / alone.start_loss.sqrt()
        assert bool(((ratio > 0.5) & (ratio < 2)).all())


def test_the_common_factor_of_updates_without_a_norm_is_one():
    for updates in (torch.zeros(5, D), torch.full((5, D), float("nan"))):
        make(target="common", f=1).invert(cohort(updates))


def test_dummies_can_be_as_many_as_a_clients_batch_holds():
    c = cohort(draw(3, 5, D), num_examples=torch.tensor([30.0, 40.0, 50.0, 40.0, 1e9]))
    by_number = make(f=1, batch_size=None, training=Training(learning_rate=0.1, steps=1, batch_size=7))
    by_share = make(f=1, batch_size=None, training=Training(learning_rate=0.1, steps=1, batch_size=0.1))
    assert by_number.invert(c).labels.shape == (7,)
    assert by_share.invert(c).labels.shape == (4,)
