import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import geometric_median, mean, rfa, rfa_weights
from tests.aggregation import brute_force
from tests.aggregation.brute_force import displacement, honest, with_hostile


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), d=st.integers(2, 6), steps=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_is_a_few_weiszfeld_steps_from_the_mean(seed, n, d, steps):
    u = honest(seed, n, d)
    expected = brute_force.weiszfeld(u, u.mean(dim=0), steps, smoothing=1e-9)
    # Where it runs into a row, inner products do not tell distances below 1e-8 apart.
    torch.testing.assert_close(rfa(u, max_iterations=steps, tolerance=0.0), expected, rtol=0, atol=1e-7)


def test_the_default_budget_is_four_steps():
    u = with_hostile(honest(0, 12, 4), 1e2, 3)
    torch.testing.assert_close(rfa(u), brute_force.weiszfeld(u, u.mean(dim=0), 4, smoothing=1e-9))


def test_steps_start_at_the_weighted_mean_and_keep_the_given_weights():
    u = honest(3, 5, 3)
    counts = [3, 1, 1, 4, 2]
    repeated = torch.cat([u[i : i + 1].expand(count, -1) for i, count in enumerate(counts)])
    torch.testing.assert_close(rfa(u, weights=torch.tensor(counts)), rfa(repeated), rtol=0, atol=1e-9)


def test_a_large_budget_gives_the_geometric_median():
    u = with_hostile(honest(0, 12, 4), 1e2, 3)
    torch.testing.assert_close(rfa(u, max_iterations=1000, tolerance=1e-12), geometric_median(u))


def test_stops_at_its_tolerance():
    u = honest(0, 12, 4)
    assert torch.equal(rfa(u, max_iterations=50, tolerance=1e9), rfa(u, max_iterations=1))


@pytest.mark.parametrize("size", [1e2, 3e2, 1e3])
def test_moderate_outliers_move_it_only_so_far(size):
    for seed in range(5):
        u = with_hostile(honest(seed, 15, 6), size, 1, seed)
        assert displacement(rfa(u), u[1:]) < 1
        assert displacement(mean(u), u[1:]) > 1


def test_its_budget_is_too_small_for_huge_outliers():
    # why GeometricMedian is the rule to take on a server: four steps cannot come back from 1e12
    u = with_hostile(honest(0, 15, 6), 1e12, 3)
    assert displacement(rfa(u), u[3:]) > 1e3
    assert displacement(geometric_median(u), u[3:]) < 2
    assert displacement(rfa(u, max_iterations=100), u[3:]) < 2


def test_rows_that_are_not_finite_count_as_absent():
    u = honest(0, 9, 4)
    bad = torch.cat([torch.full((1, 4), torch.nan), u, torch.full((1, 4), torch.inf)])
    torch.testing.assert_close(rfa(bad), rfa(u))
    assert rfa_weights(bad)[[0, 10]].tolist() == [0, 0]


def test_identical_rows_with_half_of_the_weight():
    u = torch.cat([honest(0, 4, 3), honest(1, 1, 3).expand(5, -1)])
    torch.testing.assert_close(rfa(u), u[-1])


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"rfa needs .*max_iterations >= 1"):
        rfa(torch.zeros(3, 2), max_iterations=0)
