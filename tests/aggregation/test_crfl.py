import math

import numpy as np
import pytest
import torch

from flsec.aggregation import clip_model, crfl, crfl_max_norm
from flsec.errors import ConfigError


def draw(seed, d=40, dtype=torch.float64):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e30])
def test_clips_as_numpy_does(scale, dtype):
    parameters = (scale * draw(0)).to(dtype)
    before = parameters.clone()
    exact = parameters.double().numpy()
    expected = exact * min(1.0, 3.0 / np.linalg.norm(exact))
    for result in (clip_model(parameters, 3.0), crfl(parameters, 3.0, std=0.0)):
        np.testing.assert_allclose(result.double().numpy(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-14)
        assert result.dtype == dtype
        result.zero_()
        assert torch.equal(parameters, before), "the result is the input"


def test_a_model_within_the_bound_is_not_changed_at_all():
    parameters = draw(1)
    norm = float(parameters.norm())
    assert torch.equal(clip_model(parameters, norm * 1.0001), parameters)
    assert torch.equal(clip_model(torch.zeros(3), 1.0), torch.zeros(3))
    assert not torch.equal(clip_model(parameters, norm * 0.9999), parameters)


def test_noise_has_the_asked_for_deviation_and_is_independent_of_the_model():
    size, std = 40_000, 0.5
    noise = crfl(torch.zeros(size, dtype=torch.float64), std=std)
    assert abs(float(noise.mean())) < 4 * std / math.sqrt(size)
    assert abs(float(noise.std()) - std) < 4 * std / math.sqrt(2 * size)
    model = draw(2, size) / 1000
    torch.testing.assert_close(crfl(model, std=std) - model, noise)


def test_noise_depends_on_seed_and_round_and_on_nothing_else():
    zeros = torch.zeros(30)
    first = crfl(zeros, seed=3, round=4)
    torch.manual_seed(99)
    crfl(zeros, seed=3, round=5)
    assert torch.equal(crfl(zeros, seed=3, round=4), first)
    for other in (crfl(zeros, seed=4, round=4), crfl(zeros, seed=3, round=5)):
        assert not torch.equal(other, first)
    torch.testing.assert_close(crfl(zeros.double(), seed=3, round=4).float(), first)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_is_not_finite_is_not_made_to_look_finite(value):
    parameters = draw(3)
    parameters[5] = value
    assert not torch.isfinite(crfl(parameters)).all()


def test_the_bound_grows_up_to_its_maximum():
    assert [crfl_max_norm(t) for t in (1, 50, 1000)] == [15.0] * 3
    mnist = [crfl_max_norm(t, 15.0, initial_norm=2.0, norm_growth=0.1) for t in (1, 10, 129, 130, 131)]
    assert mnist == pytest.approx([2.1, 3.0, 14.9, 15.0, 15.0])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: clip_model(torch.zeros(2, 2)), r"\(2, 2\)"),
        (lambda: clip_model(torch.zeros(2, dtype=torch.int64)), "int64"),
        (lambda: clip_model(torch.zeros(2), 0.0), "max_norm"),
        (lambda: crfl(torch.zeros(2), math.inf), "max_norm"),
        (lambda: crfl(torch.zeros(2), std=-1.0), "std"),
        (lambda: crfl(torch.zeros(2), std=math.nan), "std"),
    ],
)
def test_bad_settings_are_named(call, named):
    with pytest.raises(ConfigError, match=named):
        call()


@pytest.mark.parametrize("setting", [{"round": -1}, {"round": 1, "max_norm": 0.0}, {"round": 1, "norm_growth": -0.1}])
def test_settings_of_the_bound_out_of_range(setting):
    with pytest.raises(ConfigError, match="crfl_max_norm: "):
        crfl_max_norm(**setting)
