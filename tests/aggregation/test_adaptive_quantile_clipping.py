import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import next_quantile_estimate


@given(
    estimate=st.floats(1e-6, 1e6),
    quantile=st.floats(0.01, 0.99),
    rate=st.floats(1e-3, 3.0),
    values=st.lists(st.floats(0, 1e7), min_size=1, max_size=12),
)
@settings(max_examples=50, deadline=None)
def test_is_the_papers_step(estimate, quantile, rate, values):
    below = sum(value <= estimate for value in values) / len(values)
    expected = estimate * math.exp(-rate * (below - quantile))
    rows = torch.tensor(values, dtype=torch.float64)
    assert next_quantile_estimate(estimate, rows, quantile, rate) == pytest.approx(expected)
    assert next_quantile_estimate(estimate, rows.flip(0), quantile, rate) == pytest.approx(expected)
    assert next_quantile_estimate(8 * estimate, 8 * rows, quantile, rate) == pytest.approx(8 * expected)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("start", [1e-3, 1.0, 1e4])
def test_finds_the_quantile_from_any_start(quantile, start):
    gen, estimate, late = torch.Generator().manual_seed(0), start, []
    for round in range(600):
        values = torch.randn(50, generator=gen, dtype=torch.float64).exp()
        estimate = next_quantile_estimate(estimate, values, quantile, 0.2)
        if round >= 400:
            late.append(math.log(estimate))
    expected = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(quantile)).item()
    assert np.mean(late) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("hostile", [0.0, 1.0001, 1e30, torch.inf, torch.nan])
def test_hostile_values_move_it_by_a_bounded_step_however_large(hostile):
    values = torch.linspace(0.5, 1.5, 20, dtype=torch.float64)
    honest = next_quantile_estimate(1.0, values, 0.8, 0.2)
    values[[3, 17]] = hostile
    moved = next_quantile_estimate(1.0, values, 0.8, 0.2)
    assert abs(math.log(moved / honest)) <= 0.2 * 2 / 20 + 1e-12
    assert math.exp(-0.2 * 0.2) <= moved <= math.exp(0.2 * 0.8)


def test_never_reaches_zero():
    estimate = 1e-29
    for _ in range(1000):
        estimate = next_quantile_estimate(estimate, torch.zeros(3), 0.2, 1.0)
    assert estimate == 1e-30
    assert next_quantile_estimate(estimate, torch.ones(3), 0.2, 1.0) > estimate


@pytest.mark.parametrize(
    ("estimate", "quantile", "rate", "count"),
    [
        (0.0, 0.5, 1.0, 3),
        (math.inf, 0.5, 1.0, 3),
        (1.0, 0.0, 1.0, 3),
        (1.0, 1.0, 1.0, 3),
        (1.0, 0.5, 0.0, 3),
        (1, 0.5, 1, 0),
    ],
)
def test_settings_out_of_range(estimate, quantile, rate, count):
    with pytest.raises(ConfigError, match="next_quantile_estimate needs 0 < estimate < inf"):
        next_quantile_estimate(estimate, torch.ones(count), quantile, rate)
