import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import bucketing, krum, mean, median
from flsec.aggregation.bucketing import bucket_means, dealt
from tests.aggregation.brute_force import displacement, honest, with_hostile

seeds = st.integers(0, 10**6)
quick = settings(max_examples=20, deadline=None)


@given(seed=seeds, n=st.integers(1, 17), size=st.integers(1, 20), d=st.integers(1, 30))
@quick
def test_is_the_mean_of_each_bucket_on_random_shapes(seed, n, size, d):
    u = honest(seed, n, d)
    groups = dealt(n, size, seed, 4)
    assert sorted(row for rows in groups for row in rows) == list(range(n))
    assert [len(rows) for rows in groups[:-1]] == [size] * (math.ceil(n / size) - 1)
    expected = torch.stack([sum(u[i] for i in rows) / len(rows) for rows in groups])
    torch.testing.assert_close(bucketing(u, size, seed, 4), expected)
    torch.testing.assert_close(bucketing(u.float(), size, seed, 4).double(), expected, rtol=1e-6, atol=1e-6)


@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
@quick
def test_follows_shift_scale_and_rotation(seed, shift, scale):
    u = honest(seed, 11, 6)
    turn = torch.linalg.qr(honest(seed + 1, 6, 6)).Q
    means = bucketing(u, 3, seed)
    torch.testing.assert_close(bucketing(scale * u + shift, 3, seed), scale * means + shift)
    torch.testing.assert_close(bucketing(u @ turn, 3, seed), means @ turn)


def test_buckets_depend_on_seed_and_round_alone_and_are_dealt_evenly():
    assert dealt(10, 2, 0, 1) == dealt(10, 2, 0, 1)
    assert dealt(10, 2, 0, 1) != dealt(10, 2, 0, 2)
    assert dealt(10, 2, 0, 1) != dealt(10, 2, 1, 1)
    together = sum(any({0, 1} <= set(rows) for rows in dealt(10, 2, 0, round)) for round in range(1800))
    assert abs(together / 1800 - 1 / 9) < 0.03


def test_buckets_of_one_are_the_rows_and_one_bucket_is_the_mean():
    u = honest(0, 7, 4)
    assert torch.equal(bucketing(u, 1).sort(dim=0).values, u.sort(dim=0).values)
    torch.testing.assert_close(bucketing(u, 9), u.mean(dim=0, keepdim=True))


@pytest.mark.parametrize("size", [1e2, 1e12, 1e30])
@pytest.mark.parametrize("rule", [median, lambda u: krum(u, num_byzantine=2)], ids=["median", "krum"])
def test_f_outliers_spoil_f_buckets_at_most(rule, size):
    for seed in range(5):
        u = with_hostile(honest(seed, 14, 6).float(), size, 2, seed)
        means = bucketing(u, 2, seed)
        assert int((means.norm(dim=1) > 0.1 * size).sum()) <= 2
        assert displacement(rule(means), u[2:]) <= 2.0
    assert displacement(mean(bucketing(u, 2)), u[2:]) > 2.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_spoils_its_own_bucket_and_no_other(bad):
    u = honest(0, 10, 6)
    expected = bucketing(u, 2)
    u[3, 2] = bad
    means = bucketing(u, 2)
    spoilt = [3 in rows for rows in dealt(10, 2, 0, 1)]
    assert (~means.isfinite().all(dim=1)).tolist() == spoilt
    assert torch.equal(means[~torch.tensor(spoilt)], expected[~torch.tensor(spoilt)])


def test_weights_count_within_a_bucket_unless_all_are_zero():
    u = honest(0, 4, 3)
    weights = torch.tensor([1.0, 3.0, 0.0, 0.0], dtype=torch.float64)
    means = bucket_means(u, [[0, 1], [2, 3]], weights)
    torch.testing.assert_close(means, torch.stack([0.25 * u[0] + 0.75 * u[1], u[2:].mean(dim=0)]))


@pytest.mark.parametrize("size", [0, -1, 1.5, None])
def test_the_size_is_a_whole_number(size):
    with pytest.raises(ConfigError, match=f"bucketing needs a whole bucket_size >= 1; got bucket_size={size}"):
        bucketing(torch.zeros(3, 2), size)
