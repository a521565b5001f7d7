"""Which numbers are weights, and how floats of any type become numbers that numpy can compute with, and come back.

numpy has no bfloat16. What ``np.save`` makes of one (from ml_dtypes or torch) are raw 2-byte values of dtype ``|V2``.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "can_stand_for",
    "cast",
    "floats_of",
    "in_dtype",
    "is_bfloat16",
    "is_finite",
    "is_number",
    "is_weight",
    "mean",
    "middle",
    "num_floats",
    "real",
    "same_kind",
    "widened",
]


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this dtype hold bfloat16 numbers: as raw bytes, or as ml_dtypes has them."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None


def is_weight(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this dtype hold weights: floating or complex numbers."""
    return dtype.kind in "fc" or is_bfloat16(dtype)


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this dtype can be part of a model: weights, or whole numbers and truth values as state."""
    return dtype.kind in "iub" or is_weight(dtype)


def same_kind(dtype: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Whether numbers of one dtype can stand for those of another: any floating type for any other."""
    floating = [d.kind == "f" or is_bfloat16(d) for d in (dtype, expected)]
    return all(floating) if any(floating) else dtype.kind == expected.kind


def can_stand_for(dtype: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Whether all that computes with ``expected`` can compute with arrays of ``dtype`` in its place, and as exactly.

    Not with the raw bytes of a bfloat16, and not with narrower numbers, whose sums are rounded to what they can hold.
    """
    return dtype == expected or (not is_bfloat16(dtype) and np.can_cast(expected, dtype))


def num_floats(array: NDArray[Any]) -> int:
    """Return how many real numbers an array holds."""
    return array.size * (2 if array.dtype.kind == "c" else 1)


def floats_of(array: NDArray[Any]) -> NDArray[Any]:
    """Return the real numbers of an array of weights, flat; a view where that is possible."""
    if array.dtype.kind == "c":
        real = np.dtype(f"{array.dtype.str[0]}f{array.dtype.itemsize // 2}")
        return np.ascontiguousarray(array).reshape(-1).view(real)
    if is_bfloat16(array.dtype):
        upper = np.ascontiguousarray(array).reshape(-1).view(np.uint16).astype(np.uint32)
        return (upper << 16).view(np.float32)
    return array.reshape(-1)


def in_dtype(floats: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of weights of this shape and dtype from its real numbers; bfloat16 is rounded to nearest even."""
    if dtype.kind == "c":
        pairs = floats.astype(np.dtype(f"f{dtype.itemsize // 2}"))
        return pairs.view(np.dtype(f"c{dtype.itemsize}")).reshape(shape).astype(dtype, copy=False)
    if is_bfloat16(dtype):
        bits = np.ascontiguousarray(floats, np.float32).reshape(-1).view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        rounded[np.isnan(bits.view(np.float32))] = 0x7FC0  # the sum above carries some NaNs over into -0
        return rounded.view(dtype).reshape(shape)
    converted: NDArray[Any] = floats.reshape(shape).astype(dtype, copy=False)
    return converted


def cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in another dtype; weights stay weights of the same kind, real or complex."""
    if array.dtype == dtype:
        return array
    return in_dtype(floats_of(array), array.shape, dtype) if is_weight(dtype) else array.astype(dtype)


def widened(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return arrays with those of bfloat16 as float32, with which numpy can compute; the others as they are."""
    return [floats_of(a).reshape(a.shape) if is_bfloat16(a.dtype) else a for a in arrays]


def real(value: Any) -> float | None:
    """Return a real number as a float, infinity where it is too large for one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def is_finite(array: NDArray[Any]) -> bool:
    """Whether an array holds neither NaN nor infinity."""
    if not is_weight(array.dtype):
        return True
    floats = floats_of(array)
    # A sum is finite only if every term is; the slow exact test is needed for sums that overflow.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(floats.sum())) or bool(np.isfinite(floats).all())


def middle(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the element-wise median of arrays of one dtype, in it: no minority can move it out of the others' range.

    Of an even number of whole numbers it is the lower of the two in the middle, of floats their mean.
    """
    stacked = np.stack(arrays)
    if not is_weight(stacked.dtype):
        lower: NDArray[Any] = np.sort(stacked, axis=0, kind="stable")[(len(arrays) - 1) // 2]
        return lower
    shape, dtype = stacked.shape[1:], stacked.dtype
    floats = np.stack([floats_of(array).astype(np.float64) for array in arrays])
    return in_dtype(np.median(floats, axis=0), shape, dtype)


def mean(arrays: list[NDArray[Any]], weights: list[float]) -> NDArray[Any]:
    """Return the weighted mean of arrays of weights, in their dtype."""
    shape, dtype = arrays[0].shape, arrays[0].dtype
    shares = np.array(weights) / math.fsum(weights)
    floats = sum(share * floats_of(array).astype(np.float64) for share, array in zip(shares, arrays, strict=True))
    return in_dtype(np.asarray(floats), shape, dtype)
