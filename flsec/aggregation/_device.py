"""Where rules compute: with the matrix, or on another device, where it is kept if it fits, or sent block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["computing_device", "computing_on", "device_of_blocks", "kept_on", "where_blocks_are"]

_SHARE_OF_FREE = 0.5  # of a device's free memory that a matrix may take; the rest is for blocks and results

_elsewhere: ContextVar[torch.device | None] = ContextVar("_elsewhere", default=None)
_kept: ContextVar[list[tuple[Tensor, int, Tensor]] | None] = ContextVar("_kept", default=None)


@contextmanager
def computing_on(device: torch.device | None) -> Iterator[None]:
    """Let rules work on matrices in main memory on ``device``; None: do not.

    The matrix itself and the results stay in main memory. On the device are a copy of the last matrix, if it fits, for
    the next pass over it; else one block of columns at a time, so that a matrix may have any size.
    """
    before, kept_before = _elsewhere.set(device), _kept.set([])
    try:
        yield
    finally:
        _elsewhere.reset(before)
        _kept.reset(kept_before)


def computing_device() -> torch.device:
    """Return the device of ``computing_on``, for networks on the server; the CPU where it was not said."""
    return _elsewhere.get() or torch.device("cpu")


def device_of_blocks(updates: Tensor) -> torch.device | None:
    """Return where torch is to compute on blocks of ``updates``; None: here, in the processor's threads."""
    return _elsewhere.get() if updates.device.type == "cpu" else updates.device


def where_blocks_are(updates: Tensor) -> tuple[Tensor, torch.device]:
    """Return what to cut blocks of ``updates`` from, and the device to send them to, for rules that torch computes."""
    device = device_of_blocks(updates) or updates.device
    return kept_on(updates, device), device


def kept_on(updates: Tensor, device: torch.device) -> Tensor:
    """Return the copy of ``updates`` on ``device``, or ``updates`` themselves where they do not fit there."""
    kept = _kept.get()
    if kept is None or updates.device == device:
        return updates
    for matrix, version, copy in kept:
        if matrix is updates and matrix._version == version:
            return copy
    kept.clear()  # only one is kept
    if updates.nbytes > _SHARE_OF_FREE * _free_bytes(device):
        return updates
    kept.append((updates, updates._version, updates.detach().to(device)))
    return kept[0][2]


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
