"""The geometric median of means."""

import torch
from torch import Tensor

from flsec.aggregation._directions import usable_products
from flsec.aggregation._gram import check_updates, gram_of_rows, is_whole, robust_gram, weighted_sum
from flsec.aggregation._subsets import check_minority
from flsec.aggregation.geometric_median import weiszfeld
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount

__all__ = ["median_of_means"]


def median_of_means(updates: Tensor, num_byzantine: Count, num_groups: PositiveCount | None = None) -> Tensor:
    """Return the geometric median of the means of k groups of updates.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.
        num_groups: k, 2 f < k <= n: f hostile rows then spoil fewer than half of the groups. None: 3 f + 1, or n where
            that is less; so that f = 0 gives the plain mean. n gives the geometric median.

    Returns:
        (d,), with the dtype and device of ``updates``. Groups are runs of floor(n / k) or ceil(n / k) rows, and count
        alike.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 2 f + 1, or k is out of range.

    Which rows share a group depends on row order; equivariant to shift, scale and rotation. With a share e = f / k of
    groups spoilt, the result lies within 2 (1 - e) / (1 - 2 e) r of a point that the means of all honest groups lie
    within r of: means of b rows scatter less than the rows, which is what groups are for. A row that holds NaN or
    infinity counts with its group as absent. Two passes over memory.

    Example:
        >>> median_of_means(torch.tensor([[0.0], [2.0], [1.0], [1.0], [1.5], [0.5], [1.0], [1e9]]), num_byzantine=1)
        tensor([1.])

    Source: Chen, Su and Xu, "Distributed Statistical Machine Learning in Adversarial Settings: Byzantine Gradient
        Descent", POMACS 2017 ("geometric median of means"; k of the order 2 (1 + epsilon) f). What ByzPy
        calls "mean of medians" is another rule: ``mean_around_median``.
    """
    n = check_updates(updates, "median_of_means")
    check_minority("median_of_means", n, num_byzantine)
    check_groups("median_of_means", num_groups, num_byzantine)
    if num_groups is not None and num_groups > n:
        raise ConfigError(f"median_of_means needs num_groups <= n; got num_groups={num_groups}, n={n}.")
    return weighted_sum(updates, weights_of_groups(robust_gram(updates)[0], num_byzantine, num_groups))


def check_groups(rule: str, num_groups: int | None, num_byzantine: int) -> None:
    """Raise ``ConfigError`` unless there are more than 2 f groups, or None."""
    if num_groups is not None and (not is_whole(num_groups) or num_groups <= 2 * num_byzantine):
        raise ConfigError(
            f"{rule} needs a whole num_groups > 2 * num_byzantine; got num_groups={num_groups}, num_byzantine="
            f"{num_byzantine}. Take 3 * num_byzantine + 1 = {3 * num_byzantine + 1}, or None.",
            parameter="num_groups",
        )


def weights_of_groups(products: Tensor, num_byzantine: int, num_groups: int | None) -> Tensor:
    """Return the (n,) float64 weights of the rows whose weighted sum is the result, from the rows' ``robust_gram``.

    Args:
        products: (n, n).
        num_byzantine: f.
        num_groups: k; n where that is more.
    """
    n = len(products)
    k = min(n, 3 * num_byzantine + 1 if num_groups is None else num_groups)
    present, known = usable_products(products)
    group = torch.arange(n) * k // n
    means = torch.nn.functional.one_hot(group, k).T.double()  # (k, n), rows of sum 1
    means /= means.sum(dim=1, keepdim=True)
    of_groups = means @ known @ means.T
    spoilt = group[~present]
    of_groups[spoilt] = of_groups[:, spoilt] = torch.nan
    recentred = gram_of_rows(of_groups, torch.arange(k))
    alike = torch.full((k,), 1 / k, dtype=torch.float64)
    weights = weiszfeld(of_groups if recentred is None else recentred[0], alike, 1e-6, 1000, 1e-10)
    return (weights @ means).to(products.device)
