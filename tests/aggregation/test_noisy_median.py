import math

import numpy as np
import pytest
import torch

from flsec.aggregation import median, noisy_upload
from flsec.errors import ConfigError


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=4), np.array(7), np.array(0.5, np.float16)]


def test_every_float_is_perturbed_and_nothing_else():
    sent = arrays()
    uploaded = noisy_upload(sent, 0.3, random())
    for before, after, original in zip(sent, uploaded, arrays(), strict=True):
        assert np.array_equal(before, original)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert (after != before).all() == (before.dtype.kind == "f")
    assert all(np.array_equal(a, b) for a, b in zip(noisy_upload(sent, 0.0, random()), sent, strict=True))


def test_what_is_named_as_state_is_spared():
    sent = arrays()
    uploaded = noisy_upload(sent, 0.3, random(), state={1})
    assert [np.array_equal(a, b) for a, b in zip(sent, uploaded, strict=True)] == [False, True, True, False]


def test_bfloat16_and_complex_weights_are_perturbed_as_well():
    """bfloat16 in numpy are two raw bytes, as ``np.save`` writes it."""
    raw = torch.ones(2000).bfloat16().view(torch.int16).numpy().view("V2")
    uploaded = noisy_upload([raw, np.ones(2000, np.complex64)], 0.5, random())
    assert [array.dtype for array in uploaded] == [raw.dtype, np.complex64]
    half = torch.from_numpy(uploaded[0].view(np.int16)).view(torch.bfloat16).float()
    parts = (half.numpy(), uploaded[1].real, uploaded[1].imag + 1)
    assert all(abs(part.std() - 0.5) < 0.05 and abs(part.mean() - 1) < 0.05 for part in parts)


def test_noise_is_gaussian_of_the_asked_for_deviation():
    size, std = 40_000, 2.5
    noise = noisy_upload([np.ones(size)], std, random())[0] - 1
    assert abs(noise.mean()) < 4 * std / math.sqrt(size)
    assert abs(noise.std() - std) < 4 * std / math.sqrt(2 * size)
    assert abs((np.abs(noise) < std).mean() - 0.6827) < 0.01


def test_what_the_noise_is_for_a_median_of_different_clients_comes_near_their_mean():
    """Nine clients, of whom five hold 0 and four hold 1: the plain median is 0, the mean 4/9."""
    rows = np.repeat([[0.0]] * 5 + [[1.0]] * 4, 4000, axis=1)
    assert (median(torch.from_numpy(rows)) == 0).all()
    generator = random()
    noisy = np.stack([noisy_upload([row], 3.0, generator)[0] for row in rows])
    assert abs(float(median(torch.from_numpy(noisy)).mean()) - 4 / 9) < 0.1


@pytest.mark.parametrize("std", [-0.1, math.inf, math.nan])
def test_a_bad_deviation_is_named(std):
    with pytest.raises(ConfigError, match="std"):
        noisy_upload(arrays(), std, random())
