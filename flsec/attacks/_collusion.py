"""What attacks by clients who work together share: moments of rows, directions, and uploads that stay finite."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, float64_blocks
from flsec.attacks.cohort_view import CohortView, Rehearsal
from flsec.errors import ConfigError

__all__ = [
    "Along",
    "Ddof",
    "Perturbation",
    "along",
    "as_upload",
    "check_direction",
    "honest_direction",
    "honest_rows",
    "known_rows",
    "moments",
    "perturbation_vector",
    "rehearsal_of",
]

Perturbation = Literal["unit", "std", "sign"]
Ddof = Literal[0, 1]


def honest_rows(view: CohortView) -> Tensor:
    """Return (h, d), h >= 1: what the attackers know of honest updates; their own in a round that is all theirs."""
    return view.honest if len(view.honest) else view.own


def known_rows(view: CohortView) -> Tensor:
    """Return (k, d), k >= 1: all updates that the attackers know, their own included."""
    return view.own if view.others is None else torch.cat([view.own, view.others])


def rehearsal_of(view: CohortView, attack: str) -> Callable[[Tensor], Rehearsal]:
    """Return what tries the deployed defense out.

    Raises:
        ConfigError: the attackers have been given nothing to try.
    """
    if view.rehearse is None:
        raise ConfigError(
            f"{attack} needs view.rehearse, to try the defense out; got None. The Adversary wrapper gives it."
        )
    return view.rehearse


def honest_direction(view: CohortView) -> Tensor:
    """Return (d,) float64, the signs of the mean of all updates that the attackers know, their own included.

    This is where the model would go without an attack.
    """
    total = len(view.own) * moments(view.own)[0]
    if view.others is not None and len(view.others):
        total += len(view.others) * moments(view.others)[0]
    return total.sign()


def check_direction(rows: Tensor, direction: Tensor, name: str) -> None:
    """Raise ``ConfigError`` unless ``rows`` is a floating (h, d) matrix with h >= 1 and ``direction`` is (d,)."""
    check_updates(rows, name)
    if direction.shape != rows.shape[1:]:
        raise ConfigError(
            f"{name} needs a direction for each of the {rows.shape[1]} coordinates; got shape "
            f"{tuple(direction.shape)}. Use the signs of the mean update."
        )


@torch.no_grad()
def moments(rows: Tensor, ddof: Ddof = 1) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each coordinate, (d,) float64; exact for identical rows.

    Args:
        rows: (h, d), h >= 1. Not modified.
        ddof: the variance divides by h - ddof; with h <= ddof the deviation is 0.
    """
    h, d = rows.shape
    mean, std = torch.zeros(2, d, dtype=torch.float64, device=rows.device)
    for columns, block in float64_blocks(rows, origin=rows[0]):
        offset = block.mean(dim=0)
        mean[columns] = rows[0, columns] + offset
        std[columns] = block.sub_(offset).square_().sum(dim=0)
    return mean, std.div_(h - ddof).sqrt_() if h > ddof else torch.zeros_like(std)


def perturbation_vector(kind: Perturbation, mean: Tensor, std: Tensor) -> Tensor:
    """Return the (d,) float64 direction in which attackers leave the honest mean.

    Args:
        kind: ``"unit"``: -mean / |mean|; ``"std"``: minus the standard deviation; ``"sign"``: -sign(mean).
        mean: (d,) float64.
        std: (d,) float64.
    """
    if kind == "std":
        return -std
    if kind == "sign":
        return -mean.sign()
    norm = mean.norm()
    return -mean / norm if float(norm) > 0 else torch.zeros_like(mean)


class Along(NamedTuple):
    """Squared distances from the rows to mean + gamma p: squares + 2 gamma slopes + gamma^2 curvature."""

    squares: Tensor  # (h,) float64
    slopes: Tensor  # (h,) float64
    curvature: float


@torch.no_grad()
def along(rows: Tensor, mean: Tensor, p: Tensor) -> Along:
    """Return how far each row is from mean + gamma p, as a polynomial in gamma.

    Args:
        rows: (h, d). Not modified.
        mean: (d,) float64.
        p: (d,) float64.
    """
    squares, slopes = torch.zeros(2, len(rows), dtype=torch.float64, device=rows.device)
    for columns, block in float64_blocks(rows, origin=mean):
        slopes -= block @ p[columns]
        squares += block.square_().sum(dim=1)
    return Along(squares, slopes, float(p.square().sum()))


def as_upload(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` in the dtype of ``like``, cut to its finite numbers: a server drops what is infinite."""
    limit = torch.finfo(like.dtype).max
    return values.clamp(-limit, limit).to(like.dtype)
