"""bfloat16 in numpy, which has no such type: arrays of two raw bytes a number, or of a type that ml_dtypes adds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_float32", "is_bfloat16", "to_float32", "widened"]


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is bfloat16: that of ml_dtypes, or two nameless bytes, as which ``np.save`` writes it."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None


def to_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return the numbers of a bfloat16 array, exactly."""
    bits = np.asarray(array.view(np.uint16), np.uint32) << np.uint32(16)
    return np.asarray(bits, np.uint32).view(np.float32)


def widened(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return arrays, those of bfloat16 as float32, with which numpy can compute."""
    return [to_float32(array) if is_bfloat16(array.dtype) else array for array in arrays]


def from_float32(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as bfloat16, rounded to the nearest, of two to the one that is even.

    Args:
        values: any floats.
        dtype: a dtype for which ``is_bfloat16`` holds.
    """
    bits = np.ascontiguousarray(values, np.float32).reshape(np.shape(values)).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = (bits >> np.uint32(16)) | np.uint32(0x40)  # adding could make an infinity of one
    return np.asarray(np.where(np.isnan(values), nan, rounded), np.uint16).view(dtype)
