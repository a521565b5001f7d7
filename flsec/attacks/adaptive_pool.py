"""The upload that pushes a deployed defense's aggregate farthest against the honest mean, out of a pool of guesses."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, float64_blocks, row_norms
from flsec.attacks._collusion import along, as_upload, moments
from flsec.parameters import PositiveCount, check_parameters

__all__ = ["PoolResult", "adaptive_pool"]

_COARSE = (0.5, 2.0, 8.0)  # lengths of a step, in units of how far honest updates are from their mean
_REFINED = 9  # trials between those, along the best way
_PAIRS = 4  # of opposite steps, of which the gradient is estimated
_PAIR_LENGTH = 0.3


class PoolResult(NamedTuple):
    """What a search found.

    Attributes:
        upload: (d,).
        damage: how far it pushes the aggregate back against the honest mean, in parameter units; 0 for that mean.
        base: what it starts from: ``"mean"``, or ``"lowest 3"``, the mean of the three rows of lowest projection.
        direction: the way it goes from there: ``"none"``, ``"minus mean"``, ``"minus sign"``, ``"mix"`` or
            ``"gradient"``.
        gamma: how far, in parameter units.
        trials: how often the defense was tried out.

    Example:
        >>> honest = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, -0.5]])
        >>> def mean_with(upload):
        ...     return torch.cat([honest, upload[None]]).mean(dim=0)
        >>> found = adaptive_pool(honest, mean_with, np.random.default_rng(0), num_trials=9)
        >>> found.direction, found.trials, found.damage > 0
        ('minus mean', 9, True)
    """

    upload: Tensor
    damage: float
    base: str
    direction: str
    gamma: float
    trials: int


class _Point(NamedTuple):
    damage: float
    base: str
    direction: str
    gamma: float


def adaptive_pool(
    honest: Tensor,
    aggregate_of: Callable[[Tensor], Tensor],
    generator: np.random.Generator,
    *,
    num_trials: PositiveCount = 65,
) -> PoolResult:
    """Return the upload that does the most damage among bases, ways to leave them, and lengths of the step.

    Bases: the mean of the honest updates, and the means of the 1, h / 4 and h / 2 of them whose projection on it is
    lowest: honest in each respect, and yet pulling back. Directions: minus the mean, minus its signs, the sum of both
    at equal length, and the gradient of the damage, estimated at the best upload so far by pairs of opposite random
    steps among what honest updates differ by. First every base with every direction at three lengths, then lengths
    near the best, then the gradient.

    Args:
        honest: (h, d), h >= 1, floating point, updates that the attackers know. Not modified.
        aggregate_of: maps a (d,) upload of all attackers to the (d,) aggregate that the defense makes of it.
        generator: source of the steps for the gradient; advanced.
        num_trials: how often ``aggregate_of`` is called at most; the first one is the mean, which damage is counted
            from.

    Raises:
        ConfigError: ``honest`` is no floating matrix with a row, or ``num_trials`` < 1.

    Where nothing does damage, the upload is the mean. Needs no data: the damage is the displacement of the aggregate
    along minus the mean.

    Example:
        >>> honest = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, -0.5]])
        >>> found = adaptive_pool(honest, lambda u: torch.cat([honest, u[None]]).median(dim=0).values,
        ...     np.random.default_rng(0))
        >>> found.damage  # all honest values of the first coordinate are equal: the median cannot be moved
        0.0

    Source: ours, after the observation that no single direction is the strongest against every rule. Rows of lowest
    projection are what cosine rules such as FLTrust cannot refuse.
    """
    check_parameters(adaptive_pool, {"num_trials": num_trials}, name="adaptive_pool")
    check_updates(honest, "adaptive_pool")
    mean, _ = moments(honest)
    length = float(mean.norm())
    if length == 0:
        return PoolResult(as_upload(mean, honest), 0.0, "mean", "none", 0.0, 0)
    back = -mean / length
    spread = max(float(row_norms(honest, origin=mean).max()), length)
    search = _Search(honest, aggregate_of, back, num_trials)
    search.start(mean)
    bases, ways = _bases(honest, back), _directions(mean, back)
    search.bases, search.directions = bases, ways
    for base in bases:
        search.tried(base, "none", 0.0)
    for gamma in _COARSE:
        for base in bases:
            for way in ways:
                search.tried(base, way, gamma * spread)
    best = search.best
    if best.gamma > 0:
        low, high = math.log(best.gamma / 8), math.log(best.gamma * 4)
        for share in _van_der_corput(_REFINED):
            search.tried(best.base, best.direction, math.exp(low + share * (high - low)))
    search.follow_gradient(generator, spread)
    return search.result()


class _Search:
    def __init__(self, honest: Tensor, aggregate_of: Callable[[Tensor], Tensor], back: Tensor, num_trials: int):
        self._honest, self._aggregate_of, self._back, self._left = honest, aggregate_of, back, num_trials
        self._trials = 0
        self.bases: dict[str, Tensor] = {}
        self.directions: dict[str, Tensor] = {}

    def start(self, mean: Tensor) -> None:
        self.best = _Point(0.0, "mean", "none", 0.0)
        self._upload = as_upload(mean, self._honest)
        self._zero = 0.0
        self._zero = self._damage(self._upload)

    def _damage(self, upload: Tensor) -> float:
        self._trials += 1
        self._left -= 1
        return float(self._aggregate_of(upload).double() @ self._back) - self._zero

    def tried(self, base: str, direction: str, gamma: float) -> float:
        """Return the damage of a step; minus infinity where there are no trials left."""
        if self._left <= 0:
            return -math.inf
        way = self.directions[direction] if gamma else 0.0
        upload = as_upload(self.bases[base] + gamma * way, self._honest)
        done = self._damage(upload)
        if done > self.best.damage:
            self.best, self._upload = _Point(done, base, direction, gamma), upload
        return done

    def follow_gradient(self, generator: np.random.Generator, spread: float) -> None:
        """Estimate the gradient at the best upload, and go along it as far as it pays."""
        if self._left < 2 * _PAIRS + 1:
            return
        self.bases = {**self.bases, (at := f"{self.best.base}, {self.best.direction}"): self._upload.double()}
        gradient = torch.zeros_like(self._back)
        for _ in range(_PAIRS):
            signs = torch.from_numpy(generator.choice([-1.0, 1.0], size=len(self._honest)))
            step = torch.zeros_like(self._back)
            for columns, block in float64_blocks(self._honest, origin=self.bases["mean"]):
                step[columns] = signs.to(block) @ block
            norm = float(step.norm())
            if norm == 0:
                return
            self.directions = {**self.directions, "pair": step / norm, "opposite": -step / norm}
            ahead, behind = (self.tried(at, way, _PAIR_LENGTH * spread) for way in ("pair", "opposite"))
            gradient += (ahead - behind) * step / norm
        if not (norm := float(gradient.norm())) > 0:
            return
        self.directions["gradient"] = gradient / norm
        lengths = np.geomspace(0.05, 5.0, self._left) if self._left > 1 else [1.0]
        for gamma in lengths:
            self.tried(at, "gradient", float(gamma) * spread)

    def result(self) -> PoolResult:
        point = self.best
        return PoolResult(self._upload, point.damage, point.base, point.direction, point.gamma, self._trials)


def _bases(honest: Tensor, back: Tensor) -> dict[str, Tensor]:
    """Return the points that an upload starts from, (d,) float64 each."""
    order = along(honest, torch.zeros_like(back), back).slopes.argsort()  # minus the projection on back
    h = len(honest)
    sizes = sorted({1, math.ceil(h / 4), math.ceil(h / 2)} - {h})
    lowest = {f"lowest {k}": moments(honest[order[:k]])[0] for k in sizes}
    return {"mean": moments(honest)[0], **lowest}


def _directions(mean: Tensor, back: Tensor) -> dict[str, Tensor]:
    """Return the ways to go from there, (d,) float64 of length 1 each."""
    sign = -mean.sign()
    sign /= sign.norm()
    mix = back + sign
    return {"minus mean": back, "minus sign": sign, "mix": mix / mix.norm()}


def _van_der_corput(count: int) -> list[float]:
    """Return ``count`` numbers of (0, 1) that fill it evenly, however many of them are used."""
    return [sum((i >> bit & 1) / 2 ** (bit + 1) for bit in range(i.bit_length())) for i in range(1, count + 1)]
