import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec.aggregation import mean, median_norm_clipping
from tests.aggregation.brute_force import displacement, honest, with_hostile

seeds = st.integers(0, 10**6)
quick = settings(max_examples=20, deadline=None)


@given(seed=seeds, n=st.integers(1, 14), d=st.integers(1, 40))
@quick
def test_clips_to_numpys_median_on_random_shapes(seed, n, d):
    u = honest(seed, n, d)
    norms = np.array([np.sqrt(sum(value * value for value in row)) for row in u.tolist()])
    expected = u.numpy() * np.minimum(1.0, np.median(norms) / norms)[:, None]
    np.testing.assert_allclose(median_norm_clipping(u).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(median_norm_clipping(u.float()).numpy(), expected, rtol=1e-5, atol=1e-5)


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@quick
def test_follows_order_scale_and_rotation(seed, scale):
    u = honest(seed, 10, 6)
    clipped = median_norm_clipping(u)
    turn = torch.linalg.qr(honest(seed + 1, 6, 6)).Q
    torch.testing.assert_close(median_norm_clipping(u.flip(0)), clipped.flip(0))
    torch.testing.assert_close(median_norm_clipping(scale * u), scale * clipped)
    torch.testing.assert_close(median_norm_clipping(u @ turn), clipped @ turn)


@pytest.mark.parametrize("size", [1e2, 1e12, 1e30])
@pytest.mark.parametrize("n", [9, 10])
def test_a_minority_comes_out_no_longer_than_an_honest_row(n, size):
    for seed in range(5):
        u = with_hostile(honest(seed, n, 6).float(), size, 4, seed)
        clipped = median_norm_clipping(u)
        assert float(clipped.norm(dim=1).max()) <= float(u[4:].norm(dim=1).max()) * (1 + 1e-6)
        assert displacement(mean(clipped), u[4:]) <= 2.0
    assert displacement(mean(u), u[4:]) > 2.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_count_as_the_longest_and_touch_no_other(bad):
    u = honest(0, 9, 6)
    far = u.clone()
    u[[2, 7], 3], far[[2, 7]] = bad, 1e30
    clipped = median_norm_clipping(u)
    sound = [i for i in range(9) if i not in (2, 7)]
    assert not bool(clipped[[2, 7]].isfinite().all(dim=1).any())
    assert torch.equal(clipped[sound], median_norm_clipping(far)[sound])
    assert median_norm_clipping(torch.full((4, 2), bad)).shape == (4, 2)


def test_zero_rows_stay_zero():
    assert torch.equal(median_norm_clipping(torch.zeros(3, 4)), torch.zeros(3, 4))
