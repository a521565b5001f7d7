import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import geometric_median, mean, median_of_means
from tests.aggregation.brute_force import displacement, distance_sum, honest


def group_means(u, k):
    """Runs of rows whose lengths differ by one at most."""
    means, groups = [], [[i for i in range(len(u)) if i * k // len(u) == g] for g in range(k)]
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    for rows in groups:
        means.append(u[rows].double().mean(dim=0))
    return torch.stack(means)


@given(
    seed=st.integers(0, 10**6),
    f=st.integers(0, 4),
    extra=st.integers(1, 20),
    d=st.integers(2, 6),
    more=st.integers(1, 9),
)
@settings(deadline=None, max_examples=60)
def test_is_the_geometric_median_of_the_groups_means(seed, f, extra, d, more):
    u = honest(seed, 2 * f + extra, d)
    k = min(len(u), 2 * f + more)
    means = group_means(u, k)
    expected = geometric_median(means)
    assert distance_sum(means, median_of_means(u, f, k)) <= distance_sum(means, expected) * (1 + 1e-9) + 1e-12
    if k != 2:  # of two means, every point between them is a median
        torch.testing.assert_close(median_of_means(u, f, k), expected, rtol=1e-5, atol=1e-5)


def test_how_many_groups():
    u = honest(0, 20, 4)
    torch.testing.assert_close(median_of_means(u, 0), mean(u))
    torch.testing.assert_close(median_of_means(u, 2), geometric_median(group_means(u, 7)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(median_of_means(u, 9), geometric_median(u), rtol=1e-6, atol=1e-6)  # 28 > 20
    torch.testing.assert_close(median_of_means(u, 2, num_groups=20), geometric_median(u), rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 10**6), shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=20)
def test_follows_shift_scale_and_rotation(seed, shift, scale):
    u = honest(seed, 20, 5)
    expected, turn = median_of_means(u, 3), torch.linalg.qr(honest(seed + 1, 5, 5)).Q
    torch.testing.assert_close(median_of_means(u + shift, 3), expected + shift, rtol=0, atol=1e-6)
    torch.testing.assert_close(median_of_means(u * -scale, 3), expected * -scale, rtol=0, atol=1e-6 * scale)
    torch.testing.assert_close(median_of_means(u @ turn, 3), expected @ turn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e8, 1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("spread", [True, False])
def test_f_rows_move_it_only_so_far_in_whatever_groups_they_are(size, spread):
    for seed in range(5):
        u, hostile = honest(seed, 20, 5), [0, 7, 19] if spread else [0, 1, 2]
        u[hostile] = size
        rest = [i for i in range(20) if i not in hostile]
        assert displacement(median_of_means(u, 3), u[rest]) <= 2
        assert not displacement(mean(u), u[rest]) <= 2


def test_nothing_but_rows_that_are_not_finite():
    assert median_of_means(torch.full((5, 3), torch.nan), 1).shape == (3,)


@pytest.mark.parametrize(
    ("n", "f", "k"), [(4, 2, None), (0, 0, None), (5, -1, None), (5, 0.5, None), (9, 2, 4), (9, 2, 10), (9, 2, 5.5)]
)
def test_settings_that_cannot_work(n, f, k):
    with pytest.raises(ConfigError, match="needs"):
        median_of_means(torch.zeros(n, 2), f, k)
