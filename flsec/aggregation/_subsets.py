"""Which n - f rows belong together, as far as their distances tell; rules that average such a group share this."""

import torch
from torch import Tensor

from flsec.aggregation._gram import is_whole, weighted_sum
from flsec.errors import ConfigError

__all__ = ["ball_around", "central_row", "check_minority", "mean_of_rows"]


def check_minority(rule: str, n: int, num_byzantine: int) -> None:
    """Raise ``ConfigError`` unless num_byzantine is a whole number and 0 <= 2 * num_byzantine < n."""
    if not is_whole(num_byzantine) or not 0 <= 2 * num_byzantine < n:
        raise ConfigError(
            f"{rule} needs a whole num_byzantine >= 0 and n >= 2 * num_byzantine + 1; got num_byzantine="
            f"{num_byzantine}, n={n}. Sample more clients per round or lower num_byzantine."
        )


def mean_of_rows(updates: Tensor, rows: Tensor) -> Tensor:
    """Return the (d,) mean of the rows of these numbers, summed in float64; the others are not read."""
    weights = torch.zeros(updates.shape[0], dtype=torch.float64, device=updates.device)
    weights[rows] = 1.0 / len(rows)
    return weighted_sum(updates, weights)


def ball_around(distances: Tensor, row: int, count: int) -> Tensor:
    """Return the sorted numbers of the ``count`` rows nearest to a row, itself included; of equal ones the first."""
    others = distances[row].clone()
    others[row] = -1  # before its copies
    return others.argsort(stable=True)[:count].sort().values


def central_row(distances: Tensor, count: int) -> int:
    """Return the row whose ``count`` nearest rows, itself included, lie in the smallest ball around it.

    Two rows that are each the other's farthest have balls of one radius, but not always of the same rows: of equal
    radii the ball with the smallest sum of squared distances to its centre is taken, so that row order does not
    matter. No ``count`` rows have a diameter below that radius, and the ball's own is at most twice the smallest one.

    Args:
        distances: (n, n) squared distances, infinite for rows that are not finite.
        count: n - f, at least 1.
    """
    nearest = distances.sort(dim=1).values[:, :count]
    radii = nearest[:, -1]
    sums = torch.where(radii == radii.min(), nearest.sum(dim=1), torch.inf)
    return int(sums.argmin())
