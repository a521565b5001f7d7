"""Smallest-maximum-eigenvalue averaging (SMEA)."""

import itertools
import math

import torch
from torch import Tensor

from flsec.aggregation._directions import usable_products, widest_direction
from flsec.aggregation._gram import check_updates, robust_gram
from flsec.aggregation._subsets import check_minority, mean_of_rows
from flsec.parameters import Count

__all__ = ["smea"]

EXACT_UP_TO = 10**8  # subsets times the cube of their size: some tenths of a second
_AT_ONCE = 2**20  # elements of the matrices whose eigenvalues are computed together


def smea(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return the mean of those n - f updates whose covariance has the smallest largest eigenvalue.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.

    Returns:
        (d,), with the dtype and device of ``updates``. Of equally good subsets the first in lexicographic order.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    Exact, by looking at all subsets, while their number times (n - f)^3 is at most 10^8: f = 5 of 20, 4 of 22, 3 of 30,
    2 of 47. Beyond, greedy: f times, the row that lies farthest along the direction of largest variance is dropped.

    Invariant to row order (ties aside); equivariant to shift, scale and rotation. Rows that hold NaN or infinity never
    enter the mean. Two passes over memory; eigenvalues are those of (n - f, n - f) matrices.

    Example:
        >>> smea(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: Allouah et al., "On the Privacy-Robustness-Utility Trilemma in Distributed Learning", ICML 2023.
    """
    check_minority("smea", check_updates(updates, "smea"), num_byzantine)
    return mean_of_rows(updates, least_spread(robust_gram(updates)[0], num_byzantine)[0])


def least_spread(products: Tensor, num_byzantine: int) -> tuple[Tensor, bool]:
    """Return the sorted numbers of SMEA's n - f rows from the rows' ``robust_gram``, and whether they are exact.

    Fewer rows where fewer are finite; all where none is. Who calls it has checked that n is enough, or knows that it is
    not: one row is taken at least.
    """
    present, known = usable_products(products)
    rows = present.nonzero().flatten()
    if len(rows) == 0:
        return torch.arange(len(products), device=products.device), True
    count = min(max(1, len(products) - num_byzantine), len(rows))
    exact = math.comb(len(rows), count) * count**3 <= EXACT_UP_TO
    chosen = _best_of_all(known, rows, count) if exact else _drop_one_by_one(known, rows, count)
    return chosen.to(products.device), exact


def _best_of_all(products: Tensor, rows: Tensor, count: int) -> Tensor:
    subsets = itertools.combinations(rows.tolist(), count)
    best, least = rows[:count], torch.inf
    while some := list(itertools.islice(subsets, max(1, _AT_ONCE // count**2))):
        members = torch.tensor(some)
        variances = _largest_eigenvalues(products[members[:, :, None], members[:, None, :]])
        first = int(variances.argmin())
        if float(variances[first]) < least:
            best, least = members[first], float(variances[first])
    return best


def _largest_eigenvalues(products: Tensor) -> Tensor:
    """Return the (b,) largest eigenvalues of the centred versions of (b, m, m) Gram matrices."""
    towards = products.mean(dim=2, keepdim=True)
    centred = products - towards - towards.mT + towards.mean(dim=1, keepdim=True)
    variances: Tensor = torch.linalg.eigvalsh(centred)
    return variances[:, -1]


def _drop_one_by_one(products: Tensor, rows: Tensor, count: int) -> Tensor:
    while len(rows) > count:
        _, along = widest_direction(products[rows][:, rows], torch.ones(len(rows), dtype=torch.float64))
        farthest = int(along.abs().argmax())
        rows = torch.cat([rows[:farthest], rows[farthest + 1 :]])
    return rows
