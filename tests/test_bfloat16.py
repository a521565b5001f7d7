"""bfloat16 as raw bytes, against torch's own."""

import numpy as np
import pytest
import torch

from flsec._bfloat16 import from_float32, is_bfloat16, to_float32

RAW = np.dtype("V2")


@pytest.mark.parametrize("shape", [(), (0,), (7,), (40, 3)])
def test_conversion_both_ways_is_torchs(shape):
    rng = np.random.default_rng(0)
    x = np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-40, 38, size=shape), np.float32)
    theirs = torch.from_numpy(x.copy()).bfloat16()
    ours = from_float32(x, RAW)
    assert ours.shape == x.shape
    assert ours.dtype == RAW
    assert ours.tobytes() == theirs.view(torch.int16).numpy().tobytes()
    assert np.array_equal(to_float32(ours), theirs.float().numpy())


def test_ties_infinities_and_nan():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf, np.nan, -0.0, 3.4e38], np.float32)
    theirs = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(to_float32(from_float32(x, RAW)), theirs)


def test_which_types_count():
    assert is_bfloat16(RAW)
    other = (np.float16, np.uint16, np.dtype("V4"), np.dtype([("a", "V2")]), np.dtype("S2"))
    assert not any(is_bfloat16(np.dtype(dtype)) for dtype in other)
