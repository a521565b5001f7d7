"""Robust learning rate: a sign vote per coordinate decides in which direction the server goes."""

import torch
from torch import Tensor

from flsec.aggregation._columns import check_matrix
from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._threads import each_block
from flsec.errors import ConfigError
from flsec.parameters import NonNegative

__all__ = ["robust_learning_rate"]


def robust_learning_rate(updates: Tensor, threshold: NonNegative, weights: Tensor | None = None) -> Tensor:
    """Return the (weighted) mean update, negated where the clients' signs agree too little.

    A coordinate with |sum of the signs of its n entries| < ``threshold`` gets minus the mean (a negative learning
    rate, which maximises the loss there), every other one the mean. It is not zeroed.

    Args:
        updates: (n, d), float32 or float64. Row i is client i's local minus global parameters: the vote is on the
            signs of updates, those of parameters say nothing. Not modified.
        threshold: votes, 0 <= threshold <= n. 0 never flips. To act on a backdoor it must exceed the number of hostile
            clients, and to spare what the honest ones agree on, not their own number.
        weights: (n,), weights of the mean, at least 0 and not all 0, of any scale; None: equal. The vote is one
            client, one vote, whatever the weights.

    Returns:
        (d,): dtype and device of ``updates``; sums are taken in float64.

    Raises:
        ConfigError: ``updates`` is no float matrix, ``threshold`` is outside [0, n], or ``weights`` do not fit.

    Invariant to row order; equivariant to positive scale and to a change of sign; not to shift. A defense against
    backdoors, not against large values: a row of 1e30 moves the mean, so clip norms first. Entries that are NaN
    or infinite abstain: they do not vote, and the mean is over the finite entries (0 where there are none).

    Example:
        >>> u = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, -9.0]])
        >>> robust_learning_rate(u, threshold=2)
        tensor([2., 2.])

    Source: Ozdayi et al., AAAI 2021, section "Robust Learning Rate". A zero entry casts no vote: sign(0) = 0.
    """
    n, d = check_matrix(updates, rule="robust_learning_rate")
    if not 0 <= threshold <= n:
        raise ConfigError(
            f"robust_learning_rate needs 0 <= threshold <= n, or every coordinate is flipped in every round; got "
            f"threshold={threshold!r}, n={n}. Sample more clients per round or lower threshold."
        )
    updates = updates.detach()
    out = updates.new_empty(d)
    source, device = where_blocks_are(updates)
    shares = _shares(weights, n).to(device)

    def work(columns: slice) -> float:
        block = source[:, columns].to(device)
        mean = shares @ block.double()
        if not mean.isfinite().all():
            finite = block.isfinite()
            block = block.where(finite, 0.0)
            counted = shares @ finite.double()
            mean = (shares @ block.double() / counted).where(counted > 0, 0.0)
        votes = block.sign().sum(dim=0).double()  # compared exactly: float32 would round the threshold
        out[columns] = mean.where(votes.abs() >= threshold, -mean).to(out)
        return 0.0

    each_block(work, n, d, device)
    return out


def _shares(weights: Tensor | None, n: int) -> Tensor:
    """Return (n,) float64 weights that sum to 1."""
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    weights = weights.detach().double()
    if weights.shape != (n,) or not weights.isfinite().all() or weights.min() < 0 or weights.sum() == 0:
        raise ConfigError(
            "robust_learning_rate needs weights of shape (n,), finite, at least 0 and not all 0; got shape "
            f"{tuple(weights.shape)}, n={n}, smallest {weights.min().item():g}, sum {weights.sum().item():g}. "
            "Pass one weight per row, or weights=None for equal ones."
        )
    return weights / weights.sum()
