"""AlignIns: rows are judged by how they lie to the model, and by the signs of their largest entries."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._alignment import alignment
from flsec.aggregation._device import device_of_blocks
from flsec.aggregation._filters import (
    Filtered,
    clipping_factors,
    magnitude_of_rank,
    median_norm,
    median_z_scores,
    on_finite_rows,
)
from flsec.aggregation._gram import check_updates, float64_blocks
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, Positive

__all__ = ["align_ins"]


class Alignment(NamedTuple):
    """How n rows are aligned, and what follows."""

    filtered: Filtered  # its scores are the larger of the two z-scores
    directions: Tensor  # (n,) float64: cosines with the model
    signs: Tensor  # (n,) float64: shares of the largest entries that have the principal sign


@torch.no_grad()
def align_ins(
    updates: Tensor,
    model: Tensor,
    direction_radius: Positive = 1.0,
    sign_radius: Positive = 1.0,
    share: OpenFraction = 0.3,
    bound: Literal["smaller", "kept"] = "smaller",
) -> Tensor:
    """Return the mean of the rows whose alignment is usual by two measures, each clipped to their median norm.

    The first measure is the cosine of the row and the model (temporal direction alignment). For the second, the
    principal sign of a coordinate is the sign of the sum of the rows' signs; it is the share of a row's largest
    entries, in magnitude, whose sign is the principal one (masked principal sign alignment). A row is kept if in both
    its distance from the median is at most so many standard deviations.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        model: (d,), the global parameters. Where they are zero, as before the first round, the signs decide alone.
        direction_radius: lambda_c > 0, the largest distance of the first measure, in standard deviations.
        sign_radius: lambda_s > 0, the same of the second.
        share: of a row's entries that count as its largest, rounded down, one at least. Where entries are equally
            large, those at the end of the list share the places that are left.
        bound: S, to which rows are clipped. ``"kept"``: the median norm of the rows kept, as the paper has it, which
            hostile rows set if they are half of those. ``"smaller"``: that, or the median norm of all rows
            where it is smaller.

    Returns:
        (d,): mean over the rows kept of u_i min(1, S / |u_i|), with the dtype and device of ``updates``; zero where no
        row is kept.

    Raises:
        ConfigError: ``updates`` is no floating matrix, ``model`` has another size, or a setting is out of range.

    Invariant to row order; equivariant to a positive scale; not to shift. Rows that hold NaN or infinity count as
    absent. Where a measure is the same for all rows, all are kept by it, as are fewer than 3. By the smaller bound the
    result is never longer than the median norm, so that a minority, even if it passes, moves it by twice that. O(n d)
    time; O(d) memory.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0], [4.0, 3.0], [3.0, 4.0], [-30.0, -1.0]])
        >>> align_ins(rows, model=torch.ones(2))
        tensor([3.3333, 3.6667])

    Source: Xu, Zhang and Hu, "Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection",
        CVPR 2025, and the authors' program. There measures that do not vary are divided by zero, and drop everybody.
    """
    check_updates(updates, "align_ins")
    _check(updates, model, direction_radius, sign_radius, share, bound)
    return align_ins_filter(updates, model, direction_radius, sign_radius, share, bound).filtered.mean(updates)


def _check(
    updates: Tensor, model: Tensor, direction_radius: float, sign_radius: float, share: float, bound: str
) -> None:
    if not isinstance(model, Tensor) or model.shape != updates.shape[1:]:
        got = tuple(model.shape) if isinstance(model, Tensor) else type(model).__name__
        raise ConfigError(f"align_ins needs model, the global parameters, of shape ({updates.shape[1]},); got {got}.")
    if not (0 < direction_radius < math.inf and 0 < sign_radius < math.inf and 0 < share < 1):
        raise ConfigError(
            "align_ins needs 0 < direction_radius < inf, 0 < sign_radius < inf and 0 < share < 1; got "
            f"direction_radius={direction_radius}, sign_radius={sign_radius}, share={share}. Try 1.0, 1.0 and 0.3."
        )
    if bound not in ("smaller", "kept"):
        raise ConfigError(f"align_ins needs bound 'smaller' or 'kept'; got {bound!r}.")


def align_ins_filter(
    updates: Tensor, model: Tensor, direction_radius: float, sign_radius: float, share: float, bound: str
) -> Alignment:
    """Return who is kept, and both measures."""
    products, norms, model_norm = alignment(updates, model)
    finite = norms.isfinite()
    directions = torch.where(norms * model_norm > 0, products / (norms * model_norm), 0)[finite]
    signs = _sign_alignment(updates, finite.nonzero().flatten(), share)
    z_scores = torch.stack([median_z_scores(directions), median_z_scores(signs)])
    radii = torch.tensor([[direction_radius], [sign_radius]], dtype=torch.float64).to(z_scores.device)
    kept = on_finite_rows(finite, (z_scores <= radii).all(dim=0))
    max_norm = median_norm(norms[kept])
    max_norm = max_norm if bound == "kept" else min(max_norm, median_norm(norms))
    scores = on_finite_rows(finite, z_scores.amax(dim=0) if len(directions) else directions)
    filtered = Filtered(kept, clipping_factors(norms, max_norm), scores, norms, max_norm)
    return Alignment(filtered, on_finite_rows(finite, directions), on_finite_rows(finite, signs))


def _sign_alignment(updates: Tensor, rows: Tensor, share: float) -> Tensor:
    """Return the (m,) shares of the rows' largest entries that have the principal sign."""
    d = updates.shape[1]
    principal = torch.zeros(d, dtype=updates.dtype, device=updates.device)
    for columns, block in float64_blocks(updates, rows, device=device_of_blocks(updates)):
        principal[columns] = block.sign_().sum(dim=0).sign_().to(principal)
    count = max(1, math.floor(share * d))
    shares = [_share_of_largest(updates[row], principal, count) for row in rows.cpu().tolist()]
    return torch.tensor(shares, dtype=torch.float64).to(updates.device)


def _share_of_largest(row: Tensor, principal: Tensor, count: int) -> float:
    """Return which share of the ``count`` largest entries has the principal sign."""
    magnitudes, least = row.abs(), magnitude_of_rank(row, count)
    agrees, above, tied = row.sign() == principal, magnitudes > least, magnitudes == least
    places_left = count - int(above.sum())
    return (int((agrees & above).sum()) + places_left * int((agrees & tied).sum()) / int(tied.sum())) / count
