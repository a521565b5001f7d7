import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import worker_momentum
from tests.aggregation.brute_force import honest

seeds = st.integers(0, 10**6)


@given(seed=seeds, n=st.integers(1, 9), d=st.integers(1, 30), beta=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_is_the_running_mean_on_random_shapes(seed, n, d, beta):
    u, m = honest(seed, n, d), honest(seed + 1, n, d)
    expected = torch.tensor(
        [
            [beta * a + (1 - beta) * b for a, b in zip(x, y, strict=True)]
            for x, y in zip(m.tolist(), u.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(worker_momentum(u, m, beta), expected)
    torch.testing.assert_close(worker_momentum(u.float(), m.float(), beta).double(), expected, rtol=1e-6, atol=1e-6)


@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(-1e3, 1e3))
@settings(max_examples=20, deadline=None)
def test_follows_order_shift_scale_and_rotation(seed, shift, scale):
    u, m = honest(seed, 7, 6), honest(seed + 1, 7, 6)
    turn = torch.linalg.qr(honest(seed + 2, 6, 6)).Q
    expected = worker_momentum(u, m, 0.8)
    torch.testing.assert_close(worker_momentum(u.flip(0), m.flip(0), 0.8), expected.flip(0))
    torch.testing.assert_close(worker_momentum(scale * u + shift, scale * m + shift, 0.8), scale * expected + shift)
    torch.testing.assert_close(worker_momentum(u @ turn, m @ turn, 0.8), expected @ turn)


def test_the_largest_numbers_stay_finite_and_others_stay_out_of_it():
    largest = torch.finfo(torch.float32).max
    u, m = torch.full((3, 2), largest), torch.full((3, 2), -largest)
    for beta in (0.1, 0.5, 0.9):
        assert worker_momentum(u, m, beta).isfinite().all()
        assert worker_momentum(u, u, beta).isfinite().all()
    u[1] = torch.nan
    assert worker_momentum(u, m, 0.5)[[0, 2]].isfinite().all()


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_beta_out_of_range(beta):
    with pytest.raises(ConfigError, match=f"worker_momentum needs 0 <= beta <= 1; got beta={beta}"):
        worker_momentum(torch.zeros(3, 2), torch.zeros(3, 2), beta)


@pytest.mark.parametrize("momenta", [torch.zeros(2, 2), torch.zeros(3), None])
def test_momenta_have_the_shape_of_the_updates(momenta):
    with pytest.raises(ConfigError, match=r"worker_momentum needs momenta of shape \(3, 2\), as the updates; got"):
        worker_momentum(torch.zeros(3, 2), momenta)
