import importlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation.minimum_diameter_averaging import minimum_diameter_averaging, smallest_diameter
from tests.aggregation import brute_force
from tests.aggregation.brute_force import honest, with_hostile

RULE = importlib.import_module("flsec.aggregation.minimum_diameter_averaging")


def literal(u, f):
    """Look at every subset: the least (diameter, sum of squared distances)."""
    distances = brute_force.squared_distances(u)

    def value(rows):
        inside = distances[list(rows)][:, list(rows)]
        return round(float(inside.max()), 9), float(inside.sum())

    return list(min(itertools.combinations(range(len(u)), len(u) - f), key=value))


@given(seed=st.integers(0, 10**6), f=st.integers(0, 4), extra=st.integers(1, 4), d=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_is_the_subset_of_smallest_diameter(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    rows = literal(u, f)
    found, exact = smallest_diameter(brute_force.squared_distances(u), f)
    assert (found.tolist(), exact) == (rows, True)
    torch.testing.assert_close(minimum_diameter_averaging(u, f), u[rows].mean(dim=0))


@given(data=st.data(), f=st.integers(0, 3), extra=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_equal_distances(data, f, extra):
    n = 2 * f + extra
    u = torch.tensor(data.draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n)), dtype=torch.float64)[:, None]
    distances = brute_force.squared_distances(u)
    rows, exact = smallest_diameter(distances, f)
    expected = literal(u, f)
    assert exact
    assert len(set(rows.tolist())) == n - f
    assert distances[rows][:, rows].max() == distances[expected][:, expected].max()


def test_row_order_does_not_decide_between_subsets_of_one_diameter():
    # 0 and 4 set the diameter; either of the two others fits, and the lower one is closer
    u = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 2.5], [2.0, -2.0]], dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        shuffled = u[list(order)]
        chosen = shuffled[smallest_diameter(brute_force.squared_distances(shuffled), 1)[0]]
        assert [2.0, 2.5] not in chosen.tolist()


@pytest.mark.parametrize("f", [2, 12])
def test_f_pairs_in_conflict_are_no_burden(f):
    """2^f subsets of one diameter, made by f rows that each stand across from an honest one."""
    near = torch.eye(2 * f, dtype=torch.float64)
    u = torch.cat([near[:f], -near[:f], torch.zeros(f + 1, 2 * f, dtype=torch.float64)])
    rows, exact = smallest_diameter(brute_force.squared_distances(u), f)
    assert exact
    assert len(rows) == 2 * f + 1
    torch.testing.assert_close(brute_force.squared_distances(u[rows]).max().item(), 2.0)


@pytest.mark.parametrize("n", [30, 41])
def test_beyond_f_12_it_is_greedy_and_says_so(n):
    for seed in range(3):
        u = with_hostile(honest(seed, n, 6), 50.0, 13, seed)
        distances = brute_force.squared_distances(u)
        rows, exact = smallest_diameter(distances, 13)
        assert not exact
        assert len(rows) == n - 13
        honest_diameter = distances[13:, 13:].max().sqrt()
        assert distances[rows][:, rows].max().sqrt() <= 2 * honest_diameter
        torch.testing.assert_close(minimum_diameter_averaging(u, 13), u[rows].mean(dim=0))


@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_within_twice_the_smallest_diameter(monkeypatch, seed):
    u = honest(seed, 12, 3)
    distances = brute_force.squared_distances(u)
    best = literal(u, 4)
    monkeypatch.setattr(RULE, "EXACT_UP_TO", 3)
    rows, exact = smallest_diameter(distances, 4)
    assert not exact
    assert distances[rows][:, rows].max() <= 4 * distances[best][:, best].max()


@pytest.mark.parametrize(("n", "f"), [(4, 2), (0, 0), (5, -1), (5, 0.5)])
def test_settings_that_cannot_work(n, f):
    with pytest.raises(ConfigError, match="needs"):
        minimum_diameter_averaging(torch.zeros(n, 2), f)
