import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import caf, mean
from flsec.aggregation._gram import robust_gram
from flsec.aggregation.caf import filter_weights
from tests.aggregation.brute_force import displacement, honest, with_hostile


def literal(u, f):
    """The paper's algorithm with a (d, d) covariance matrix."""
    rows, weights = u.double().numpy(), np.ones(len(u))
    result, least = rows.mean(axis=0), np.inf
    while weights.sum() > len(rows) - 2 * f:
        middle = weights @ rows / weights.sum()
        centred = rows - middle
        values, vectors = np.linalg.eigh((weights[:, None] * centred).T @ centred / weights.sum())
        if values[-1] < least:
            result, least = middle, values[-1]
        t = (centred @ vectors[:, -1]) ** 2
        weights = np.clip(weights * (1 - t / t[weights > 0].max()), 0, None)
        weights[weights < 1e-12] = 0  # the row that leaves, to rounding
    return torch.from_numpy(result)


@given(seed=st.integers(0, 10**6), f=st.integers(0, 4), extra=st.integers(1, 5), d=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_is_the_papers_algorithm_on_the_covariance(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    torch.testing.assert_close(caf(u, f), literal(u, f), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e2, 1e8, 1e30, 1e150])
@pytest.mark.parametrize("together", [True, False])
def test_rows_that_are_far_out_get_no_weight(size, together):
    for seed in range(5):
        u = with_hostile(honest(seed, 11, 5), size, 3, seed, together)
        weights = filter_weights(robust_gram(u)[0], 3)
        assert weights[:3].sum() < 1e-3
        assert displacement(caf(u, 3), u[3:]) <= 1


def test_a_row_that_has_left_does_not_shield_the_next():
    """With the largest t of all rows, 1e30 would hide 1e6 from the filter."""
    u = honest(0, 11, 5)
    u[0], u[1], u[2] = 1e30, 0, 0
    u[1, 0], u[2, 1] = 1e6, -1e3
    assert filter_weights(robust_gram(u)[0], 3)[:3].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert displacement(caf(u, 3), u[3:]) <= 1


def test_equal_rows_and_no_hostile_ones():
    u = honest(2, 7, 3)
    torch.testing.assert_close(caf(u, 0), mean(u))
    torch.testing.assert_close(caf(u[:1].expand(7, 3), 3), u[0])
    u[1:] = u[0]
    u[1] += 1
    torch.testing.assert_close(caf(u, 3), u[0])


@pytest.mark.parametrize(("n", "f"), [(4, 2), (0, 0), (5, -1), (5, 0.5)])
def test_settings_that_cannot_work(n, f):
    with pytest.raises(ConfigError, match="needs"):
        caf(torch.zeros(n, 2), f)
