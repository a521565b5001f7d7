"""SignGuard: rows of an unusual length or with an unusual share of positive and negative entries are dropped."""

import math
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from flsec.aggregation._filters import Filtered, clipping_factors, largest_cluster, median_norm, on_finite_rows
from flsec.aggregation._gram import check_updates, row_norms
from flsec.aggregation.cross_round import cross_round_similarities
from flsec.errors import ConfigError
from flsec.parameters import Count, OpenFraction
from flsec.randomness import numpy_generator

__all__ = ["Similarity", "sign_guard"]

Similarity = Literal["none", "cosine", "distance"]

_FEWEST = 3  # rows that can be told into more and fewer
_LEAST_BANDWIDTH = 1e-6  # of the mean shift, where at least half of the rows have the same features


@torch.no_grad()
def sign_guard(
    updates: Tensor,
    similarity: Similarity = "none",
    previous: Tensor | None = None,
    lower: OpenFraction = 0.1,
    upper: Annotated[float, Gt(1)] = 3.0,
    fraction: OpenFraction = 0.1,
    quantile: OpenFraction = 0.5,
    seed: int = 0,
    round: Count = 1,
) -> Tensor:
    """Return the mean of the rows that pass two filters, each clipped to the median norm of all.

    With M the median norm, a row passes the first filter if L M <= |u_i| <= R M. For the second, each row is described
    by the shares of positive, zero and negative values among a random part of its coordinates, the same for all rows;
    the mean shift clusters these, and the rows of the largest cluster pass.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        similarity: a fourth feature: ``"cosine"``, of the row and ``previous`` (SignGuard-Sim); ``"distance"``, from
            the row to ``previous`` over the median of these distances (SignGuard-Dist); ``"none"`` (SignGuard).
        previous: (d,), the aggregate of the round before; None or zero: no fourth feature.
        lower: L < 1, the least norm of a row in units of the median.
        upper: R > 1, the largest.
        fraction: share of the coordinates that signs are counted on, rounded up.
        quantile: the mean shift's bandwidth is the mean distance from a row to its neighbour at this quantile.
        seed: seed of the run, for the choice of coordinates.
        round: the server's round; the choice depends on seed, round and d alone.

    Returns:
        (d,), with the dtype and device of ``updates``; zero if no row passes both filters, or M is 0.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or a setting is out of range.

    Invariant to row order, equivariant to scale, not to shift. The result is never longer than the median norm, so
    that a minority, even if it passes, moves it by 2 M at most. Rows that hold NaN or infinity count as absent. Of
    fewer than 3 rows all pass the second filter. O(n d) time for the matrix and O(n^2) for a step of the mean shift;
    memory for ``fraction`` of the matrix.

    Example:
        >>> sign_guard(torch.tensor([[1.0, 1.0], [1.0, 2.0], [2.0, 1.0], [-9.0, -9.0]]), fraction=0.9)
        tensor([1.3333, 1.3333])

    Source: Xu et al., "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering", ICDCS
        2022. Left open there, chosen here: the bandwidth; every row starts a search and belongs to the
        nearest centre; of equally large clusters that of the smaller mean norm counts; in the first round, -Sim and
        -Dist are the plain rule.
    """
    check_updates(updates, "sign_guard")
    return sign_guard_filter(updates, similarity, previous, lower, upper, fraction, quantile, seed, round).mean(updates)


def sign_guard_filter(
    updates: Tensor,
    similarity: str,
    previous: Tensor | None,
    lower: float,
    upper: float,
    fraction: float,
    quantile: float,
    seed: int,
    round: int,
) -> Filtered:
    """Return who passes both filters; the scores are the norms in units of their median."""
    if similarity not in ("none", "cosine", "distance"):
        raise ConfigError(f"sign_guard needs similarity 'none', 'cosine' or 'distance'; got {similarity!r}.")
    if not (0 < lower < 1 < upper < math.inf and 0 < fraction < 1 and 0 < quantile < 1):
        raise ConfigError(
            "sign_guard needs 0 < lower < 1 < upper < inf, 0 < fraction < 1 and 0 < quantile < 1; got "
            f"lower={lower}, upper={upper}, fraction={fraction}, quantile={quantile}. Try 0.1, 3.0, 0.1 and 0.5."
        )
    norms = row_norms(updates)
    middle = median_norm(norms)
    kept = norms.isfinite()
    if int(kept.sum()) >= _FEWEST:
        d = updates.shape[1]
        chosen = numpy_generator(seed, round, purpose="sign_guard").choice(d, math.ceil(fraction * d), replace=False)
        features = sign_shares(updates[:, torch.from_numpy(np.sort(chosen)).to(updates.device)])
        if similarity != "none" and previous is not None and bool(previous.any()):
            features = torch.cat([features, _resemblance(updates, similarity, previous)[:, None]], dim=1)
        kept = on_finite_rows(kept, largest_cluster(_mean_shift(features[kept], quantile), norms[kept]))
    kept &= (norms >= lower * middle) & (norms <= upper * middle)
    return Filtered(kept, clipping_factors(norms, middle), norms / middle if middle > 0 else norms, norms, middle)


def sign_shares(values: Tensor) -> Tensor:
    """Return the (n, 3) float64 shares of positive, zero and negative values in each row."""
    kinds = (values > 0, values == 0, values < 0)
    return torch.stack([kind.double().mean(dim=1) for kind in kinds], dim=1)


def _resemblance(updates: Tensor, similarity: str, previous: Tensor) -> Tensor:
    """Return how each row resembles the previous aggregate, (n,)."""
    if similarity == "cosine":
        return cross_round_similarities(updates, previous)
    distances = row_norms(updates, origin=previous)
    usual = median_norm(distances)
    return distances / usual if usual > 0 else distances


def _mean_shift(features: Tensor, quantile: float) -> Tensor:
    """Return the (n,) numbers of the clusters."""
    from sklearn.cluster import MeanShift, estimate_bandwidth  # takes a second, and few runs use it

    points = features.cpu().numpy()
    bandwidth = max(estimate_bandwidth(points, quantile=quantile), _LEAST_BANDWIDTH)
    return torch.from_numpy(MeanShift(bandwidth=bandwidth).fit(points).labels_).to(features.device)
