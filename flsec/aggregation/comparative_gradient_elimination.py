"""Comparative gradient elimination (CGE)."""

from typing import Literal, get_args

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, row_norms
from flsec.aggregation._subsets import check_minority, mean_of_rows
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["comparative_gradient_elimination"]

Combine = Literal["mean", "sum"]


def comparative_gradient_elimination(updates: Tensor, num_byzantine: Count, combine: Combine = "mean") -> Tensor:
    """Return the mean of the n - f updates of the smallest L2 norms.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.
        combine: ``"mean"``, or the paper's ``"sum"``, which is n - f times as long.

    Returns:
        (d,), with the dtype and device of ``updates``. Of equal norms the first rows are taken.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 2 f + 1, or ``combine`` is unknown.

    Invariant to row order (ties aside); equivariant to scale and rotation, not to shift. No row in it is longer than
    the longest honest one, and that is all: f rows of that length may point anywhere, so that it suits cohorts whose
    honest updates nearly agree. Rows that hold NaN or infinity never enter while there are at most f of them. Two
    passes over memory.

    Example:
        >>> comparative_gradient_elimination(torch.tensor([[1.0], [2.0], [3.0], [9.0]]), num_byzantine=1)
        tensor([2.])

    Source: Gupta, Liu and Vaidya, "Byzantine Fault-Tolerant Distributed Machine Learning Using Stochastic Gradient
        Descent (SGD) and Norm-Based Comparative Gradient Elimination (CGE)", 2020.
    """
    n = check_updates(updates, "comparative_gradient_elimination")
    check_minority("comparative_gradient_elimination", n, num_byzantine)
    if combine not in get_args(Combine):
        raise ConfigError(
            f"comparative_gradient_elimination needs combine 'mean' or 'sum'; got {combine!r}. Take 'mean', which is "
            f"as long as an update."
        )
    average = mean_of_rows(updates, shortest(row_norms(updates), n - num_byzantine))
    return average if combine == "mean" else average * (n - num_byzantine)


def shortest(norms: Tensor, count: int) -> Tensor:
    """Return the sorted numbers of the ``count`` rows of the smallest norms; NaN is longer than all."""
    return norms.nan_to_num(nan=torch.inf).argsort(stable=True)[:count].sort().values
