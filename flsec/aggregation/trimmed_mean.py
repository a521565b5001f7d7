"""The coordinate-wise trimmed mean."""

from torch import Tensor

from flsec.aggregation._columns import check_matrix, mean_of_ranks
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["trimmed_mean"]


def trimmed_mean(updates: Tensor, num_trimmed: Count, *, unsafe: bool = False) -> Tensor:
    """Return the mean of every coordinate without its ``num_trimmed`` smallest and as many largest values.

    Args:
        updates: (n, d), float32 or float64. Row i is client i's local minus global parameters. Not modified.
        num_trimmed: b, values dropped per side and coordinate. 0 gives the plain mean, and no robustness.
        unsafe: compute also where n is too small for the guarantee: min(b, (n - 1) // 2) values are dropped per side.
            b hostile rows can then be half of all.

    Returns:
        (d,): the sum of the n - 2 b values kept, divided by n - 2 b; dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no float matrix, b is no whole number, b < 0, or 2 b >= n and not ``unsafe``.

    Invariant to row order; equivariant to shift and scale, per coordinate; not to rotation. While at most b rows
    are hostile, every coordinate stays between the smallest and the largest honest value, whatever the hostile rows
    hold: NaN ranks with +inf, above every number. With more of them the result can be anything, infinity and NaN
    too; it never raises.

    Example:
        >>> import torch
        >>> trimmed_mean(torch.tensor([[-1e30], [1.0], [2.0], [6.0], [float("nan")]]), num_trimmed=1)
        tensor([3.])

    Source: Yin et al., ICML 2018, Definition 2 and Algorithm 1, option II, where b = beta n. (The factor
    1 / (1 - 2 beta n) printed in the DiverseFL paper is a typing error for 1 / ((1 - 2 beta) n).)
    """
    n, _ = check_matrix(updates, rule="trimmed_mean")
    if num_trimmed % 1 != 0 or num_trimmed < 0 or (2 * num_trimmed >= n and not unsafe):
        raise ConfigError(
            "trimmed_mean needs a whole number 0 <= num_trimmed with 2 * num_trimmed < n; got "
            f"num_trimmed={num_trimmed!r}, n={n}. Sample more clients per round or lower num_trimmed."
        )
    trimmed = min(int(num_trimmed), (n - 1) // 2)
    return mean_of_ranks(updates, trimmed, n - trimmed)
