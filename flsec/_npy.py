"""Arrays in and out of the ``.npy`` bytes that Flower sends, without copies and without pickle."""

import functools
import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_LARGEST_HEADER = 16_384  # numpy refuses headers over 10,000 bytes


def header(data: bytes) -> bytes:
    """Return the leading bytes of a ``.npy`` buffer that tell its dtype and shape."""
    return bytes(data[: _described(data)[3]])


def read(data: bytes) -> NDArray[Any]:
    """Return a read-only view of the array in ``data``; raise ``ValueError`` if there is none."""
    shape, fortran, dtype, start = _described(data)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    count = math.prod(shape)
    if len(data) - start != count * dtype.itemsize:
        raise ValueError(f"{len(data) - start} bytes for shape {shape} of {dtype}")
    array = np.frombuffer(data, dtype, count, start)
    return array.reshape(shape, order="F" if fortran else "C")


def _described(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order and dtype of the array in ``data``, and where its numbers begin."""
    length = npy.MAGIC_LEN + 2 + int.from_bytes(data[npy.MAGIC_LEN : npy.MAGIC_LEN + 2], "little")
    if bytes(data[: npy.MAGIC_LEN]) == _VERSION_1 and length <= min(len(data), _LARGEST_KNOWN):
        return _parsed(bytes(data[:length]))  # clients send the same few headers again and again
    return _parse(data[:_LARGEST_HEADER])


_VERSION_1 = npy.magic(1, 0)
_LARGEST_KNOWN = 512  # what hostile clients make up is not kept, or not much of it


def _parse(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f".npy version {version}")
    try:
        return (*readers[version](stream), stream.tell())
    except Exception as error:  # the parser of Python expressions behind it gives up in many ways
        raise ValueError(f"no .npy header: {str(error)[:200]}") from None


_parsed = functools.lru_cache(maxsize=1024)(_parse)


def write(array: NDArray[Any]) -> bytes:
    """Return ``array`` as ``.npy`` bytes."""
    contiguous = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes 0-d arrays 1-d
    start = _header_of(contiguous.dtype, contiguous.shape)
    return b"".join((start, contiguous.tobytes() if not contiguous.ndim else contiguous.data))


@functools.lru_cache(maxsize=1024)
def _header_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, described)
    return stream.getvalue()
