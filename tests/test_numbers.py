"""Numbers of all the types that a model may have; bfloat16 as raw bytes against torch's own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from flsec._numbers import (
    cast,
    floats_of,
    in_dtype,
    is_bfloat16,
    is_finite,
    is_number,
    is_weight,
    mean,
    middle,
    num_floats,
    real,
    same_kind,
    widened,
)

RAW = np.dtype("V2")
FLOATS = [np.float16, np.float32, np.float64, np.complex64, np.complex128, RAW]


def raw(values):
    """bfloat16 of float32, by torch."""
    x = np.asarray(values, np.float32)
    return torch.from_numpy(x.copy()).bfloat16().view(torch.int16).numpy().view(RAW)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (40, 3)])
def test_conversion_both_ways_is_torchs(shape):
    rng = np.random.default_rng(0)
    x = np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-40, 38, size=shape), np.float32)
    ours = in_dtype(x, shape, RAW)
    assert (ours.shape, ours.dtype) == (shape, RAW)
    assert ours.tobytes() == raw(x).tobytes()
    (wide,) = widened([ours])
    assert (wide.shape, wide.dtype) == (shape, np.float32)
    assert np.array_equal(wide, torch.from_numpy(x.copy()).bfloat16().float().numpy())


def test_ties_infinities_and_every_nan():
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf, np.nan, -0.0, 3.4e38, *nans], np.float32)
    theirs = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(floats_of(in_dtype(x, x.shape, RAW)), theirs)


def test_which_types_are_bfloat16():
    assert is_bfloat16(RAW)
    other = (np.float16, np.uint16, np.dtype("V4"), np.dtype([("a", "V2")]), np.dtype("S2"))
    assert not any(is_bfloat16(np.dtype(dtype)) for dtype in other)


def test_which_types_are_weights_and_which_numbers():
    assert all(is_weight(np.dtype(dtype)) and is_number(np.dtype(dtype)) for dtype in FLOATS)
    state = [np.dtype(dtype) for dtype in (np.int64, np.uint8, np.bool_)]
    assert all(is_number(dtype) and not is_weight(dtype) for dtype in state)
    assert not any(is_number(np.dtype(dtype)) for dtype in (object, "U3", "S2", "V4", "M8[s]"))


def test_only_what_needs_it_is_widened():
    arrays = [np.ones(2, np.float32), raw([1.0, 2.0]), np.arange(3)]
    wide = widened(arrays)
    assert wide[0] is arrays[0]
    assert wide[2] is arrays[2]
    assert wide[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_floats_go_out_and_come_back_to_the_bit(dtype, data):
    dtype = np.dtype(dtype)
    shape = data.draw(st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0))
    bits = data.draw(st_numpy.arrays(np.uint8, (*shape, dtype.itemsize)))
    array = np.ascontiguousarray(bits).view(dtype).reshape(shape)
    floats = floats_of(array)
    assert floats.shape == (num_floats(array),)
    back = in_dtype(floats, array.shape, dtype)
    assert (back.shape, back.dtype) == (array.shape, dtype)
    if is_finite(array):  # NaNs have payloads, which may be lost
        assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_finite_is_told_from_the_rest(dtype, value):
    numbers = np.full(4, 60000.0 if np.dtype(dtype) == np.float16 else 3e38)  # whose sum overflows in the small types
    assert is_finite(in_dtype(np.repeat(numbers, 1 + (np.dtype(dtype).kind == "c")), (4,), np.dtype(dtype)))
    floats = np.repeat([0.0, value], 1 + (np.dtype(dtype).kind == "c"))
    assert not is_finite(in_dtype(floats, (2,), np.dtype(dtype)))


def test_any_float_stands_for_any_other_and_nothing_else_does():
    def stands(a, b):
        return same_kind(np.dtype(a), np.dtype(b))

    assert stands(np.float16, np.float64)
    assert stands(RAW, np.float32)
    assert stands(np.int32, np.int64)
    assert stands(np.complex64, np.complex128)
    assert not stands(np.int32, np.float32)
    assert not stands(np.float32, np.complex64)
    assert not stands("V2", np.int16)


@pytest.mark.parametrize("dtype", FLOATS)
def test_mean_and_middle_are_in_the_dtype(dtype):
    dtype = np.dtype(dtype)
    parts = 1 + (dtype.kind == "c")
    arrays = [in_dtype(np.full(3 * parts, value), (3,), dtype) for value in (1.0, 2.0, 9.0)]
    for result, wanted in ((middle(arrays), 2.0), (mean(arrays, [2.0, 1.0, 1.0]), 3.25)):
        assert (result.shape, result.dtype) == ((3,), dtype)
        assert floats_of(result).tolist() == [wanted] * 3 * parts


def test_the_middle_of_whole_numbers_is_one_of_them():
    assert middle([np.array(value) for value in (7, 3, 9, 4)]) == 4
    assert middle([np.array(value) for value in (True, False, True)]).dtype == np.bool_


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(3, 3.0), (np.float32(0.5), 0.5), (10**400, math.inf), (True, None), ("3", None), (1j, None), (None, None)],
)
def test_what_is_a_real_number(value, wanted):
    assert real(value) == wanted


@pytest.mark.parametrize(("source", "target"), [(RAW, np.float32), (np.float64, RAW), (np.complex128, np.complex64)])
def test_a_cast_keeps_numbers_and_kind(source, target):
    parts = 1 + (np.dtype(source).kind == "c")
    array = in_dtype(np.arange(3.0 * parts), (3,), np.dtype(source))
    changed = cast(array, np.dtype(target))
    assert changed.dtype == np.dtype(target)
    assert floats_of(changed).tolist() == list(range(3 * parts))
    assert cast(changed, changed.dtype) is changed
    assert cast(np.array([3]), np.dtype(np.int8)).dtype == np.int8
