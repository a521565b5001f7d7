import importlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import smea
from flsec.aggregation._gram import robust_gram
from flsec.aggregation.smea import least_spread
from tests.aggregation.brute_force import displacement, honest, with_hostile

RULE = importlib.import_module("flsec.aggregation.smea")


def widest(u):
    """The largest eigenvalue of the (d, d) covariance."""
    return float(torch.linalg.eigvalsh(torch.cov(u.T, correction=0).reshape(u.shape[1], u.shape[1]))[-1])


@given(seed=st.integers(0, 10**6), f=st.integers(0, 3), extra=st.integers(2, 4), d=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_is_the_subset_of_the_smallest_largest_eigenvalue(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    best = list(min(itertools.combinations(range(len(u)), len(u) - f), key=lambda rows: widest(u[list(rows)])))
    rows, exact = least_spread(robust_gram(u)[0], f)
    assert exact
    assert widest(u[rows]) == pytest.approx(widest(u[best]), rel=1e-9)
    torch.testing.assert_close(smea(u, f), u[rows].mean(dim=0))


@pytest.mark.parametrize("block", [1, 300])
def test_blocks_change_nothing(monkeypatch, block):
    u = honest(3, 11, 5)
    expected = smea(u, 3)
    monkeypatch.setattr(RULE, "_AT_ONCE", block)
    assert torch.equal(smea(u, 3), expected)


def test_of_equal_subsets_the_first():
    u = torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.0]])
    assert least_spread(robust_gram(u)[0], 2)[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("n", "f", "exact"), [(20, 5, True), (22, 4, True), (30, 3, True), (47, 2, True), (48, 2, False)]
)
def test_how_far_it_is_exact(monkeypatch, n, f, exact):
    monkeypatch.setattr(RULE, "_best_of_all", lambda products, rows, count: rows[:count])
    assert least_spread(robust_gram(honest(0, n, 3))[0], f)[1] == exact


@pytest.mark.parametrize("size", [3.0, 1e2, 1e12, 1e30])
@pytest.mark.parametrize("together", [True, False])
def test_greedy_drops_what_spreads_most(size, together):
    for seed in range(3):
        u = with_hostile(honest(seed, 40, 5), size, 10, seed, together)
        rows, exact = least_spread(robust_gram(u)[0], 10)
        assert not exact
        assert len(rows) == 30
        assert displacement(smea(u, 10), u[10:]) <= 1
        assert size < 100 or rows.min() >= 10


def test_greedy_is_exact_or_close_where_both_can_be_computed(monkeypatch):
    u = honest(1, 12, 3)
    best = widest(u[least_spread(robust_gram(u)[0], 3)[0]])
    monkeypatch.setattr(RULE, "EXACT_UP_TO", 0)
    rows, exact = least_spread(robust_gram(u)[0], 3)
    assert not exact
    assert best <= widest(u[rows]) <= 2 * best


def test_rows_that_are_not_finite_never_enter():
    u = honest(0, 9, 5)
    u[[0, 3], 1], u[5], u[7] = torch.nan, torch.inf, 1e200
    assert least_spread(robust_gram(u)[0], 4)[0].tolist() == [1, 2, 4, 6, 8]
    assert least_spread(robust_gram(u)[0], 1)[0].tolist() == [1, 2, 4, 6, 8]  # more of them than f
    assert least_spread(robust_gram(u * torch.nan)[0], 1)[0].tolist() == list(range(9))


@pytest.mark.parametrize(("n", "f"), [(4, 2), (0, 0), (5, -1), (5, 0.5)])
def test_settings_that_cannot_work(n, f):
    with pytest.raises(ConfigError, match="needs"):
        smea(torch.zeros(n, 2), f)
