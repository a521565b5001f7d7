"""Work on parts of the columns, one thread a part."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

__all__ = ["each_block", "in_threads"]

R = TypeVar("R")

_ELEMENTS_PER_THREAD = 1 << 22  # less than this is done before a second thread has got going
_FEW, _MANY = 2**15, 2**25  # elements of a block: on so few torch stays in the thread that calls it; to fill a GPU
_ONE_AT_A_TIME = threading.Lock()  # the number of BLAS threads is the whole process's


def in_threads(work: Callable[[int, int], R], n: int, d: int) -> list[R]:
    """Return ``work(start, stop)`` for parts of the d columns, in as many threads as torch may use.

    ``work`` must spend its time in numpy, in compiled code or in torch on few elements, which let go of Python's lock;
    on more, torch would start threads of its own in each of ours. BLAS keeps to one thread meanwhile: it divides a
    product of a hundred rows badly.

    Args:
        work: called with column numbers, 0 <= start < stop <= d (or 0, 0 where there are no columns).
        n: rows.
        d: columns.
    """
    parts = max(1, min(torch.get_num_threads(), d, n * d // _ELEMENTS_PER_THREAD))
    with _ONE_AT_A_TIME, _controller().limit(limits=1, user_api="blas"):
        if parts == 1:
            return [work(0, d)]
        edges = [d * part // parts for part in range(parts + 1)]
        with ThreadPoolExecutor(parts) as pool:
            return list(pool.map(work, edges[:-1], edges[1:]))


def each_block(work: Callable[[slice], Tensor | float], n: int, d: int, device: torch.device) -> Any:
    """Return the sum of ``work(columns)`` over blocks of the d columns, for rules that torch computes on a device.

    On a CPU in our threads: those that torch starts for large blocks wait for each other at every operation, and where
    other processes keep the cores busy, a tenth of a second becomes several.

    Args:
        work: called with consecutive slices, and without gradients; it starts no threads itself.
        n: rows.
        d: columns.
        device: where ``work`` computes.
    """
    width = max(1, (_FEW if device.type == "cpu" else _MANY) // n)

    def part(start: int, stop: int) -> Tensor | float:
        with torch.no_grad():
            # one block at least, also of no columns
            return sum(work(slice(left, min(left + width, stop))) for left in range(start, max(stop, 1), width))

    return part(0, d) if device.type != "cpu" else sum(in_threads(part, n, d))


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()  # looks through the process's libraries, which takes milliseconds
