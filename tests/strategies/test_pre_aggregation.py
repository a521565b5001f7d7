"""Wrappers that change the rows for the rule inside: what it is given, in both APIs, attackers or not."""

from functools import partial

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._contracts.faults import first_array
from flsec._contracts.server import flower_strategy, from_npy, honest, identify
from flsec.aggregation import (
    _gram,
    adaptive_robust_clipping,
    krum,
    median,
    median_norm_clipping,
    multi_krum,
    norm_clipping,
)
from flsec.aggregation import nearest_neighbor_mixing as mixing
from flsec.errors import ConfigError
from flsec.strategies import (
    AdaptiveQuantileClipping,
    AdaptiveRobustClipping,
    Bulyan,
    GeometricMedian,
    Krum,
    Median,
    MedianNormClipping,
    MultiKrum,
    NearestNeighborMixing,
    WorkerMomentum,
)
from tests.support.boundary import assert_moved, both_apis, nan, play, quarantined, report, sends, silence, why_kept
from tests.support.cohorts import SIZE, cohort

N, F = 11, 3

RULES = {  # the wrapper, the function
    "krum": (partial(Krum, num_byzantine=F), krum),
    "multi_krum": (partial(MultiKrum, num_byzantine=F), multi_krum),
    "median": (Median, lambda rows, _: median(rows)),
    "mean": (lambda inner: inner, lambda rows, _: rows.mean(dim=0)),
}
OUTSIDE = {
    "nearest_neighbor_mixing": (partial(NearestNeighborMixing, num_byzantine=F), mixing),
    "adaptive_robust_clipping": (partial(AdaptiveRobustClipping, num_byzantine=F), adaptive_robust_clipping),
    "adaptive_quantile_clipping": (
        partial(AdaptiveQuantileClipping, initial_norm=0.5),
        lambda rows, _: norm_clipping(rows, 0.5),
    ),
    "worker_momentum": (WorkerMomentum, lambda rows, _: rows),  # in the first round
    "median_norm_clipping": (MedianNormClipping, lambda rows, _: median_norm_clipping(rows)),
}
each_rule = pytest.mark.parametrize("rule", RULES)
each_wrapper = pytest.mark.parametrize("outside", OUTSIDE)


@pytest.fixture(autouse=True)
def _identity():
    identify()


def flat(arrays):
    parts = [np.asarray(array, np.float64).ravel() for array in arrays if array.dtype.kind == "f"]
    return torch.from_numpy(np.concatenate(parts))


def wrapped(api, outside, rule, flower="FedAvg"):
    return OUTSIDE[outside][0](RULES[rule][0](flower_strategy(api, flower, N)))


def outliers(reply):
    return first_array(reply, lambda array: array + 50)


def step(api, strategy, hostile, num_clients=N):
    """Play one round; return its server, the updates sent, in the order of clients, and the global model's step."""
    sent, starts = {}, []

    def answer(round, client_id, arrays):
        replies = sends(hostile)(round, client_id, arrays)
        starts.append(arrays)
        if replies:
            sent[client_id] = flat(replies[0].arrays) - flat(arrays)
        return replies

    server = play(api, strategy, num_clients, [1], answer)
    return server, torch.stack([sent[i] for i in sorted(sent)]), flat(server.arrays) - flat(starts[0])


@both_apis
@each_rule
@each_wrapper
def test_the_rule_inside_sees_what_the_function_makes(outside, rule, api):
    server, rows, moved = step(api, wrapped(api, outside, rule), {2: outliers, 5: outliers, 9: outliers})
    expected = RULES[rule][1](OUTSIDE[outside][1](rows, F), F)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)
    verdict = report(server).verdicts[0]
    assert verdict.kept == tuple(range(1, N + 1))
    assert not verdict.judges


@both_apis
@each_wrapper
def test_what_is_quarantined_counts_as_one_of_the_f(outside, api):
    """Two of f = 3 send NaN, one an outlier: n - 2 rows with f - 2."""
    hostile = {2: nan, 5: nan, 9: outliers}
    server, rows, moved = step(api, wrapped(api, outside, "krum"), hostile)
    assert set(quarantined(server)) == {2, 5}
    sound = rows[[i for i in range(N) if i + 1 not in (2, 5)]]
    torch.testing.assert_close(moved, krum(OUTSIDE[outside][1](sound, F - 2), F - 2), rtol=1e-5, atol=1e-5)


@both_apis
@pytest.mark.parametrize("outside", ["nearest_neighbor_mixing", "adaptive_robust_clipping"])
def test_too_few_replies_keep_the_model_and_silence_is_no_fault(outside, api):
    server = play(api, wrapped(api, outside, "median"), N, [1], sends(dict.fromkeys(range(1, 6), silence)))
    assert "needs at least 7 usable replies; there are 6" in why_kept(server)
    enough = play(api, wrapped(api, outside, "median"), N, [1], sends(dict.fromkeys(range(1, 5), silence)))
    assert_moved(enough)
    short = OUTSIDE[outside][0](Median(flower_strategy(api, "FedAvg", N)), when_short="largest_f")
    server = play(api, short, N, [1], sends(dict.fromkeys(range(1, 6), silence)))
    assert_moved(server)
    assert "f=2 is the largest" in report(server).verdicts[0].notes["outside_guarantee"]


@both_apis
@pytest.mark.parametrize("outside", ["nearest_neighbor_mixing", "adaptive_robust_clipping"])
def test_a_sample_that_can_never_do_is_refused_before_anybody_trains(outside, api):
    strategy = OUTSIDE[outside][0](Median(flower_strategy(api, "FedAvg", 6)))
    with pytest.raises(ConfigError, match="needs at least 7 replies, and the strategy asks 6"):
        play(api, strategy, 6)
    unsafe = OUTSIDE[outside][0](Median(flower_strategy(api, "FedAvg", 2)), unsafe=True)
    assert_moved(play(api, unsafe, 2))


@both_apis
@each_wrapper
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(outside, api):
    assert_resumes(api, partial(wrapped, api, outside, "krum", "FedAdam"))


def assert_resumes(api, make):
    """With other clients in each round."""
    away = {1: (), 2: (1, 2), 3: (10, 11), 4: ()}

    def answer(round, client_id, arrays):
        return [] if client_id in away[round] else honest(round, client_id, arrays)

    straight, resumed = play(api, make(), N, [1, 2], answer), play(api, make(), N, [])
    resumed.strategy.load_state_dict(straight.strategy.state_dict())
    resumed.tensors = list(straight.tensors)
    for server in (straight, resumed):
        server.play([3, 4], answer)
    pairs = zip(from_npy(straight.tensors), from_npy(resumed.tensors), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


# --- how often the rows are read --------------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch):
    """Which of the two products read the rows, in order."""
    counted = []
    for name in ("_products", "mixed_rows"):
        original = getattr(_gram, name)

        def count(*args, name=name, original=original):
            counted.append(name)
            return original(*args)

        monkeypatch.setattr(_gram, name, count)
    return counted


def rows_with_outliers(num_hostile):
    rows = torch.randn(N, SIZE, generator=torch.Generator().manual_seed(0))
    rows[:num_hostile] *= 1e4
    return rows


@pytest.mark.parametrize("num_hostile", [0, F])
@pytest.mark.parametrize(
    "inner", [partial(Krum, num_byzantine=F), partial(MultiKrum, num_byzantine=F), partial(Bulyan, num_byzantine=2)]
)
def test_mixing_around_a_rule_of_distances_reads_the_rows_twice(passes, inner, num_hostile):
    rule = inner(FedAvg())
    mixed = NearestNeighborMixing(rule, num_byzantine=F).before_aggregation(cohort(rows_with_outliers(num_hostile)))
    kept = rule.before_aggregation(mixed)
    assert passes == ["_products"]  # nobody has looked at the means yet
    assert kept.updates.shape == (len(kept), SIZE)
    assert passes == ["_products", "mixed_rows"]
    fresh = inner(FedAvg()).before_aggregation(cohort(mixed.updates.clone()))
    if num_hostile == 0:  # else the honest rows are copies of their mean, and which of them wins is no matter
        assert kept.client_ids == fresh.client_ids
    torch.testing.assert_close(kept.updates.mean(dim=0), fresh.updates.mean(dim=0))


def test_mixing_around_the_geometric_median_gives_its_point():
    rows = rows_with_outliers(2)
    rule = GeometricMedian(FedAvg())
    mixed = NearestNeighborMixing(rule, num_byzantine=F).before_aggregation(cohort(rows))
    fresh = cohort(mixed.updates.clone())
    torch.testing.assert_close(rule.on_aggregation(mixed), GeometricMedian(FedAvg()).on_aggregation(fresh))


@pytest.mark.parametrize("look_first", [False, True])
def test_means_of_the_rows_kept_are_those_rows_of_all_means(look_first):
    """Made for the rows kept alone or for all, once and again, with what is known of their distances."""
    mixed = NearestNeighborMixing(FedAvg(), num_byzantine=F).before_aggregation(cohort(rows_with_outliers(2)))
    expected = (
        NearestNeighborMixing(FedAvg(), num_byzantine=F).before_aggregation(cohort(rows_with_outliers(2))).updates
    )
    if look_first:
        torch.testing.assert_close(mixed.updates, expected)
    some = mixed.keep([1, 3, 4, 6])
    fewer = some.keep([0, 2])
    torch.testing.assert_close(some.updates, expected[[1, 3, 4, 6]])
    torch.testing.assert_close(fewer.updates, expected[[1, 4]])
    matrix, numbers = fewer.parts()
    torch.testing.assert_close(matrix[numbers], expected[[1, 4]])
    distances = mixed.squared_distances()
    torch.testing.assert_close(some.squared_distances(), distances[[1, 3, 4, 6]][:, [1, 3, 4, 6]])


def test_mixed_rows_that_are_changed_in_place_are_measured_anew():
    mixed = cohort(rows_with_outliers(0))
    mixed = NearestNeighborMixing(FedAvg(), num_byzantine=F).before_aggregation(mixed)
    before = mixed.squared_distances().clone()
    mixed.updates.mul_(2)
    torch.testing.assert_close(mixed.squared_distances(), 4 * before)
