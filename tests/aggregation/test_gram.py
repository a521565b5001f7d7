import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import _gram, _threads
from flsec.aggregation._gram import (
    check_updates,
    check_weights,
    expand_squares,
    gram,
    robust_gram,
    rounded_gram,
    row_norms,
    scaled_rows,
    squared_distances,
    weighted_median,
    weighted_sum,
)
from tests.aggregation import brute_force


def largest_relative_error(updates):
    expected = brute_force.squared_distances(updates)
    got = squared_distances(updates)
    assert torch.equal(got[expected == 0], expected[expected == 0])  # equal rows: 0 exactly
    apart = expected > 0
    return float(((got - expected).abs()[apart] / expected[apart]).max())


def normal(seed, n=12, d=400, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 9), d=st.integers(0, 7), scale=st.sampled_from([1e-30, 1.0, 1e30]))
@settings(max_examples=60, deadline=None)
def test_distances_match_the_obvious_loop(seed, n, d, scale):
    updates = normal(seed, n, d) * scale
    torch.testing.assert_close(squared_distances(updates), brute_force.squared_distances(updates), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 50.0, 1e5])
def test_distances_survive_a_common_offset(offset, dtype):
    updates = offset * (1 + torch.rand(400, generator=torch.Generator().manual_seed(1))) + normal(0, dtype=dtype)
    assert largest_relative_error(updates) < 1e-6


def test_distances_of_models_that_differ_by_a_ten_thousandth():
    models = 50 * torch.ones(2000) + 1e-4 * normal(0, n=8, d=2000)
    assert largest_relative_error(models) < 1e-6
    squares = (models**2).sum(dim=1)
    expanded = squares[:, None] + squares[None, :] - 2 * models @ models.T  # the usual float32 short cut
    true = brute_force.squared_distances(models)
    apart = true > 0
    assert float(((expanded - true).abs()[apart] / true[apart]).max()) > 0.4


@pytest.mark.parametrize("rows", [[0], [0, 5], [11], [3, 4, 5, 6, 7]])
@pytest.mark.parametrize("size", [1e6, 1e12, 1e30])
def test_large_rows_cost_the_others_no_digits(rows, size):
    updates = normal(0)
    updates[rows] *= size
    assert largest_relative_error(updates) < 1e-6


def test_a_cluster_far_away_keeps_its_own_distances():
    updates = normal(0, dtype=torch.float64)
    updates[:5] = 1e9 * normal(1, 1, dtype=torch.float64) + updates[:5]
    updates[5:8] = 1e5 * normal(2, 1, dtype=torch.float64) + 1e-3 * updates[5:8]
    assert largest_relative_error(updates) < 1e-6


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6, 1e-8])
def test_near_copies_keep_their_distance(gap):
    updates = normal(0, dtype=torch.float64)
    updates[[1, 2, 9]] = updates[0] + gap * updates[[1, 2, 9]]
    assert largest_relative_error(updates) < 1e-6


def test_nested_scales_are_resolved_one_after_the_other():
    updates = normal(0, dtype=torch.float64) * torch.logspace(-18, 12, 12, dtype=torch.float64)[:, None]
    assert largest_relative_error(updates) < 1e-6


def test_copies_are_at_distance_zero():
    updates = normal(0) + 7
    updates[[2, 9, 10]] = updates[4].clone()
    updates[[0, 11]] = 1e12 * updates[0]
    got = squared_distances(updates)
    for a, b in ((2, 9), (4, 10), (0, 11)):
        assert got[a, b] == got[b, a] == 0
    assert largest_relative_error(updates) < 1e-6


def test_distances_are_symmetric_never_negative_with_zero_diagonal():
    updates = 1000 + 1e-3 * normal(0)
    updates[3] = torch.nan
    got = squared_distances(updates)
    assert torch.equal(got, got.T)
    assert bool((got >= 0).all())
    assert bool((got.diagonal() == 0).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rows", [[0], [2, 7], list(range(6))])
def test_rows_that_are_not_finite_are_infinitely_far(bad, rows):
    updates = normal(0)
    updates[rows, 17] = bad
    got = squared_distances(updates)
    good = [i for i in range(12) if i not in rows]
    torch.testing.assert_close(got[good][:, good], brute_force.squared_distances(updates[good]), rtol=1e-9, atol=0)
    for i in rows:
        assert bool((got[i, [j for j in range(12) if j != i]] == torch.inf).all())


def test_all_rows_not_finite():
    got = squared_distances(torch.full((3, 4), torch.nan))
    assert bool((got[~torch.eye(3, dtype=torch.bool)] == torch.inf).all())
    assert bool((got.diagonal() == 0).all())


def test_float64_rows_whose_squares_overflow_are_infinitely_far():
    updates = normal(0, dtype=torch.float64)
    updates[0] *= 1e200
    got = squared_distances(updates)
    assert bool((got[0, 1:] == torch.inf).all())
    torch.testing.assert_close(got[1:, 1:], brute_force.squared_distances(updates[1:]), rtol=1e-9, atol=0)


def test_nan_hidden_from_the_sample_of_rows_and_columns():
    updates = normal(0, n=130, d=3000)  # more rows and columns than the sample looks at
    sampled_rows = torch.linspace(0, 129, 64).long()
    updates[sampled_rows, 1] = torch.nan  # column 1 lies between the sampled columns 0 and 2
    good = [i for i in range(130) if i not in set(sampled_rows.tolist())]
    got = squared_distances(updates)
    torch.testing.assert_close(got[good][:, good], brute_force.squared_distances(updates[good]), rtol=1e-9, atol=0)
    assert bool((got[0, good] == torch.inf).all())


def test_a_hostile_row_that_poses_as_the_centre_is_not_used_as_one(monkeypatch):
    updates = normal(0, n=12, d=3000, dtype=torch.float64)
    updates[0] = updates[1:].mean(dim=0)
    updates[0, 1] = 1e12  # not among the sampled columns: the first guess is row 0
    assert _gram._guess_reference(updates, torch.ones(12)) == 0
    passes = []
    original = _gram._products
    monkeypatch.setattr(_gram, "_products", lambda *args: passes.append(1) or original(*args))
    products, reference = robust_gram(updates)
    assert reference != 0
    assert len(passes) == 2
    centred = updates - updates[reference]
    torch.testing.assert_close(products, centred @ centred.T, rtol=1e-12, atol=1e-9)
    assert largest_relative_error(updates) < 1e-6


def test_the_reference_follows_the_weights():
    updates = torch.cat([normal(0, n=8), 100 + normal(1, n=4)])
    assert robust_gram(updates)[1] < 8
    assert robust_gram(updates, torch.tensor([1.0] * 8 + [5.0] * 4, dtype=torch.float64))[1] >= 8


@pytest.mark.parametrize("block", [1, 13, 64, 10**6])
def test_blocks_change_nothing(monkeypatch, block):
    monkeypatch.setitem(_gram._BLOCK, "cpu", block)
    monkeypatch.setattr(_gram, "_PRODUCT_BLOCK", block)
    monkeypatch.setattr(_gram, "_SMALLEST_BLOCK", min(block, _gram._SMALLEST_BLOCK))
    updates = normal(0, n=5, d=41)
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0, 3.0])
    rows = updates.double()
    torch.testing.assert_close(gram(updates, False), rows @ rows.T)
    torch.testing.assert_close(gram(updates, updates[3]), (rows - rows[3]) @ (rows - rows[3]).T)
    torch.testing.assert_close(row_norms(updates), rows.norm(dim=1))
    torch.testing.assert_close(row_norms(updates, updates[3]), (rows - rows[3]).norm(dim=1))
    torch.testing.assert_close(weighted_sum(updates, weights), (weights.double() @ rows).float())
    assert torch.equal(scaled_rows(updates, weights), (weights.double()[:, None] * rows).float())
    assert largest_relative_error(updates) < 1e-9


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e12, 1e25])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_rounded_products_are_right_to_float32_at_any_size(size, offset):
    updates = ((normal(0, n=9, d=3001) + offset) * size).float()
    center = ((normal(1, n=1, d=3001)[0] + offset) * size).float()
    exact = gram(updates.double(), center.double())
    norms = exact.diagonal().sqrt()
    assert float(((rounded_gram(updates, center) - exact) / norms.outer(norms)).abs().max()) < 1e-6


@pytest.mark.parametrize("odd", [0.0, 1e30, torch.inf, torch.nan])
def test_rounded_products_of_rows_that_float32_cannot_square_are_those_of_float64(odd):
    updates = normal(0, n=5, d=40).float()
    updates[2] = odd
    center = torch.zeros(40)
    assert torch.equal(rounded_gram(updates, center).nan_to_num(7), gram(updates, center).nan_to_num(7))


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
def test_threads_change_nothing(monkeypatch, threads):
    monkeypatch.setattr(_threads, "_ELEMENTS_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    test_blocks_change_nothing(monkeypatch, 13)


def test_panels_of_many_rows_agree():
    updates = normal(0, n=300, d=10)
    torch.testing.assert_close(gram(updates, False), updates.double() @ updates.double().T)


def test_strided_and_half_precision_input():
    wide = normal(0, n=6, d=40)
    for view in (wide[:, ::3], wide[::2], wide.T[:7], wide.half(), wide.bfloat16()):
        assert largest_relative_error(view) < 1e-9
        total = weighted_sum(view, torch.ones(len(view)))
        assert total.dtype == view.dtype
        torch.testing.assert_close(total.double(), view.double().sum(dim=0), rtol=1e-2, atol=1e-2)
        thirds = torch.full((len(view),), 1 / 3, dtype=torch.float64)
        assert torch.equal(scaled_rows(view, thirds), (view.double() / 3).to(view.dtype))


def test_gram_about_a_central_row_gives_the_same_distances():
    updates = normal(0)
    products = gram(updates)
    squares = products.diagonal()
    torch.testing.assert_close(
        squares[:, None] + squares[None, :] - 2 * products, brute_force.squared_distances(updates), rtol=1e-9, atol=1e-9
    )


def test_rounding_leaves_no_negative_square():
    products = torch.tensor([[1.0, 1.0 + 1e-16 * 4], [1.0 + 1e-16 * 4, 1.0]], dtype=torch.float64)
    assert (products[0, 0] + products[1, 1] - 2 * products[0, 1]).item() < 0
    assert expand_squares(products).tolist() == [[0, 0], [0, 0]]


def test_gram_keeps_nan_in_its_row_and_column():
    updates = normal(0)
    updates[2, 3] = torch.nan
    for center in (True, False, torch.zeros(400)):
        bad = ~gram(updates, center).isfinite()
        assert bool(bad[2].all())
        assert bool(bad[:, 2].all())
        bad[2] = bad[:, 2] = False
        assert not bool(bad.any())


def test_rows_of_weight_zero_are_not_read():
    updates = normal(0)
    expected = weighted_sum(updates[2:], torch.ones(10))
    updates[0], updates[1] = torch.nan, torch.inf
    weights = torch.tensor([0.0, 0.0] + [1.0] * 10)
    assert torch.equal(weighted_sum(updates, weights), expected)
    assert not bool((weights @ updates).isfinite().any())  # a plain product would have read them
    assert torch.equal(weighted_sum(updates, torch.zeros(12)), torch.zeros(400))


def test_weighted_sum_accumulates_in_float64():
    updates = torch.tensor([[1e8], [1.0], [-1e8]])
    assert weighted_sum(updates, torch.ones(3)).item() == 1.0
    assert (updates[0] + updates[1] + updates[2]).item() == 0.0  # what float32 makes of it


def test_tiny_and_huge_norms():
    updates = torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]])
    torch.testing.assert_close(row_norms(updates), torch.tensor([5e-30, 5e30, 0.0]).double(), rtol=1e-6, atol=0)


@given(data=st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=9))
@settings(deadline=None)
def test_weighted_median_is_the_lower_median_of_the_repeated_values(data):
    values = torch.tensor([[float(v) for v, _ in data]])
    weights = torch.tensor([float(w) for _, w in data])
    repeated = sorted(v for v, w in data for _ in range(w))
    if repeated:
        assert weighted_median(values, weights).item() == repeated[(len(repeated) - 1) // 2]


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (torch.zeros(3), r"my_rule needs updates .* shape \(n, d\).*; got \(3,\)"),
        (torch.zeros(2, 2, dtype=torch.int64), r"floating point matrix.*got \(2, 2\) torch.int64"),
        ([[1.0]], r"got list"),
        (torch.zeros(0, 2), r"at least 1 row"),
    ],
)
def test_what_is_no_matrix_of_updates_is_refused(updates, message):
    with pytest.raises(ConfigError, match=message):
        check_updates(updates, "my_rule")


@pytest.mark.parametrize(
    "weights",
    [torch.ones(3), torch.zeros(2), torch.tensor([1.0, -1.0]), torch.tensor([1.0, torch.nan]), [1.0, 1.0]],
)
def test_weights_that_cannot_be_normalised_are_refused(weights):
    with pytest.raises(ConfigError, match=r"my_rule needs .*weights"):
        check_weights(weights, torch.zeros(2, 1), "my_rule")


def test_weights_are_normalised_whatever_their_size():
    updates = torch.zeros(2, 1)
    assert check_weights(None, updates, "r").tolist() == [0.5, 0.5]
    assert check_weights(torch.tensor([1, 3]), updates, "r").tolist() == [0.25, 0.75]
    assert check_weights(torch.tensor([1e308, 1e308], dtype=torch.float64), updates, "r").tolist() == [0.5, 0.5]
