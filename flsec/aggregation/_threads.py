"""Work on parts of the columns, one thread a part."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["in_threads"]

R = TypeVar("R")

_ELEMENTS_PER_THREAD = 1 << 22  # less than this is done before a second thread has got going
_ONE_AT_A_TIME = threading.Lock()  # the number of BLAS threads is the whole process's


def in_threads(work: Callable[[int, int], R], n: int, d: int) -> list[R]:
    """Return ``work(start, stop)`` for parts of the d columns, in as many threads as torch may use.

    ``work`` must spend its time in numpy or in compiled code, which let go of Python's lock; torch would start threads
    of its own in each of ours. BLAS keeps to one thread meanwhile: it divides a product of a hundred rows badly.

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


@functools.cache
def _controller() -> Any:
    return ThreadpoolController()  # looks through the process's libraries, which takes milliseconds
