"""How far attackers who can try the defense out best go in one direction."""

import math
from collections.abc import Callable
from typing import NamedTuple

from flsec.parameters import Positive, PositiveCount, check_parameters

__all__ = ["LineSearch", "line_search"]

_DECADES = 2.0  # the grid goes from 1 / 100 to 100 times the scale
_GOLDEN = (math.sqrt(5) - 1) / 2


class LineSearch(NamedTuple):
    """What a search found.

    Attributes:
        gamma: how far to go; 0 if nothing is better than staying.
        damage: what that does.

    Example:
        >>> line_search(lambda gamma: -gamma, scale=1.0)  # nothing is better than staying
        LineSearch(gamma=0.0, damage=0.0)
    """

    gamma: float
    damage: float


def line_search(damage: Callable[[float], float], *, scale: Positive, num_trials: PositiveCount = 20) -> LineSearch:
    """Return the gamma > 0 that does the largest positive damage among those tried; 0 if none does any.

    Half of the trials go to a geometric grid from scale / 100 to 100 scale, the rest to a golden-section search between
    the neighbours of the best point, on the logarithm of gamma; in the two decades below the grid where nothing on it
    does damage.

    Args:
        damage: maps gamma to the damage; -inf where it must not be. Should rise, then fall.
        scale: the gamma where something is expected.
        num_trials: how often ``damage`` is called, exactly.

    Raises:
        ConfigError: a setting out of its range.

    Example:
        >>> found = line_search(lambda gamma: gamma if gamma <= 3.0 else -math.inf, scale=1.0, num_trials=30)
        >>> round(found.gamma, 2)
        3.0

    Source: the grid and golden-section search are standard; the idea of tuning an attack on the deployed rule is
    Shejwalkar and Houmansadr's, NDSS 2021, Sec. IV.
    """
    check_parameters(line_search, {"scale": scale, "num_trials": num_trials}, name="line_search")
    found = LineSearch(0.0, 0.0)

    def tried(exponent: float) -> float:
        nonlocal found
        gamma = scale * 10**exponent
        done = damage(gamma)
        if done > found.damage:
            found = LineSearch(gamma, done)
        return done

    points = (num_trials + 1) // 2
    step = 2 * _DECADES / max(1, points - 1)
    grid = [-_DECADES + step * i for i in range(points)] if points > 1 else [0.0]
    values = [tried(exponent) for exponent in grid]
    best = max(range(points), key=values.__getitem__)
    if values[best] > 0:
        low, high = grid[best] - step, min(grid[best] + step, _DECADES)
    else:
        low, high = -2 * _DECADES, -_DECADES
    _golden_section(tried, low, high, num_trials - points)
    return found


def _golden_section(value: Callable[[float], float], low: float, high: float, num_trials: int) -> None:
    """Close in on the largest value between ``low`` and ``high``; of equal values, on the lower place."""
    left: tuple[float, float] | None = None
    right: tuple[float, float] | None = None
    for _ in range(num_trials):
        width = _GOLDEN * (high - low)
        if left is None:
            left = (high - width, value(high - width))
        elif right is None:
            right = (low + width, value(low + width))
        if left is None or right is None:
            continue
        if left[1] >= right[1]:
            high, left, right = right[0], None, left
        else:
            low, left, right = left[0], right, None
