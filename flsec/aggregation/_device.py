"""Where rules compute: with the matrix, or block by block on another device."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["computing_on", "device_of_blocks"]

_elsewhere: ContextVar[torch.device | None] = ContextVar("_elsewhere", default=None)


@contextmanager
def computing_on(device: torch.device | None) -> Iterator[None]:
    """Let rules send matrices in main memory to ``device``, one block of columns after the other; None: do not.

    The matrix, of any size, stays where it is, and so do results. On the device are one block and what is (n, n).
    """
    before = _elsewhere.set(device)
    try:
        yield
    finally:
        _elsewhere.reset(before)


def device_of_blocks(updates: Tensor) -> torch.device | None:
    """Return where torch is to compute on blocks of ``updates``; None: here, in the processor's threads."""
    return _elsewhere.get() if updates.device.type == "cpu" else updates.device
