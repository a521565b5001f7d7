import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import monna
from tests.aggregation import brute_force
from tests.aggregation.brute_force import displacement, honest, with_hostile

cohorts = {"seed": st.integers(0, 10**6), "f": st.integers(0, 4), "extra": st.integers(1, 4), "d": st.integers(1, 6)}


def nearest(u, pivot, f):
    distances = brute_force.squared_distances(u)[pivot].tolist()
    return sorted(range(len(u)), key=distances.__getitem__)[: len(u) - f]


@given(**cohorts, data=st.data())
@settings(deadline=None, max_examples=60)
def test_is_the_mean_of_the_rows_nearest_to_the_pivot(seed, f, extra, d, data):
    u = honest(seed, 2 * f + extra, d)
    pivot = data.draw(st.integers(0, len(u) - 1))
    torch.testing.assert_close(monna(u, f, pivot), u[nearest(u, pivot, f)].mean(dim=0))


@given(**cohorts)
@settings(deadline=None, max_examples=60)
def test_without_a_pivot_it_is_the_smallest_ball_around_a_row(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    distances = brute_force.squared_distances(u)

    def radius_then_sum(pivot):
        to_pivot = distances[pivot, nearest(u, pivot, f)]
        return round(float(to_pivot.max()), 9), float(to_pivot.sum())

    pivot = min(range(len(u)), key=radius_then_sum)
    torch.testing.assert_close(monna(u, f), u[nearest(u, pivot, f)].mean(dim=0))


def test_row_order_does_not_decide_between_balls_of_one_radius():
    """1 and 2.5 are each the other's third nearest; one ball holds 0, the other 4."""
    u = torch.tensor([[0.0], [1.0], [2.5], [4.0]], dtype=torch.float64)
    results = {round(float(monna(u[list(order)], 1)), 9) for order in itertools.permutations(range(4))}
    assert len(results) == 1


def test_the_pivots_copies_do_not_push_it_out():
    u = torch.zeros(5, 2)
    assert monna(u, 2, pivot=4).tolist() == [0.0, 0.0]
    u[4] = torch.nan
    assert bool(monna(u, 2, pivot=4).isnan().all())  # who trusts it gets it


@pytest.mark.parametrize("size", [1e2, 1e12, 1e30])
def test_a_hostile_pivot_is_a_choice_of_the_caller(size):
    u = with_hostile(honest(0, 9, 5), size, 4)
    assert displacement(monna(u, 4, pivot=8), u[4:]) <= 2
    assert displacement(monna(u, 4), u[4:]) <= 2
    assert displacement(monna(u, 4, pivot=0), u[4:]) > 2


@pytest.mark.parametrize(("n", "f", "pivot"), [(4, 2, 0), (0, 0, 0), (5, -1, 0), (5, 0.5, 0), (5, 1, 5), (5, 1, -1)])
def test_settings_that_cannot_work(n, f, pivot):
    with pytest.raises(ConfigError, match="needs"):
        monna(torch.zeros(n, 2), f, pivot)
