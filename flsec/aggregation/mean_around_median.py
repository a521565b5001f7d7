"""The mean around the median (MeaMed)."""

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates
from flsec.aggregation._subsets import check_minority
from flsec.aggregation._windows import mean_of_windows
from flsec.parameters import Count

__all__ = ["mean_around_median"]


def mean_around_median(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return, per coordinate, the mean of the n - f values nearest to the median of all n.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1. 0 gives the plain mean.

    Returns:
        (d,), with the dtype and device of ``updates``. Of two values equally far from the median, the lower one is
        taken; for even n the median is the mean of the two middle values.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    Invariant to row order; equivariant to shift and positive scale, per coordinate; not to rotation. The median lies
    between honest values while 2 f < n, so that no value in the mean is farther from it than the honest range is wide,
    whatever the f hostile rows hold: NaN ranks with +inf, above every number. O(n log n d) time.

    Example:
        >>> mean_around_median(torch.tensor([[0.0], [1.0], [2.0], [6.0], [float("nan")]]), num_byzantine=1)
        tensor([2.2500])

    Source: Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018 ("mean around median").
        ByzPy calls the same rule "mean of medians".
    """
    n = check_updates(updates, "mean_around_median")
    check_minority("mean_around_median", n, num_byzantine)
    return mean_of_windows(updates, torch.arange(n, device=updates.device), num_byzantine, centred=True)
