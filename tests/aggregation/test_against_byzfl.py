"""Rules and attacks against those of byzfl, the authors' own library for several of them; where the two differ, why.

Runs where byzfl can be imported: ``pip install "flsec[peers]"``.
"""

import itertools

import numpy as np
import pytest
import torch

from flsec.aggregation.adaptive_robust_clipping import adaptive_robust_clipping
from flsec.aggregation.bucketing import bucketing
from flsec.aggregation.caf import caf
from flsec.aggregation.centered_clipping import centered_clipping
from flsec.aggregation.geometric_median import geometric_median
from flsec.aggregation.krum import krum
from flsec.aggregation.mean_around_median import mean_around_median
from flsec.aggregation.median import median
from flsec.aggregation.minimum_diameter_averaging import minimum_diameter_averaging
from flsec.aggregation.monna import monna
from flsec.aggregation.multi_krum import multi_krum
from flsec.aggregation.nearest_neighbor_mixing import nearest_neighbor_mixing
from flsec.aggregation.smea import smea
from flsec.aggregation.trimmed_mean import trimmed_mean
from flsec.attacks.alie import alie
from flsec.attacks.ipm import ipm

byzfl = pytest.importorskip("byzfl", reason="byzfl is not installed: pip install 'flsec[peers]'")

SHAPES = [(5, 1, 3), (9, 2, 6), (11, 4, 20)]  # n, f, d

each_shape = pytest.mark.parametrize(("n", "f", "d"), SHAPES)


def draw(n, d, seed=0, far=0):
    """(n, d) rows, the last ``far`` of them hostile."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    rows[n - far :] = 30 + 5 * rows[n - far :]
    return rows


def assert_same(mine, theirs):
    torch.testing.assert_close(mine, torch.as_tensor(np.array(theirs)), rtol=1e-9, atol=1e-9)


SAME = {
    "median": (lambda f: median, lambda f: byzfl.Median()),
    "trimmed_mean": (lambda f: lambda u: trimmed_mean(u, f), lambda f: byzfl.TrMean(f)),
    "mean_around_median": (lambda f: lambda u: mean_around_median(u, f), lambda f: byzfl.Meamed(f)),
    "monna": (lambda f: lambda u: monna(u, f, pivot=1), lambda f: byzfl.MoNNA(f, idx=1)),
    "nearest_neighbor_mixing": (lambda f: lambda u: nearest_neighbor_mixing(u, f), lambda f: byzfl.NNM(f)),
    "adaptive_robust_clipping": (lambda f: lambda u: adaptive_robust_clipping(u, f), lambda f: byzfl.ARC(f)),
}


@each_shape
@pytest.mark.parametrize("name", SAME)
def test_gives_the_same(name, n, f, d):
    mine, theirs = (make(f) for make in SAME[name])
    for seed, far in itertools.product(range(4), (0, f)):
        rows = draw(n, d, seed, far)
        assert_same(mine(torch.from_numpy(rows.copy())), theirs(rows.copy()))


@each_shape
def test_mixing_and_clipping_before_a_rule(n, f, d):
    rows = draw(n, d, 3, f)
    theirs = byzfl.TrMean(f)(byzfl.NNM(f)(byzfl.ARC(f)(rows.copy())))
    mine = trimmed_mean(nearest_neighbor_mixing(adaptive_robust_clipping(torch.from_numpy(rows), f), f), f)
    assert_same(mine, theirs)


@each_shape
def test_buckets_are_as_many_and_as_large_and_have_the_same_mean(n, f, d):
    """Who shares a bucket is drawn, here by seed and round; there by numpy's global state."""
    rows, size = draw(n, d), f + 1
    state = np.random.get_state()
    try:
        theirs = byzfl.Bucketing(size)(rows.copy())
    finally:
        np.random.set_state(state)
    mine = bucketing(torch.from_numpy(rows), size)
    assert mine.shape == theirs.shape
    sizes = torch.tensor([min(size, n - start) for start in range(0, n, size)], dtype=torch.float64)
    assert_same((mine * sizes[:, None]).sum(dim=0) / n, rows.mean(axis=0))


@each_shape
def test_one_round_of_centered_clipping_from_zero(n, f, d):
    rows = draw(n, d, 1, f)
    for iterations, radius in itertools.product((1, 3), (0.5, 4.0)):
        theirs = byzfl.CenteredClipping(L=iterations, tau=radius)(rows.copy())
        assert_same(centered_clipping(torch.from_numpy(rows), torch.zeros(d).double(), radius, iterations), theirs)


def test_their_centered_clipping_takes_no_centre():
    """No value is both of the types that it asks for."""
    with pytest.raises(TypeError, match=r"must be of type np\.ndarray or torch\.Tensor"):
        byzfl.CenteredClipping(m=np.zeros(3))


@each_shape
def test_the_geometric_median_is_theirs_run_to_the_end(n, f, d):
    rows = draw(n, d, 2, f)
    theirs = byzfl.GeometricMedian(nu=1e-9, T=3000)(rows.copy())
    torch.testing.assert_close(geometric_median(torch.from_numpy(rows)), torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_their_three_steps_from_zero_depend_on_where_zero_is():
    """A geometric median moves with its points; three Weiszfeld steps from the origin do not get there."""
    rows, shift = draw(9, 6, 1, 2), np.full(6, 1000.0)
    theirs = [byzfl.GeometricMedian()(rows + move) - move for move in (0 * shift, shift)]
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1
    mine = [geometric_median(torch.from_numpy(rows + move)) - torch.from_numpy(move) for move in (0 * shift, shift)]
    torch.testing.assert_close(mine[0], mine[1], rtol=1e-6, atol=1e-6)


def krum_by_hand(rows, neighbours):
    distances = np.square(rows[:, None] - rows[None, :]).sum(axis=2)
    scores = np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(axis=1)
    return scores


def test_their_krum_counts_one_neighbour_more_than_the_paper():
    """n - f - 1 others; the paper's score, and ours, sums over n - f - 2."""
    differ = 0
    for seed in range(60):
        rows, n, f = draw(9, 4, seed), 9, 2
        theirs, mine = byzfl.Krum(f)(rows.copy()), krum(torch.from_numpy(rows), f).numpy()
        assert np.array_equal(theirs, rows[krum_by_hand(rows, n - f - 1).argmin()])
        assert np.array_equal(mine, rows[krum_by_hand(rows, n - f - 2).argmin()])
        differ += not np.array_equal(theirs, mine)
    assert 0 < differ < 60


def test_multi_krum_is_the_same_but_for_that_neighbour():
    for seed in range(10):
        rows, n, f = draw(11, 5, seed), 11, 3
        theirs, mine = byzfl.MultiKrum(f)(rows.copy()), multi_krum(torch.from_numpy(rows), f, num_selected=n - f)
        for result, neighbours in ((theirs, n - f - 1), (mine.numpy(), n - f - 2)):
            lowest = krum_by_hand(rows, neighbours).argsort()[: n - f]
            np.testing.assert_allclose(result, rows[lowest].mean(axis=0), rtol=1e-9, atol=1e-9)
        assert_same(multi_krum(torch.from_numpy(rows), f, n - f, num_neighbors=n - f - 1), theirs)


@each_shape
def test_both_find_a_subset_of_the_smallest_diameter(n, f, d):
    """Often several have it; ours takes the one with the least sum of squared distances, theirs the first."""
    for seed in range(4):
        rows = draw(n, d, seed, f)
        distances = np.sqrt(np.square(rows[:, None] - rows[None, :]).sum(axis=2))
        subsets = [list(subset) for subset in itertools.combinations(range(n), n - f)]
        diameters = np.array([distances[np.ix_(subset, subset)].max() for subset in subsets])
        best = [subset for subset, size in zip(subsets, diameters, strict=True) if size <= diameters.min() + 1e-12]
        sums = [np.square(distances[np.ix_(subset, subset)]).sum() for subset in best]
        mine, theirs = minimum_diameter_averaging(torch.from_numpy(rows), f), byzfl.MDA(f)(rows.copy())
        assert_same(mine, rows[best[int(np.argmin(sums))]].mean(axis=0))
        assert min(np.abs(theirs - rows[subset].mean(axis=0)).max() for subset in best) < 1e-9


@pytest.mark.parametrize("name", ["caf", "smea"])
def test_their_widest_direction_is_one_step_of_the_power_method_from_a_random_start(name):
    """Theirs changes from call to call, ours takes the eigenvector itself; on two columns of rows both are near."""
    mine, theirs = {"caf": (caf, byzfl.CAF), "smea": (smea, byzfl.SMEA)}[name]
    rows, state, results = draw(9, 12, 5), np.random.get_state(), []
    try:
        for seed in range(6):
            np.random.seed(seed)
            results.append(theirs(2)(rows.copy()))
    finally:
        np.random.set_state(state)
    assert max(np.abs(result - results[0]).max() for result in results) > 1e-6
    again = mine(torch.from_numpy(rows), 2)
    assert torch.equal(mine(torch.from_numpy(rows), 2), again)


def test_on_one_column_the_widest_direction_is_known_and_smea_agrees():
    for seed in range(5):
        rows = draw(9, 1, seed, 2)
        assert_same(smea(torch.from_numpy(rows), 2), byzfl.SMEA(2)(rows.copy()))


def caf_by_hand(values, f, of):
    """CAF of numbers; the largest t is that of the rows which ``of`` picks by their weights."""
    weights, least, best = np.ones(len(values)), np.inf, None
    while weights.sum() > len(values) - 2 * f:
        mean = (weights * values).sum() / weights.sum()
        spread = np.square(values - mean)
        if (variance := (weights * spread).sum() / weights.sum()) < least:
            least, best = variance, mean
        weights = weights * (1 - spread / spread[of(weights)].max()).clip(min=0)
    return best


def test_in_their_caf_a_row_that_has_left_still_holds_the_others_weights():
    """There the farthest row sets the scale, also when its weight is 0 already; here, the farthest with weight."""
    for seed in range(5):
        rows = draw(9, 1, seed)
        theirs, mine = byzfl.CAF(2)(rows.copy()), caf(torch.from_numpy(rows), 2)
        assert float(theirs[0]) == pytest.approx(caf_by_hand(rows[:, 0], 2, lambda weights: weights >= 0))
        assert float(mine[0]) == pytest.approx(caf_by_hand(rows[:, 0], 2, lambda weights: weights > 0))


def test_their_clipping_writes_into_what_it_is_given():
    rows = draw(9, 4, 0, 2)
    given = rows.copy()
    byzfl.ARC(2)(given)
    assert not np.array_equal(given, rows)
    mine = torch.from_numpy(rows.copy())
    adaptive_robust_clipping(mine, 2)
    assert np.array_equal(mine.numpy(), rows)


def test_a_row_that_is_no_number_takes_part_in_their_mixing_and_not_in_ours():
    rows = draw(9, 4)
    rows[8] = np.inf
    with np.errstate(all="ignore"):
        theirs = byzfl.NNM(2)(rows.copy())
    mine = nearest_neighbor_mixing(torch.from_numpy(rows), 2)
    assert bool(mine[:8].isfinite().all())
    assert_same(mine[:8], theirs[:8])  # infinitely far is far enough
    rows[8, 0] = np.nan
    with np.errstate(all="ignore"):
        theirs = byzfl.Median()(rows.copy())
    assert np.isnan(theirs).any()
    assert bool(median(torch.from_numpy(rows)).isfinite().all())


@each_shape
def test_inner_product_manipulation_is_theirs(n, f, d):
    rows = draw(n, d)
    assert_same(ipm(torch.from_numpy(rows), epsilon=0.7), byzfl.InnerProductManipulation(tau=0.7)(rows.copy()))


@each_shape
def test_a_little_is_enough_is_theirs_mirrored_at_the_mean(n, f, d):
    """The paper's attackers send mean - z std; theirs add. Both lie as far from the mean."""
    rows = draw(n, d)
    theirs = byzfl.ALittleIsEnough(tau=1.5)(rows.copy())
    assert_same(2 * torch.from_numpy(rows).mean(dim=0) - alie(torch.from_numpy(rows), z=1.5), theirs)
