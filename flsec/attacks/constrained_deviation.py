"""The most hostile update that a rule which looks at angle and length still takes for honest."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import NonNegative, check_parameters

__all__ = ["half_angle_cosine", "most_hostile"]

Cosine = Annotated[float, Ge(-1), Le(1)]


def most_hostile(
    reference: Tensor, hostile: Tensor, *, min_cosine: Cosine, min_norm: NonNegative, max_norm: NonNegative
) -> Tensor:
    """Return the vector v with the largest inner product with ``hostile`` among those that pass for ``reference``.

    Those are all with cos(v, reference) >= c and a <= |v| <= b. The direction is that of ``hostile`` where it passes,
    else the one at the angle arccos(c) from the reference in the plane of both; the length is b where the inner product
    is positive, else a.

    Args:
        reference: (d,) float64, what the rule compares with, as far as the attacker knows. Not modified.
        hostile: (d,) float64, where the attacker wants to go. Not modified.
        min_cosine: c.
        min_norm: a.
        max_norm: b.

    Returns:
        (d,) float64. Zero where the reference is, or where there is nothing hostile about ``hostile``. Where it is
        parallel to the reference, so that there is no plane, it is the plane of the reference's smallest coordinate.

    Raises:
        ConfigError: a > b, or a setting out of its range.

    Example:
        >>> north, west = torch.tensor([0.0, 1.0]).double(), torch.tensor([-1.0, -1.0]).double()
        >>> most_hostile(north, west, min_cosine=0.6, min_norm=1.0, max_norm=5.0)
        tensor([-4.,  3.], dtype=torch.float64)

    Source: ours; elementary.
    """
    min_cosine = min(1.0, min_cosine) if min_cosine < 1 + 1e-9 else min_cosine  # the cosine of a vector with itself
    given = {"min_cosine": min_cosine, "min_norm": min_norm, "max_norm": max_norm}
    check_parameters(most_hostile, given, name="most_hostile")
    if min_norm > max_norm:
        raise ConfigError(f"most_hostile needs min_norm <= max_norm; got {min_norm} and {max_norm}.")
    lengths = float(reference.norm()), float(hostile.norm())
    if not min(lengths) > 0:
        return torch.zeros_like(reference)
    straight, wanted = reference / lengths[0], hostile / lengths[1]
    cosine = float(straight @ wanted)
    direction = wanted
    if cosine < min_cosine:
        aside = wanted - cosine * straight
        if float(aside.norm()) < 1e-9:
            aside = torch.zeros_like(straight)
            aside[straight.abs().argmin()] = 1.0
            aside -= float(aside @ straight) * straight
        length = float(aside.norm())
        # one dimension has no aside: then the reference's own direction is all that passes
        direction = (
            min_cosine * straight + math.sqrt(1 - min_cosine**2) * aside / length if length > 1e-12 else straight
        )
    return direction * (max_norm if float(direction @ wanted) > 0 else min_norm)


def half_angle_cosine(reference: Tensor, hostile: Tensor) -> float:
    """Return the cosine to the reference at which a rule that weighs updates by that cosine is moved farthest.

    At the angle phi from the reference an update of fixed length counts cos(phi), and goes cos(theta - phi) of its way
    towards ``hostile``, which is theta away; the product is largest at theta / 2.

    Args:
        reference: (d,) float64.
        hostile: (d,) float64.

    Example:
        >>> right, up = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
        >>> round(half_angle_cosine(right, up), 4)  # of 45 degrees
        0.7071

    Source: ours, for FLTrust's trust score ReLU(cos); Cao et al., NDSS 2021.
    """
    lengths = float(reference.norm() * hostile.norm())
    cosine = float(reference @ hostile) / lengths if lengths > 0 else 1.0
    return math.sqrt(min(1.0, max(0.0, (1 + cosine) / 2)))
