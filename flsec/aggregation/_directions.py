"""The direction in which rows vary most, from their inner products alone: no (d, d) matrix, no second look at rows.

The covariance of n rows and the Gram matrix of the centred rows have the same eigenvalues but for zeros, and an
eigenvector of the one is a combination of rows by an eigenvector of the other.
"""

import torch
from torch import Tensor

__all__ = ["usable_products", "widest_direction"]

_MOST_SQUARE = 1e290  # squared norms whose sums float64 still holds


def usable_products(products: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows have finite products, (n,) bool, and the products with zeros for the others; on the CPU.

    Args:
        products: (n, n), the rows' ``robust_gram``.
    """
    known = products.cpu()
    present = known.diagonal() < _MOST_SQUARE  # not so for NaN
    return present, torch.where(present[:, None] & present[None, :], known, 0)


def widest_direction(products: Tensor, weights: Tensor) -> tuple[float, Tensor]:
    """Return the largest eigenvalue of the weighted covariance, and how far each row lies along its eigenvector.

    Args:
        products: (n, n) about any point, finite, on the CPU.
        weights: (n,) at least 0, not all 0.

    Returns:
        The variance sum_i w_i <u_i - mean, v>^2 / sum_i w_i along the unit vector v that makes it largest, and the (n,)
        values <u_i - mean, v> up to one common factor; zeros where the rows that count are equal.
    """
    shares = weights / weights.sum()
    towards = products @ shares
    centred = products - towards[:, None] - towards[None, :] + shares @ towards
    roots = shares.sqrt()
    variances, vectors = torch.linalg.eigh(roots[:, None] * centred * roots[None, :])
    variance = float(variances[-1])
    if variance <= 0:
        return 0.0, torch.zeros_like(shares)
    along = centred @ (roots * vectors[:, -1])
    return variance, along / along[shares > 0].abs().max()
