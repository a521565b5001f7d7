"""Column blocks that stay in cache, and the mean of a range of ranks in every column.

The median and the trimmed mean are both "the mean of the sorted values low, ..., high - 1 of each column"
(``mean_of_ranks``). Three ways to compute it, chosen by size; all of them give the same order statistics:

- a selection network over the rows in torch: no sorting of columns, one elementwise minimum or maximum of two
  rows at a time. Few rows, any device;
- the same network compiled by numba, on strips of columns that stay in the first-level cache, sixteen rows at a
  time in registers to begin with. Large cohorts on a CPU, when numba works here;
- sorting transposed blocks: many rows.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flsec.aggregation._device import device_of_blocks, kept_on
from flsec.aggregation._threads import in_threads
from flsec.errors import ConfigError

__all__ = ["check_matrix", "column_blocks", "mean_of_ranks"]

# Where one way overtakes the next, as measured on a CPU with AVX-512.
_MAX_ROWS_TORCH = 48  # more rows: sorting beats a torch call per comparator
_MAX_ROWS_KERNEL = 256  # more rows: sorting beats the compiled network, whose size grows with n log(n)^2
_MIN_ELEMENTS_KERNEL = 1 << 22  # less work than this is not worth importing numba
_SORTED_ELEMENTS = 1 << 18  # smaller blocks cost more in handing Python's lock from thread to thread
_BLOCK_ELSEWHERE = 1 << 26  # elements that are sent to another device at once
_STRIP = 64  # columns that the compiled network handles at once: 100 float32 rows fill 26 KiB of L1's 32 or 48
_ROW = tuple(np.uintp(row * _STRIP) for row in range(16))  # where sixteen rows of a strip begin
_AHEAD = 4  # strips between what is worked on and what is asked for: memory answers in the time of about two
_LINE = 64  # bytes that memory sends at once


def check_matrix(updates: object, *, rule: str) -> tuple[int, int]:
    """Return (n, d) of ``updates``.

    Args:
        updates: what a rule was given.
        rule: how the message calls the rule.

    Raises:
        ConfigError: it is no (n, d) float32 or float64 tensor with at least one row.
    """
    if not isinstance(updates, Tensor):
        raise ConfigError(
            f"{rule} needs updates as one (n, d) tensor; got {type(updates).__name__}. "
            "Stack the clients' flattened updates with torch.stack."
        )
    if updates.dim() != 2 or updates.shape[0] < 1:
        raise ConfigError(
            f"{rule} needs updates of shape (n, d), one row per client and n >= 1; got shape "
            f"{tuple(updates.shape)}. Stack the clients' flattened updates with torch.stack."
        )
    if updates.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"{rule} needs float32 or float64 updates; got {updates.dtype}. Convert them with updates.float()."
        )
    return updates.shape[0], updates.shape[1]


def column_blocks(updates: Tensor) -> Iterator[slice]:
    """Yield consecutive slices that cover the columns of ``updates``, each small enough to work on in cache.

    A block has some 2^20 elements on a CPU (4 MiB in float32) and 2^26 elsewhere, where what costs is the launch.
    """
    n, d = updates.shape
    width = max(1, (1 << 20 if updates.device.type == "cpu" else 1 << 26) // n)
    return _slices(0, d, width)


def mean_of_ranks(updates: Tensor, low: int, high: int) -> Tensor:
    """Return, for every column, the mean of its sorted values at the positions low, ..., high - 1.

    Args:
        updates: (n, d), float32 or float64, any strides. Not modified.
        low: first position, 0 <= low < high.
        high: one past the last position, high <= n.

    Returns:
        (d,): dtype and device of ``updates``; the sum is taken in float64.

    NaN ranks with +inf, above every number. So a column's mean is finite while at most ``low`` of its entries are
    -inf and at most ``n - high`` are NaN or +inf; past that it is infinite or NaN.

    O(n log(n)^2 d) time, O(block) extra memory.
    """
    out = updates.new_empty(updates.shape[1])
    device = device_of_blocks(updates)
    if device is None or updates.device.type != "cpu":
        _means_here(updates.detach(), low, high, out)
        return out
    updates = kept_on(updates, device)
    width = max(1, _BLOCK_ELSEWHERE // updates.shape[0])
    for columns in _slices(0, len(out), width):
        block = updates[:, columns].detach().to(device)
        means = block.new_empty(block.shape[1])
        _means_here(block, low, high, means)
        out[columns] = means.to(out.device)
    return out


def _means_here(updates: Tensor, low: int, high: int, out: Tensor) -> None:
    n, d = updates.shape
    on_cpu = updates.device.type == "cpu"
    if on_cpu and n <= _MAX_ROWS_KERNEL and n * d >= _MIN_ELEMENTS_KERNEL and (kernel := _compiled_network()):
        _kernel_means(kernel, updates, low, high, out)
    elif n <= _MAX_ROWS_TORCH:
        _network_means(updates, low, high, out)
    elif on_cpu:
        _numpy_sorted_means(updates, low, high, out)
    else:
        _sorted_means(updates, low, high, out)


def _slices(start: int, stop: int, width: int) -> Iterator[slice]:
    return (slice(left, min(left + width, stop)) for left in range(start, stop, width))


# The network: comparators (i, j), i < j, put the smaller of two rows first.


def _sorting_network(n: int, run: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the comparators of Batcher's odd-even merge sort for n rows (Knuth, TAOCP 3, 5.2.2, Algorithm M).

    Args:
        n: number of rows.
        run: length of the sorted runs that are there already, a power of 2.
    """
    while run < n:
        step = run
        while step >= 1:
            for left in range(step % run, n - step, 2 * step):
                for i in range(left, min(left + step, n - step)):
                    if i // (2 * run) == (i + step) // (2 * run):  # both in the same pair of runs
                        yield i, i + step
            step //= 2
        run *= 2


@functools.lru_cache(maxsize=64)
def _selection_network(n: int, low: int, high: int, run: int = 1) -> tuple[tuple[int, int, bool, bool], ...]:
    """Return the comparators that bring the ranks low, ..., high - 1 into the rows of these numbers, in any order.

    They start from rows in which runs of ``run`` are sorted.

    Each is (i, j, smaller wanted, larger wanted). Seen from the end, a comparator is idle while both its rows are
    only thrown away, or both only added up: then their order does not matter.
    """
    thrown, added, compared = 0, 1, 2
    use = [added if low <= rank < high else thrown for rank in range(n)]
    kept = []
    for i, j in reversed(list(_sorting_network(n, run))):
        if use[i] == use[j] != compared:
            continue
        kept.append((i, j, use[i] != thrown, use[j] != thrown))
        use[i] = use[j] = compared
    return tuple(reversed(kept))


def _network_means(updates: Tensor, low: int, high: int, out: Tensor) -> None:
    n, d = updates.shape
    network = _selection_network(n, low, high)
    # On so few elements torch stays in one thread. Waking others for every call costs several times the work itself
    # where simulated clients keep the cores busy.
    width = 1 << 15 if updates.device.type == "cpu" else max(1, (1 << 26) // n)
    buffer = updates.new_empty(n + 1, min(width, d))
    for columns in _slices(0, d, width):
        *rows, spare = buffer[:, : columns.stop - columns.start]
        for row, update in zip(rows, updates[:, columns], strict=True):
            # torch.minimum would hand a NaN on to both rows.
            torch.nan_to_num(update, torch.inf, torch.inf, -torch.inf, out=row)
        for i, j, smaller_wanted, larger_wanted in network:
            smaller, larger = rows[i], rows[j]
            if not larger_wanted:
                torch.minimum(smaller, larger, out=smaller)
            elif not smaller_wanted:
                torch.maximum(smaller, larger, out=larger)
            else:
                torch.minimum(smaller, larger, out=spare)
                torch.maximum(smaller, larger, out=larger)
                rows[i], spare = spare, smaller
        total = rows[low].double()
        for row in rows[low + 1 : high]:
            total += row
        out[columns] = total / (high - low)


def _prefetch(address: Any) -> None:
    """Ask memory for a line; does nothing unless compiled."""


def _network_strips(
    values: Any, start: int, stop: int, network: Any, low: int, high: int, flat: Any, out: Any
) -> None:  # numpy arrays; this function is compiled by numba and keeps to what numba knows
    n = values.shape[0]
    rows = flat.reshape(-1, _STRIP)
    begin, pitch, size = np.intp(values.ctypes.data), np.intp(values.strides[0]), np.intp(values.itemsize)
    total = np.empty(_STRIP, np.float64)
    for left in range(start, stop, _STRIP):
        width = min(_STRIP, stop - left)
        for r in range(n):
            for line in range(_STRIP * size // _LINE):  # processors do not foresee a jump from row to row
                _prefetch(begin + r * pitch + (left + _AHEAD * _STRIP) * size + line * _LINE)
            source, row = values[r, left : left + width], rows[r]
            for c in range(width):
                value = source[c]
                row[c] = value if value == value else np.inf
        for sixteen in range(0, len(flat), 16 * _STRIP):
            for column in range(sixteen, sixteen + _STRIP):
                # In registers, which saves most of the loads and stores. Unsigned, or the compiler would look for
                # negative indices, and not vectorise.
                i = np.uintp(column)
                v0, v1, v2, v3 = flat[i], flat[i + _ROW[1]], flat[i + _ROW[2]], flat[i + _ROW[3]]
                v4, v5, v6, v7 = flat[i + _ROW[4]], flat[i + _ROW[5]], flat[i + _ROW[6]], flat[i + _ROW[7]]
                v8, v9, v10, v11 = flat[i + _ROW[8]], flat[i + _ROW[9]], flat[i + _ROW[10]], flat[i + _ROW[11]]
                v12, v13, v14, v15 = flat[i + _ROW[12]], flat[i + _ROW[13]], flat[i + _ROW[14]], flat[i + _ROW[15]]
                v0, v1, v2, v3 = min(v0, v1), max(v0, v1), min(v2, v3), max(v2, v3)
                v4, v5, v6, v7 = min(v4, v5), max(v4, v5), min(v6, v7), max(v6, v7)
                v8, v9, v10, v11 = min(v8, v9), max(v8, v9), min(v10, v11), max(v10, v11)
                v12, v13, v14, v15 = min(v12, v13), max(v12, v13), min(v14, v15), max(v14, v15)
                v0, v2, v1, v3 = min(v0, v2), max(v0, v2), min(v1, v3), max(v1, v3)
                v4, v6, v5, v7 = min(v4, v6), max(v4, v6), min(v5, v7), max(v5, v7)
                v8, v10, v9, v11 = min(v8, v10), max(v8, v10), min(v9, v11), max(v9, v11)
                v12, v14, v13, v15 = min(v12, v14), max(v12, v14), min(v13, v15), max(v13, v15)
                v1, v2, v5, v6 = min(v1, v2), max(v1, v2), min(v5, v6), max(v5, v6)
                v9, v10, v13, v14 = min(v9, v10), max(v9, v10), min(v13, v14), max(v13, v14)
                v0, v4, v1, v5 = min(v0, v4), max(v0, v4), min(v1, v5), max(v1, v5)
                v2, v6, v3, v7 = min(v2, v6), max(v2, v6), min(v3, v7), max(v3, v7)
                v8, v12, v9, v13 = min(v8, v12), max(v8, v12), min(v9, v13), max(v9, v13)
                v10, v14, v11, v15 = min(v10, v14), max(v10, v14), min(v11, v15), max(v11, v15)
                v2, v4, v3, v5 = min(v2, v4), max(v2, v4), min(v3, v5), max(v3, v5)
                v10, v12, v11, v13 = min(v10, v12), max(v10, v12), min(v11, v13), max(v11, v13)
                v1, v2, v3, v4 = min(v1, v2), max(v1, v2), min(v3, v4), max(v3, v4)
                v5, v6, v9, v10 = min(v5, v6), max(v5, v6), min(v9, v10), max(v9, v10)
                v11, v12, v13, v14 = min(v11, v12), max(v11, v12), min(v13, v14), max(v13, v14)
                v0, v8, v1, v9 = min(v0, v8), max(v0, v8), min(v1, v9), max(v1, v9)
                v2, v10, v3, v11 = min(v2, v10), max(v2, v10), min(v3, v11), max(v3, v11)
                v4, v12, v5, v13 = min(v4, v12), max(v4, v12), min(v5, v13), max(v5, v13)
                v6, v14, v7, v15 = min(v6, v14), max(v6, v14), min(v7, v15), max(v7, v15)
                v4, v8, v5, v9 = min(v4, v8), max(v4, v8), min(v5, v9), max(v5, v9)
                v6, v10, v7, v11 = min(v6, v10), max(v6, v10), min(v7, v11), max(v7, v11)
                v2, v4, v3, v5 = min(v2, v4), max(v2, v4), min(v3, v5), max(v3, v5)
                v6, v8, v7, v9 = min(v6, v8), max(v6, v8), min(v7, v9), max(v7, v9)
                v10, v12, v11, v13 = min(v10, v12), max(v10, v12), min(v11, v13), max(v11, v13)
                v1, v2, v3, v4 = min(v1, v2), max(v1, v2), min(v3, v4), max(v3, v4)
                v5, v6, v7, v8 = min(v5, v6), max(v5, v6), min(v7, v8), max(v7, v8)
                v9, v10, v11, v12 = min(v9, v10), max(v9, v10), min(v11, v12), max(v11, v12)
                v13, v14 = min(v13, v14), max(v13, v14)
                flat[i], flat[i + _ROW[1]], flat[i + _ROW[2]], flat[i + _ROW[3]] = v0, v1, v2, v3
                flat[i + _ROW[4]], flat[i + _ROW[5]], flat[i + _ROW[6]], flat[i + _ROW[7]] = v4, v5, v6, v7
                flat[i + _ROW[8]], flat[i + _ROW[9]], flat[i + _ROW[10]], flat[i + _ROW[11]] = v8, v9, v10, v11
                flat[i + _ROW[12]], flat[i + _ROW[13]], flat[i + _ROW[14]], flat[i + _ROW[15]] = v12, v13, v14, v15
        for k in range(len(network)):
            first, second = network[k, 0] * _ROW[1], network[k, 1] * _ROW[1]
            for column in range(_STRIP):
                at = np.uintp(column)
                x, y = flat[first + at], flat[second + at]
                flat[first + at] = x if x < y else y
                flat[second + at] = y if x < y else x
        total[:] = 0
        for r in range(low, high):
            row = rows[r]
            for c in range(_STRIP):
                total[c] += row[c]
        for c in range(width):
            out[left + c] = total[c] / (high - low)


@functools.cache
def _compiled_network() -> Callable[..., None] | None:
    """Return ``_network_strips`` compiled to run without Python's lock, or None when numba cannot be used."""
    try:
        import numba

        _compile_prefetch()
    except ImportError:  # not installed, or not for this version of numpy
        return None
    kernel: Callable[..., None]
    try:
        kernel = numba.njit(nogil=True, cache=True)(_network_strips)
    except RuntimeError:  # no writable place for the cache: compile anew in every process
        kernel = numba.njit(nogil=True)(_network_strips)
    return kernel


def _compile_prefetch() -> None:
    """Let ``_prefetch`` be one instruction where numba compiles it."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic, overload

    def of_an_address(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            takes = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], takes)
            for_reading, into_second_level, of_data = number(0), number(2), number(1)
            place = builder.inttoptr(arguments[0], pointer)
            builder.call(prefetch, [place, for_reading, into_second_level, of_data])
            return context.get_dummy_value()

        return types.void(types.intp), generate

    instruction: Any = intrinsic(of_an_address)
    overload(_prefetch)(lambda address: lambda address: instruction(address))


def _kernel_means(kernel: Callable[..., None], updates: Tensor, low: int, high: int, out: Tensor) -> None:
    n, d = updates.shape
    comparators = [(i, j) for i, j, _, _ in _selection_network(n, low, high, run=16)]
    network = np.array(comparators, dtype=np.uintp).reshape(-1, 2)
    values, means = updates.numpy(), out.numpy()

    def work(start: int, stop: int) -> None:
        # Whole sixteens of rows: +inf sorts to their ends. From torch, whose memory begins where a line of the cache
        # does: across two lines the kernel takes a third longer.
        flat = torch.full(((n + 15) // 16 * 16 * _STRIP,), torch.inf, dtype=updates.dtype).numpy()
        if values.flags.c_contiguous:
            kernel(values, start, stop, network, low, high, flat, means)
            return
        for columns in _slices(start, stop, 16 * _STRIP):  # the kernel is compiled for contiguous rows only
            block = np.ascontiguousarray(values[:, columns])
            kernel(block, 0, block.shape[1], network, low, high, flat, means[columns])

    in_threads(work, n, d)


def _sorted_means(updates: Tensor, low: int, high: int, out: Tensor) -> None:
    for columns in column_blocks(updates):
        ranked = updates[:, columns].nan_to_num(torch.inf, torch.inf, -torch.inf).sort(dim=0).values
        out[columns] = ranked[low:high].mean(dim=0, dtype=torch.float64)


def _numpy_sorted_means(updates: Tensor, low: int, high: int, out: Tensor) -> None:
    n, d = updates.shape
    values, means = updates.numpy(), out.numpy()

    def work(start: int, stop: int) -> None:
        width = max(1, _SORTED_ELEMENTS // n)
        buffer = np.empty((min(width, stop - start), n), values.dtype)
        for columns in _slices(start, stop, width):
            ranked = buffer[: columns.stop - columns.start]
            ranked[:] = values[:, columns].T
            ranked.sort(axis=1)  # vectorised in numpy, and much faster than along the strided axis; NaN goes last
            kept = ranked[:, low:high]
            means[columns] = np.einsum("ij->i", kept, dtype=np.float64) / (high - low)

    in_threads(work, n, d)
