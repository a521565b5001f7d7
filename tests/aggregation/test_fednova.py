import math

import numpy as np
import pytest
import torch

from flsec.aggregation import accumulated_steps, normalising_factors
from flsec.errors import ConfigError


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("pull", [0.0, 0.05])
@pytest.mark.parametrize("num_steps", [0, 1, 2, 17])
def test_it_is_the_way_along_a_constant_gradient(num_steps, momentum, pull):
    """SGD with momentum on a gradient of 1 and FedProx's penalty, with the learning rate 0.1."""
    rate, w, velocity = 0.1, 5.0, 0.0
    for _ in range(num_steps):
        velocity = momentum * velocity + 1.0 + pull / rate * (w - 5.0)
        w -= rate * velocity
    assert accumulated_steps(num_steps, momentum, pull) == pytest.approx((5.0 - w) / rate, rel=1e-12, abs=1e-12)


def test_the_papers_formulas():
    tau, rho, alpha = 7, 0.9, 0.03
    assert accumulated_steps(tau) == tau
    by_momentum = sum((1 - rho ** (tau - k)) / (1 - rho) for k in range(tau))
    assert accumulated_steps(tau, momentum=rho) == pytest.approx(by_momentum)
    assert accumulated_steps(tau, pull=alpha) == pytest.approx(sum((1 - alpha) ** k for k in range(tau)))


def test_factors_by_brute_force():
    rng = np.random.default_rng(0)
    steps, weights = rng.uniform(2, 9, 11), rng.uniform(1, 5, 11)
    expected = [sum(w * t for w, t in zip(weights, steps, strict=True)) / weights.sum() / t for t in steps]
    found = normalising_factors(torch.from_numpy(steps), torch.from_numpy(weights))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_equal_steps_change_nothing_at_all():
    weights = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalising_factors(torch.full((9,), 7.0), weights), torch.ones(9, dtype=torch.float64))
    assert torch.equal(normalising_factors(torch.full((3,), torch.nan)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("claim", [1e-300, 1e-9, 1e9, 1e300, math.inf, math.nan, 0.0, -5.0])
def test_a_minority_moves_no_factor_beyond_the_bound(claim):
    honest = torch.tensor([4.0, 5.0, 6.0, 7.0, 8.0], dtype=torch.float64)
    found = normalising_factors(torch.cat([honest, torch.full((4,), claim, dtype=torch.float64)]), max_ratio=3.0)
    assert found.isfinite().all()
    middle_low, middle_high = 4.0, 8.0  # the median of all lies among the honest
    assert (found[:5] * honest <= 3 * middle_high + 1e-9).all()
    assert (found[:5] * honest >= middle_low / 3 - 1e-9).all()
    assert (found <= 9).all()
    assert (found >= 1 / 9).all()


def test_what_is_no_number_of_steps_counts_as_the_median():
    assert torch.equal(
        normalising_factors(torch.tensor([2.0, 4.0, 6.0, torch.nan])), normalising_factors(torch.tensor([2.0, 4, 6, 4]))
    )


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: accumulated_steps(-1), "num_steps"),
        (lambda: accumulated_steps(3, momentum=1.0), "momentum"),
        (lambda: accumulated_steps(3, pull=-0.1), "pull"),
        (lambda: normalising_factors(torch.ones(2, 2)), "shapes"),
        (lambda: normalising_factors(torch.ones(2), torch.ones(3)), "shapes"),
        (lambda: normalising_factors(torch.ones(2), max_ratio=0.5), "max_ratio"),
    ],
)
def test_refuses(call, named):
    with pytest.raises(ConfigError, match=named):
        call()
