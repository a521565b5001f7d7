import json

import numpy as np
import pytest
import torch

from flsec._contracts.battery import pickled
from flsec.aggregation import CountSketch
from flsec.errors import ConfigError
from flsec.strategies import Cohort, FetchSGD, Krum, Median, NormClipping, SparseFed
from flsec.training import Training
from tests.aggregation.test_sparsefed import literal
from tests.support.tiny_rounds import clients, cohort, examples, flat, inner, loss_at, server

D = 21
VARIANTS = ("released", "paper_main", "paper_appendix")
TRIANGLE = Training(learning_rate=0.1, schedule="triangular", peak_at=0.5)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounds(seed, number=6, n=7):
    """Updates of several rounds, by different clients each time."""
    return [cohort(draw(seed + r, n, D), ids=range(10 * r, 10 * r + n), round=r) for r in range(1, number + 1)]


def play(strategy, cohorts):
    return torch.stack([strategy.on_aggregation(c) for c in cohorts])


def clipped_means(cohorts, bounds):
    means = []
    for c, bound in zip(cohorts, bounds, strict=True):
        rows = [row.double() * min(1.0, bound / float(row.double().norm())) for row in c.updates]
        means.append((sum(rows) / len(rows)).tolist())
    return means


# --- the whole rule ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scheduled", [False, True])
def test_is_the_printed_algorithm_on_clipped_means(variant, scheduled):
    cohorts = rounds(1)
    training = {"training": TRIANGLE, "num_rounds": 6} if scheduled else {}
    strategy = SparseFed(
        inner(7), k=5, max_norm=3.0, momentum=0.8, variant=variant, server_learning_rate=0.5, **training
    )
    bounds = [3.0 * (TRIANGLE.learning_rate_at(r, 6) / 0.1 if scheduled else 1.0) for r in range(1, 7)]
    means = clipped_means(cohorts, bounds)
    deltas, v, e = literal(means, 5, 0.8, variant)
    np.testing.assert_allclose(play(strategy, cohorts), 0.5 * np.array(deltas), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(strategy.momentum_buffer, v, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(strategy.error_feedback, e, rtol=1e-4, atol=1e-6)


def test_the_schedule_can_be_left_out_although_it_is_known():
    cohorts = rounds(2)
    follows = SparseFed(inner(7), k=5, max_norm=3.0, training=TRIANGLE, num_rounds=6)
    constant = SparseFed(inner(7), k=5, max_norm=3.0, training=TRIANGLE, num_rounds=6, adaptive_clipping=False)
    plain = SparseFed(inner(7), k=5, max_norm=3.0)
    assert torch.equal(play(constant, cohorts), play(plain, cohorts))
    assert not torch.allclose(play(follows, cohorts), play(constant, cohorts))


def test_the_server_adds_delta_to_the_model():
    """The sign: after rounds of honest clients the loss is lower, in Flower's own terms."""
    data = {i: examples(i) for i in range(1, 9)}
    for make in (lambda s: SparseFed(s, k=6), lambda s: FetchSGD(s, k=6, columns=200)):
        host = server(make(inner(8)), list(data))
        before = float(loss_at(flat(host.arrays), *examples(99)))
        host.play(range(1, 16), clients(data))
        assert float(loss_at(flat(host.arrays), *examples(99))) < 0.5 * before


def test_only_k_coordinates_of_the_model_change():
    data = {i: examples(i) for i in range(1, 9)}
    for k, changed in ((4, 4), (0.5, 11), (D, D)):
        host = server(SparseFed(inner(8), k=k), list(data))
        before = flat(host.arrays)
        host.play([1], clients(data))
        assert int((flat(host.arrays) != before).sum()) == changed


def test_with_all_coordinates_it_is_momentum_sgd_on_clipped_means():
    cohorts = rounds(3)
    means = torch.tensor(clipped_means(cohorts, [2.0] * 6))
    velocity, expected = torch.zeros(D).double(), []
    for mean in means:
        velocity = 0.9 * velocity + mean
        expected.append(velocity)
    for k in (1.0, D):
        result = play(SparseFed(inner(7), k=k, max_norm=2.0, variant="paper_appendix"), cohorts)
        torch.testing.assert_close(result.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)
        masked = play(SparseFed(inner(7), k=k, max_norm=2.0), cohorts)
        torch.testing.assert_close(masked, means, rtol=1e-4, atol=1e-5)


def test_examples_count_only_where_they_are_trusted():
    updates, counts = 0.1 * draw(4, 2, D), torch.tensor([1.0, 3.0])
    uniform = SparseFed(inner(2), k=1.0).on_aggregation(cohort(updates, num_examples=counts))
    torch.testing.assert_close(uniform, updates.mean(dim=0))
    trusting = SparseFed(inner(2), k=1.0, weighting="examples").on_aggregation(cohort(updates, num_examples=counts))
    torch.testing.assert_close(trusting, 0.25 * updates[0] + 0.75 * updates[1])


# --- robustness -------------------------------------------------------------------------------------------------


def test_two_colluders_of_fifty_move_the_mean_and_hardly_the_sparse_model():
    """They push six coordinates that the honest clients do not care for, as far as clipping lets them."""
    honest = 0.01 * draw(5, 48, D)
    honest[:, :6] += torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    hostile = torch.zeros(2, D)
    hostile[:, 15:] = 1e6
    everyone = cohort(torch.cat([honest, hostile]))

    def damage(moved):
        return float(moved[15:].norm() / moved[:6].norm())

    def damage_with(make, **settings):
        return damage(make(inner(50), k=6, **settings).on_aggregation(everyone))

    bound = float(honest.norm(dim=1).max())
    clipped = NormClipping(inner(50), max_norm=bound).before_aggregation(everyone)
    assert damage(everyone.updates.mean(dim=0)) > 1e3
    assert damage(clipped.updates.mean(dim=0)) > 0.03
    assert damage_with(SparseFed, max_norm=bound) == 0.0
    assert damage_with(FetchSGD, columns=500, max_norm=bound) == 0.0
    assert damage_with(FetchSGD, columns=500) > 1  # a sketch alone is no defense


def test_one_hostile_row_moves_the_memory_by_its_share_of_the_bound():
    updates = draw(6, 10, D)
    for size in (1e3, 1e30, 3e38):
        hostile = updates.clone()
        hostile[0] = size
        strategy, other = (SparseFed(inner(10), k=1, max_norm=2.0) for _ in range(2))
        strategy.on_aggregation(cohort(hostile))
        other.on_aggregation(cohort(updates))
        assert float((strategy.momentum_buffer - other.momentum_buffer).abs().max()) <= 4.0 / 10 + 1e-6


# --- state and verdicts -----------------------------------------------------------------------------------------


def both(**settings):
    return [
        *(lambda v=v: SparseFed(inner(7), k=5, variant=v, max_norm=3.0, **settings) for v in VARIANTS),
        *(lambda v=v: FetchSGD(inner(7), k=5, columns=9, variant=v, **settings) for v in ("released", "paper")),
    ]


@pytest.mark.parametrize("make", both())
def test_a_resumed_run_is_the_uninterrupted_one(make):
    cohorts = rounds(7, number=8)
    expected = play(make(), cohorts)
    for stop in (0, 3, 7):
        first = make()
        for c in cohorts[:stop]:
            first.on_aggregation(c)
        state = first.state_dict()
        first.on_aggregation(cohorts[0])  # a state that was taken is not touched by later rounds
        second = make()
        second.load_state_dict(pickled(state))
        assert torch.equal(play(second, cohorts[stop:]), expected[stop:])


@pytest.mark.parametrize("make", both())
def test_the_verdict_is_plain_numbers(make):
    strategy = make()
    total = []
    for c in rounds(8, number=3):
        delta = strategy.on_aggregation(c)
        facts = dict(strategy._facts)
        scores = facts.pop("scores")
        torch.testing.assert_close(scores, c.updates.double().norm(dim=1))
        assert json.loads(json.dumps(facts)).keys() == {"clipped", "max_norm", "k", "error_norm", "sparsity_gap"}
        assert facts["k"] == 5
        total.append(facts)
        mean = c.updates.mean(dim=0)
        if isinstance(strategy, SparseFed):
            assert facts["clipped"] == int((scores > 3.0).sum()) > 0
            assert facts["max_norm"] == 3.0
            assert facts["error_norm"] == pytest.approx(float(strategy.error_feedback.norm()), rel=1e-5)
            mean = torch.tensor(clipped_means([c], [3.0])[0]).float()
        else:
            assert (facts["clipped"], facts["max_norm"]) == (0, None)
        assert facts["sparsity_gap"] == pytest.approx(float((delta - mean).abs().sum()), rel=1e-4)
    assert len({facts["error_norm"] for facts in total}) == 3


def test_nobody_is_judged_and_all_are_kept():
    data = {i: examples(i) for i in range(1, 9)}
    host = server(SparseFed(inner(8), k=4), list(data)).play([1], clients(data))
    (verdict,) = host.strategy.last_report.verdicts
    assert verdict.judges is False
    assert verdict.kept == verdict.participants == tuple(range(1, 9))


def test_the_error_norm_of_the_sketch_estimates_that_of_the_vector():
    cohorts = rounds(9, number=5)
    exact = SparseFed(inner(7), k=3, max_norm=1e9)
    sketched = FetchSGD(inner(7), k=3, columns=100_000)
    play(exact, cohorts)
    play(sketched, cohorts)
    assert sketched._facts["error_norm"] == pytest.approx(exact._facts["error_norm"], rel=1e-4)


# --- FetchSGD ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "exact"), [("released", "released"), ("paper", "paper_appendix")])
def test_fetchsgd_with_a_large_sketch_is_sparsefed(variant, exact):
    cohorts = rounds(10, number=8)
    schedule = {"max_norm": 3.0, "training": TRIANGLE, "num_rounds": 8}
    sketched = FetchSGD(inner(7), k=4, columns=100_000, variant=variant, **schedule)
    plain = SparseFed(inner(7), k=4, variant=exact, **schedule)
    torch.testing.assert_close(play(sketched, cohorts), play(plain, cohorts), rtol=1e-4, atol=1e-5)


def test_columns_are_a_number_or_a_share_of_the_parameters_and_the_seed_draws_the_hashes():
    first = rounds(11, number=1)
    shares = FetchSGD(inner(7), k=4, columns=0.5, rows=3)
    play(shares, first)
    assert shares.error_sketch.shape == (3, round(0.5 * D))
    number = FetchSGD(inner(7), k=4, columns=7, seed=5)
    play(number, first)
    assert number.error_sketch.shape == (5, 7)
    mean = first[0].updates.mean(dim=0)
    sent = CountSketch(5, 7, D, seed=5).sketch(mean)
    left = torch.where(number.momentum_sketch != 0, sent, 0.0)
    torch.testing.assert_close(number.momentum_sketch, left, rtol=1e-5, atol=1e-6)
    assert bool(left.any())
    other = FetchSGD(inner(7), k=4, columns=7, seed=6)
    assert not torch.equal(play(other, first), play(FetchSGD(inner(7), k=4, columns=7, seed=5), first))


# --- nesting and settings ---------------------------------------------------------------------------------------


def test_it_works_on_what_another_defense_lets_through():
    data = {i: examples(i) for i in range(1, 9)}
    strategy = NormClipping(Krum(SparseFed(inner(8), k=4), num_byzantine=2), max_norm=1.0)
    host = server(strategy, list(data)).play([1, 2], clients(data))
    verdicts = host.strategy.last_report.verdicts
    assert [v.defense for v in verdicts] == ["NormClipping", "Krum", "SparseFed"]
    assert len(verdicts[2].participants) == 1
    with pytest.raises(ConfigError, match="Put SparseFed inside instead"):
        SparseFed(Krum(inner(8), num_byzantine=2), k=4)
    SparseFed(Median(inner(8)), k=4)


def test_more_coordinates_than_there_are_stop_the_run():
    with pytest.raises(ConfigError, match="k must be at most the number of parameters, 21; got k=22"):
        SparseFed(inner(7), k=22).on_aggregation(rounds(1)[0])


@pytest.mark.parametrize("make", [SparseFed, FetchSGD])
@pytest.mark.parametrize(
    "settings",
    [{"k": 0}, {"k": 1.5}, {"k": "4"}, {"momentum": 1.0}, {"max_norm": 0.0}, {"variant": "main"}, {"num_rounds": 0}],
)
def test_refuses_settings_before_the_run(make, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(inner(7), **{"k": 4, **settings})


def test_a_cohort_is_not_modified():
    c: Cohort = rounds(12, number=1)[0]
    before = c.updates.clone()
    for make in both():
        make().on_aggregation(c)
    assert torch.equal(c.updates, before)
