from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from flsec.aggregation._gram import is_whole
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["fedinv", "fedinv_distances", "fedinv_scores"]


def fedinv(distances: Tensor, num_byzantine: Count, selection: Literal["clusters", "lowest"] = "clusters") -> Tensor:
    """Return the clients whose dummy data are neither exceptionally far from nor exceptionally near to the others'.

    The scores of ``fedinv_scores`` are cut into two clusters (2-median, exact); the larger one is kept, less those
    farthest from its median until n - f are left.

    Args:
        distances: (n, n), symmetric; see ``fedinv_distances``. Not modified.
        num_byzantine: f, an upper bound on the hostile clients; n > 2 f.
        selection: ``"clusters"``: as above and as printed; ``"lowest"``: the n - f of the lowest scores.

    Returns:
        The sorted row numbers of those kept, at most n - f; with ``"clusters"`` at least half of the sound rows unless
        n - f is less.

    Raises:
        ConfigError: ``distances`` is no square matrix, f < 0, n <= 2 f, or an unknown selection.

    Permuting the clients permutes the result; a common scale changes nothing. Clients without a finite distance are
    never kept. Clusters are always two: also where all clients are honest, a part of them is dropped. Where honest
    scores are spread more than they are away from the hostile ones, the cut falls among the honest, and all attackers
    are in the larger cluster with some honest clients: seen on MNIST at p = 0.8. ``"lowest"`` does not depend on where
    the cut falls, but takes in attackers whose dummies are like each other's and near the others'. With f >= n / 2 the
    attackers may be the majority, and are then the ones that are kept.

    Example:
        >>> scores = torch.tensor([1.0, 1.2, 1.4, 9.0, 1.1])
        >>> fedinv((scores[:, None] - scores).abs(), num_byzantine=1)
        tensor([0, 1, 2, 4])

    Source: FedInv, "Scoring and Clustering Local Model Updates" and Algorithm 1, lines 25 to 29.
    """
    if selection not in ("clusters", "lowest"):
        raise ConfigError(f"fedinv: selection must be 'clusters' or 'lowest'; got {selection!r}.")
    scores = fedinv_scores(distances, num_byzantine)
    sound = scores.isfinite().nonzero().flatten()
    if not len(sound):
        return sound
    most = len(distances) - num_byzantine
    if selection == "lowest":
        return sound[scores[sound].argsort(stable=True)[:most]].sort().values
    return sound[_majority(scores[sound][None], most)[0]]


def fedinv_scores(distances: Tensor, num_byzantine: Count) -> Tensor:
    """Return q: for each client, the sum of the larger of two clusters of its distances to the others.

    Elements of that cluster beyond n - f, those farthest from its median, are left out, as printed. Clients without a
    finite distance are set aside first, as so many of the f.

    Args:
        distances: (n, n), symmetric; the diagonal does not matter. Not modified.
        num_byzantine: f, an upper bound on the hostile clients; n > 2 f.

    Returns:
        (n,) float64, infinite for clients set aside. Not monotone in anything: moderate scores are good.

    Raises:
        ConfigError: as ``fedinv``.

    Example:
        >>> at = torch.tensor([0.0, 1.0, 3.0, 20.0])
        >>> fedinv_scores((at[:, None] - at).abs(), num_byzantine=1)
        tensor([ 4.,  3.,  5., 39.], dtype=torch.float64)

    Source: FedInv, Algorithm 1, lines 13 to 24.
    """
    n = _check(distances, num_byzantine)
    distances = distances.detach().to(torch.float64)
    far = distances.isfinite().logical_not().fill_diagonal_(True).all(dim=1)
    scores = torch.full((n,), torch.inf, dtype=torch.float64, device=distances.device)
    sound = (~far).nonzero().flatten() if n > 1 else torch.arange(n, device=distances.device)
    m = len(sound)
    others = distances[sound][:, sound][~torch.eye(m, dtype=torch.bool, device=distances.device)].view(m, max(m - 1, 0))
    scores[sound] = (others * _majority(others, n - num_byzantine)).sum(dim=1)
    return scores


def fedinv_distances(dummies: Tensor, labels: Tensor) -> Tensor:
    """Return the pairwise distances of dummy data: 1-D Wasserstein distances, summed over classes and features.

    The samples of one class are equally many for all clients, so the 1-D distance of two is the mean absolute
    difference of their sorted values: each client's are sorted once, and the sum over all of it is an l1 distance.

    Args:
        dummies: (n, b, ...), b samples of each client, less the common start. Not modified.
        labels: (b,), the same for all clients.

    Returns:
        (n, n) float64, symmetric, zero diagonal; infinite between a client whose dummies hold NaN or infinity and any
        other.

    Raises:
        ConfigError: ``dummies`` has fewer than two dimensions or is not floating, or ``labels`` does not fit.

    Time O(n b m log b + n^2 b m) and memory O(n b m) for m features.

    Example:
        >>> dummies = torch.tensor([[[0.0], [1.0], [5.0]], [[3.0], [0.0], [4.0]]])
        >>> fedinv_distances(dummies, torch.tensor([0, 0, 1]))[0, 1]
        tensor(2., dtype=torch.float64)

    Source: FedInv, Eq. 3.
    """
    if dummies.ndim < 2 or not dummies.is_floating_point() or labels.shape != dummies.shape[1:2] or not len(dummies):
        raise ConfigError(
            "fedinv needs floating dummies (n, b, ...) and labels (b,); got "
            f"{tuple(dummies.shape)} {dummies.dtype} and {tuple(labels.shape)}."
        )
    values = dummies.detach().to(torch.float64).flatten(2)
    parts = []
    for label in set(labels.tolist()):
        own = values[:, labels == label]
        parts.append((own.sort(dim=1).values / own.shape[1]).flatten(1))
    quantiles = torch.cat(parts, dim=1)
    distances = torch.cdist(quantiles, quantiles, p=1)
    sound = quantiles.isfinite().all(dim=1)
    return distances.masked_fill(~(sound[:, None] & sound), torch.inf).fill_diagonal_(0)


def _majority(values: Tensor, most: int) -> Tensor:
    """Return (r, m) bool: in each row the larger of its two clusters, less what is beyond ``most``.

    The clusters are those of least total distance to their medians; in one dimension they are the values below and
    above some gap, so all gaps are tried. Equal values are never separated. Of clusters of one size the one with the
    smaller total distance is taken, then the lower.

    Args:
        values: (r, m), finite.
        most: how many to keep at most; dropped are those farthest from the median of the cluster.
    """
    m = values.shape[1]
    if m < 2:
        return torch.ones_like(values, dtype=torch.bool)
    ordered, order = values.sort(dim=1, stable=True)
    below, above = _spreads(ordered), _spreads(-ordered.flip(1)).flip(1)
    sizes = torch.arange(1, m, device=values.device)  # of the lower cluster
    lower, upper = below[:, :-1], above[:, 1:]  # lower[:, k-1]: spread of the k lowest; upper: of the others
    total = (lower + upper).masked_fill(ordered[:, 1:] == ordered[:, :-1], torch.inf)
    cost, split = total.min(dim=1)
    size = sizes[split]
    at = split[:, None]
    tighter = upper.gather(1, at) < lower.gather(1, at)
    take_upper = (2 * size < m) | ((2 * size == m) & tighter[:, 0])
    first = torch.where(take_upper, size, 0)
    last = torch.where(take_upper, m, size)
    alike = cost.isinf()  # no gap at all
    first, last = first.masked_fill(alike, 0), last.masked_fill(alike, m)
    place = torch.arange(m, device=values.device)
    inside = (place >= first[:, None]) & (place < last[:, None])
    middle = ordered.gather(1, torch.stack([(first + last - 1) // 2, (first + last) // 2], dim=1)).mean(dim=1)
    away = (ordered - middle[:, None]).abs().masked_fill(~inside, torch.inf)
    rank = away.argsort(dim=1, stable=True).argsort(dim=1)
    kept = inside & (rank < most)
    return torch.zeros_like(kept).scatter_(1, order, kept)


def _spreads(ordered: Tensor) -> Tensor:
    """Return (r, m): entry k is the total distance of the k + 1 lowest values to their median."""
    m = ordered.shape[1]
    centred = ordered - ordered[:, :1]  # the sums of nearly equal values keep their digits
    sums = pad(centred.cumsum(dim=1), (1, 0))
    k = torch.arange(1, m + 1, device=ordered.device)
    return sums[:, k] - sums[:, k - k // 2] - sums[:, k // 2]  # the upper half less the lower half


def _check(distances: Tensor, num_byzantine: int) -> int:
    n = len(distances)
    if distances.shape != (n, n) or not distances.is_floating_point() or not n:
        raise ConfigError(f"fedinv needs a floating (n, n) matrix of distances; got {tuple(distances.shape)}.")
    if not is_whole(num_byzantine) or num_byzantine < 0 or n <= 2 * num_byzantine:
        raise ConfigError(
            f"fedinv needs a whole num_byzantine >= 0 and n > 2 * num_byzantine; got num_byzantine={num_byzantine}, "
            f"n={n}. Sample more clients per round or lower num_byzantine."
        )
    return n
