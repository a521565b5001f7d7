"""Fang's attack on Krum: the farthest point against the honest direction that Krum still picks."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._gram import squared_distances
from flsec.aggregation.krum import scores_from_distances
from flsec.attacks._collusion import Along, along, check_direction
from flsec.parameters import Count, Positive, PositiveCount, check_parameters

__all__ = ["KrumAttackFactor", "krum_attack_factor", "krum_attack_factor_partial"]


class KrumAttackFactor(NamedTuple):
    """How far against the honest direction the attackers go.

    Attributes:
        factor: lambda; they upload -lambda s.
        picked: whether Krum would then pick what they upload; False if the search ended at its threshold.
        num_crafted: how many of them upload it in what they have tried.

    Example:
        >>> honest = torch.tensor([[1.0, 1.2], [1.3, 1.0], [1.1, 1.1], [0.8, 1.0], [1.0, 0.7]])
        >>> found = krum_attack_factor(honest - 1, torch.ones(2), num_attackers=2)
        >>> round(found.factor, 2), found.picked, found.num_crafted
        (0.21, True, 2)
    """

    factor: float
    picked: bool
    num_crafted: int


def krum_attack_factor(
    honest: Tensor,
    direction: Tensor,
    *,
    num_attackers: PositiveCount,
    num_byzantine: Count | None = None,
    threshold: Positive = 1e-5,
) -> KrumAttackFactor:
    """Return lambda with which Krum picks -lambda s, which all attackers upload, when all honest updates are known.

    Starts from the upper bound of the paper's Theorem 1 and halves until Krum picks it.

    Args:
        honest: (h, d), h >= 1, floating point, the updates of all others. Not modified.
        direction: (d,), s: the signs of the model's change without an attack; a 0 leaves a coordinate alone.
        num_attackers: m; the server gets n = m + h updates.
        num_byzantine: f, what Krum assumes; None: m.
        threshold: the search gives up below this lambda, in parameter units. The paper takes 1e-5.

    Raises:
        ConfigError: ``honest`` is no floating matrix with a row, ``direction`` does not fit, or a setting is out of
            its range.

    Where f leaves Krum no neighbour, one is taken. One pass over the updates for their distances; each trial then costs
    O(n^2), whatever d: distances to -lambda s are polynomials in lambda.

    Example:
        >>> honest = torch.tensor([[1.0, 1.2], [1.3, 1.0], [1.1, 1.1], [0.8, 1.0], [1.0, 0.7]])
        >>> krum_attack_factor(honest, torch.ones(2), num_attackers=2).picked
        False
        >>> krum_attack_factor(honest - 1, torch.ones(2), num_attackers=2).picked
        True

    Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
    Sec. 4.2 (full knowledge) and Theorem 1. Updates are weights minus w_Re, the model that the clients got.
    """
    settings = {"num_attackers": num_attackers, "num_byzantine": num_byzantine, "threshold": threshold}
    check_parameters(krum_attack_factor, settings, name="krum_attack_factor")
    problem = _problem(honest, direction, "krum_attack_factor")
    assumed = num_attackers if num_byzantine is None else num_byzantine
    return _search(*problem, num_attackers, assumed, threshold)


def krum_attack_factor_partial(own: Tensor, direction: Tensor, *, threshold: Positive = 1e-5) -> KrumAttackFactor:
    """Return lambda for attackers who know their own honest updates only, which stand for everybody's.

    They imagine a server that gets all those and a crafted one, and search as with full knowledge. If Krum never picks
    the crafted one, they add a second, and so on up to m.

    Args:
        own: (m, d), m >= 1, floating point, what the attackers would have uploaded honestly. Not modified.
        direction: (d,), s: the signs of their mean.
        threshold: as for ``krum_attack_factor``.

    Raises:
        ConfigError: as ``krum_attack_factor``.

    The imagined Krum assumes as many hostile updates as there are crafted ones, so that it looks at m - 2 neighbours;
    the paper leaves this open.

    Example:
        >>> own = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.2, -0.1]])
        >>> krum_attack_factor_partial(own, torch.ones(2)).num_crafted  # the imagined Krum looks at one neighbour
        2

    Source: Fang et al., USENIX Security 2020, Sec. 4.2 (partial knowledge).
    """
    check_parameters(krum_attack_factor_partial, {"threshold": threshold}, name="krum_attack_factor_partial")
    problem = _problem(own, direction, "krum_attack_factor_partial")
    for crafted in range(1, len(own) + 1):
        found = _search(*problem, crafted, crafted, threshold)
        if found.picked:
            break
    return found


def _problem(honest: Tensor, direction: Tensor, name: str) -> tuple[Tensor, Along]:
    """Return the (h, h) squared distances of the honest rows, and theirs to -lambda s."""
    check_direction(honest, direction, name)
    zero = torch.zeros(honest.shape[1], dtype=torch.float64, device=honest.device)
    return squared_distances(honest), along(honest, zero, -direction.double())


def _search(
    distances: Tensor, to_crafted: Along, num_crafted: int, num_byzantine: int, threshold: float
) -> KrumAttackFactor:
    if to_crafted.curvature == 0:  # no direction at all: nothing to upload but zero
        return KrumAttackFactor(0.0, False, num_crafted)
    n = len(distances) + num_crafted
    neighbours = min(max(1, n - num_byzantine - 2), n - 1)
    factor = _upper_bound(distances, to_crafted, num_crafted, neighbours)
    while not (picked := _picks(distances, to_crafted, num_crafted, neighbours, factor)) and factor >= threshold:
        factor /= 2
    return KrumAttackFactor(factor, picked, num_crafted)


def _upper_bound(distances: Tensor, to_crafted: Along, num_crafted: int, neighbours: int) -> float:
    """Return Theorem 1's bound; where Krum looks at attackers only and there is none, at least a place to start."""
    others = distances.clone().fill_diagonal_(torch.inf)
    nearest = others.topk(min(neighbours, len(others) - 1), dim=1, largest=False).values
    best = float(nearest.sum(dim=1).min())
    strangers = max(1, neighbours - num_crafted + 1)  # n - 2 f - 1 where Krum assumes f = m
    return (math.sqrt(best / strangers) + math.sqrt(float(to_crafted.squares.max()))) / math.sqrt(to_crafted.curvature)


def _picks(distances: Tensor, to_crafted: Along, num_crafted: int, neighbours: int, factor: float) -> bool:
    """Return whether Krum prefers the crafted rows, which are equal, to every honest one."""
    squares, slopes, curvature = to_crafted
    away = (squares + 2 * factor * slopes + factor * factor * curvature).clamp_(min=0)
    n = len(distances) + num_crafted
    everything = torch.zeros(n, n, dtype=torch.float64, device=distances.device)
    everything[num_crafted:, num_crafted:] = distances
    everything[num_crafted:, :num_crafted] = away[:, None]
    everything[:num_crafted, num_crafted:] = away
    scores = scores_from_distances(everything, n - neighbours - 2)
    return bool(scores[0] < scores[num_crafted:].min())
