"""Attacks tailored to a known rule: the farthest step from the honest mean that the rule still lets through."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, row_norms
from flsec.aggregation.bulyan import bulyan_selection
from flsec.aggregation.krum import krum_scores
from flsec.aggregation.median import median
from flsec.aggregation.multi_krum import multi_krum_selection
from flsec.aggregation.trimmed_mean import trimmed_mean
from flsec.attacks._collusion import Ddof, Perturbation, as_upload, moments, perturbation_vector
from flsec.parameters import Count, Positive, PositiveCount, check_parameters

__all__ = ["KnownRule", "TailoredUpload", "agr_tailored", "largest_damage"]

KnownRule = Literal["krum", "multi_krum", "bulyan", "trimmed_mean", "median"]


class TailoredUpload(NamedTuple):
    """What an optimisation found.

    Attributes:
        upload: (d,).
        gamma: how far it goes; 0 where the rule lets nothing through.
        damage: gamma for rules that select rows; else the distance of the aggregate from the honest mean.

    Example:
        >>> honest = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
        >>> found = agr_tailored(honest, rule="median", num_attackers=2)
        >>> round(found.damage, 2)  # the median of the honest 1 to 5 and two crafted rows below is 2, and their mean 3
        1.0
    """

    upload: Tensor
    gamma: float
    damage: float


def agr_tailored(
    honest: Tensor,
    *,
    rule: KnownRule,
    num_attackers: PositiveCount,
    num_byzantine: Count | None = None,
    perturbation: Perturbation = "std",
    start: Positive = 10.0,
    tolerance: Positive = 1e-5,
    ddof: Ddof = 1,
) -> TailoredUpload:
    """Return mean + gamma p, which all attackers upload, with the gamma that is best against a rule they know.

    Krum, Multi-Krum and Bulyan: the largest gamma with which the rule selects a crafted row (Krum) or all of them; for
    Bulyan in its first phase. Trimmed mean and median: the gamma with which the aggregate is farthest from the honest
    mean.

    Args:
        honest: (h, d), h >= 1, floating point, honest updates that the attackers know. Not modified.
        rule: what the server does.
        num_attackers: m; the server gets m + h updates.
        num_byzantine: f, what the server assumes, and how many values the trimmed mean drops on each side; None: m.
        perturbation: p. ``"unit"``: -mean / |mean|; ``"std"``: minus the standard deviation of each coordinate;
            ``"sign"``: -sign(mean).
        start: gamma that the search begins with, in units of how far honest updates are from their mean, over |p|.
            Twice that is the most that it reaches. The authors' program takes 3 to 20 parameter units.
        tolerance: the search ends when its step is this share of ``start``.
        ddof: the variance divides by h - ddof.

    Raises:
        ConfigError: ``honest`` is no floating matrix with a row, or a setting is out of its range.

    Where the server assumes more attackers than the rule can bear, the rule is computed all the same. If a gamma is let
    through that lies beyond one that is not, the search may miss it, as the paper's does.

    Example:
        >>> honest = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
        >>> upload, gamma, _ = agr_tailored(honest, rule="krum", num_attackers=2, perturbation="unit")
        >>> round(float(upload), 2)  # farther out the honest 1 is between the two crafted ones and the rest
        1.0

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021 (AGR-tailored attacks), and the authors'
    program, which attacks Bulyan as it does Multi-Krum. There a trial counts as better than the one before; here it
    must be better than all before, and the best is uploaded.
    """
    check_parameters(agr_tailored, {k: v for k, v in locals().items() if k != "honest"}, name="agr_tailored")
    check_updates(honest, "agr_tailored")
    mean, std = moments(honest, ddof)
    p = perturbation_vector(perturbation, mean, std)
    length = float(p.norm())
    if length == 0:
        return TailoredUpload(as_upload(mean, honest), 0.0, 0.0)
    assumed = num_attackers if num_byzantine is None else num_byzantine

    def upload(gamma: float) -> Tensor:
        return as_upload(mean + gamma * p, honest)

    def damage(gamma: float) -> float:
        rows = torch.cat([honest, upload(gamma).repeat(num_attackers, 1)])  # of equal scores the honest row wins
        if rule in _SELECTED:
            chosen = int((_SELECTED[rule](rows, assumed) >= len(honest)).sum())
            return gamma if chosen == (1 if rule == "krum" else num_attackers) else -math.inf
        return float((_AGGREGATED[rule](rows, assumed).double() - mean).norm())

    scale = max(float(row_norms(honest, origin=mean).max()), float(mean.norm())) / length
    gamma, done = largest_damage(damage, start=start * scale, tolerance=tolerance)
    return TailoredUpload(upload(gamma), gamma, done)


def largest_damage(damage: Callable[[float], float], *, start: Positive, tolerance: Positive) -> tuple[float, float]:
    """Return the best gamma of a search by halving, and its damage; (0, 0) where none does any.

    From ``start``, a step up after a gamma that is better than all before, else down; each step is half of the one
    before it, the first one ``start`` / 2.

    Args:
        damage: maps gamma to the damage; -inf where it must not be.
        start: the first gamma.
        tolerance: the smallest step, as a share of ``start``.

    Raises:
        ConfigError: ``start`` or ``tolerance`` is not positive.

    Example:
        >>> gamma, _ = largest_damage(lambda gamma: gamma if gamma <= 3.0 else -math.inf, start=10.0, tolerance=1e-5)
        >>> round(gamma, 3)
        3.0

    Source: Shejwalkar and Houmansadr, NDSS 2021, Algorithm 1.
    """
    check_parameters(largest_damage, {"start": start, "tolerance": tolerance}, name="largest_damage")
    best, most, gamma, step = 0.0, 0.0, start, start
    while step > tolerance * start:
        step /= 2
        if (done := damage(gamma)) > most:
            best, most = gamma, done
            gamma += step
        else:
            gamma -= step
    return best, most


_Rule = Callable[[Tensor, int], Tensor]

_SELECTED: Mapping[str, _Rule] = {
    "krum": lambda rows, f: krum_scores(rows, f, unsafe=True).argmin()[None],
    "multi_krum": lambda rows, f: multi_krum_selection(rows, f, unsafe=True),
    "bulyan": lambda rows, f: bulyan_selection(rows, f, unsafe=True),
}
_AGGREGATED: Mapping[str, _Rule] = {
    "trimmed_mean": lambda rows, f: trimmed_mean(rows, f, unsafe=True),
    "median": lambda rows, f: median(rows),
}
