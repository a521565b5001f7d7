import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import comparative_gradient_elimination
from tests.aggregation.brute_force import displacement, honest, with_hostile


@given(seed=st.integers(0, 10**6), f=st.integers(0, 4), extra=st.integers(1, 4), d=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_drops_the_f_longest_rows(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    rows = sorted(range(len(u)), key=lambda i: float(u[i].norm()))[: len(u) - f]
    torch.testing.assert_close(comparative_gradient_elimination(u, f), u[rows].mean(dim=0))
    torch.testing.assert_close(comparative_gradient_elimination(u, f, combine="sum"), u[rows].sum(dim=0))


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=20)
def test_follows_order_scale_and_rotation(seed, scale):
    u, f = honest(seed, 9, 5), 3
    expected = comparative_gradient_elimination(u, f)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(honest(seed + 1, 5, 5)).Q
    torch.testing.assert_close(comparative_gradient_elimination(u[order], f), expected)
    torch.testing.assert_close(comparative_gradient_elimination(u * -scale, f), expected * -scale)
    torch.testing.assert_close(comparative_gradient_elimination(u @ turn, f), expected @ turn)


@pytest.mark.parametrize("size", [1e2, 1e12, 1e30, torch.inf, torch.nan])
def test_long_rows_and_rows_that_are_not_finite_never_enter(size):
    u = honest(0, 9, 5).float()
    u[[1, 4, 6, 8], 2] = size
    torch.testing.assert_close(comparative_gradient_elimination(u, 4), u[[0, 2, 3, 5, 7]].mean(dim=0))


def test_rows_of_honest_length_get_in():
    """What the docstring says: only the length is looked at."""
    u = honest(0, 9, 5) + 10
    u[:4] = -u[4:].mean(dim=0)
    assert displacement(comparative_gradient_elimination(u, 4), u[4:]) > 2
    assert displacement(comparative_gradient_elimination(with_hostile(u, 1e3, 4), 4), u[4:]) <= 2


@pytest.mark.parametrize(
    ("n", "f", "combine"), [(4, 2, "mean"), (0, 0, "mean"), (5, -1, "mean"), (5, 0.5, "mean"), (5, 1, "median")]
)
def test_settings_that_cannot_work(n, f, combine):
    with pytest.raises(ConfigError, match="needs"):
        comparative_gradient_elimination(torch.zeros(n, 2), f, combine)
