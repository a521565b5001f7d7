import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import mean, mean_around_median
from tests.aggregation.brute_force import honest


def literal(u, f):
    """Sort by the distance to the median; of two equally far values the lower first."""
    result = []
    for column in u.double().T.tolist():
        ordered = sorted(column)
        middle = (ordered[(len(column) - 1) // 2] + ordered[len(column) // 2]) / 2
        nearest = sorted(column, key=lambda value: (abs(value - middle), value))[: len(column) - f]
        result.append(sum(nearest) / len(nearest))
    return torch.tensor(result, dtype=torch.float64)


@given(seed=st.integers(0, 10**6), f=st.integers(0, 5), extra=st.integers(1, 5), d=st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_is_the_mean_of_the_values_nearest_to_the_median(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    torch.testing.assert_close(mean_around_median(u, f), literal(u, f))
    torch.testing.assert_close(mean_around_median(u.float(), f).double(), literal(u.float(), f), rtol=1e-6, atol=1e-6)


@given(data=st.data(), f=st.integers(0, 3), extra=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_of_values_equally_far_the_lower_one(data, f, extra):
    n = 2 * f + extra
    u = torch.tensor(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), dtype=torch.float32)[:, None]
    torch.testing.assert_close(mean_around_median(u, f).double(), literal(u, f))


@pytest.mark.parametrize("value", [1e2, -1e30, torch.inf, -torch.inf, torch.nan])
def test_f_values_that_are_far_off_do_not_count(value):
    u = honest(0, 9, 5)
    u[:4] = value
    result = mean_around_median(u, 4)
    assert bool((u[4:].amin(dim=0) <= result).all() & (result <= u[4:].amax(dim=0)).all())


def test_infinities_of_both_signs():
    u = honest(1, 9, 1)
    u[[0, 2]], u[[5, 7]] = torch.inf, -torch.inf
    torch.testing.assert_close(mean_around_median(u, 4), u[u.isfinite()].mean(dim=0, keepdim=True))


def test_it_differs_from_the_trimmed_mean_on_one_sided_values():
    """f from one side only: the f that are farthest, not f from each."""
    u = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0], [11.0]])
    assert mean_around_median(u, 2).tolist() == [1.5]
    torch.testing.assert_close(mean_around_median(u, 0), mean(u))


@pytest.mark.parametrize(("n", "f"), [(4, 2), (0, 0), (5, -1), (5, 0.5)])
def test_settings_that_cannot_work(n, f):
    with pytest.raises(ConfigError, match="needs"):
        mean_around_median(torch.zeros(n, 2), f)
