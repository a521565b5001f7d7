"""A free rider whose noise is as large, weight by weight, as the global model's steps have lately been."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from flsec.attacks._upload import Array, upload
from flsec.parameters import NonNegative, PositiveCount, check_parameters

__all__ = ["adam_free_rider", "moving_squares"]

Decay = Annotated[float, Ge(0), Lt(1)]


def moving_squares(
    squares: Sequence[Array] | None,
    global_params: Sequence[Array],
    previous_params: Sequence[Array],
    *,
    rounds: PositiveCount = 1,
    beta_2: Decay = 0.9,
) -> list[Array]:
    """Return beta_2 v + (1 - beta_2) step^2: Adam's second moment, of the global model's step in one round.

    Args:
        squares: v so far, float64 arrays; None: zero.
        global_params: the model that the client got now. Not modified.
        previous_params: the one that it got before. Not modified.
        rounds: how many rounds ago; the step is their difference over it.
        beta_2: how much of the past stays.

    Returns:
        float64 arrays with the shapes of ``global_params``; zero for those that are not floating.

    Raises:
        ConfigError: the shapes differ, or a parameter is out of its range.

    Example:
        >>> moving_squares(None, [np.array([3.0])], [np.array([1.0])], beta_2=0.75)
        [array([1.])]

    Source: Kingma and Ba, "Adam", ICLR 2015, Algorithm 1.
    """
    check_parameters(moving_squares, {"rounds": rounds, "beta_2": beta_2}, name="moving_squares")
    steps = upload(global_params, previous_params, lambda now, before: (now - np.float64(1) * before) / rounds)
    fresh = [np.square(np.abs(s)).astype(np.float64) if s.dtype.kind in "fc" else np.zeros(s.shape) for s in steps]
    if squares is None:
        return [(1 - beta_2) * new for new in fresh]
    return [beta_2 * old + (1 - beta_2) * new for old, new in zip(squares, fresh, strict=True)]


def adam_free_rider(
    global_params: Sequence[Array],
    local_params: Sequence[Array],
    previous_params: Sequence[Array],
    squares: Sequence[Array],
    generator: np.random.Generator,
    *,
    count: Annotated[int, Gt(0)],
    rounds: PositiveCount = 1,
    beta_2: Decay = 0.9,
    scale: NonNegative = 1.0,
) -> list[Array]:
    """Return w_g + (w_g - w_previous) / rounds + N(0, (scale sqrt(v^))^2), v^ the corrected moving squares.

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: what an honest client would upload, same shapes; only its dtypes and the arrays that are not
            floating are taken. Not modified.
        previous_params: w_previous, the global model that the client got the last time.
        squares: v, see ``moving_squares``; v^ is v / (1 - beta_2^count).
        generator: source of the noise.
        count: how many steps v is made of.
        rounds: how many rounds ago the client got w_previous.
        beta_2: that v was made with.
        scale: of the noise.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``.

    Raises:
        ConfigError: the shapes differ, or a parameter is out of its range.

    Example:
        >>> rng, v = np.random.default_rng(0), [np.array([9.0])]
        >>> adam_free_rider([np.array([4.0])], [np.array([9.0])], [np.array([1.0])], v, rng, count=1, scale=0.0)
        [array([7.])]

    Source: Lin, Du and Liu, "Free-riders in Federated Learning: Attacks and Defenses", 2019, who add noise to the delta
    weights so that an update's spread is that of honest clients; that its size follows Adam's second moment is our
    reading.
    """
    given = {"count": count, "rounds": rounds, "beta_2": beta_2, "scale": scale}
    check_parameters(adam_free_rider, given, name="adam_free_rider")
    guess = upload(global_params, previous_params, lambda w_g, w_p: w_g + (w_g - w_p) / rounds)
    floating = [v for v, w_l in zip(squares, local_params, strict=True) if w_l.dtype.kind in "fc"]
    spreads = iter([scale * np.sqrt(v / (1 - beta_2**count)) for v in floating])
    return upload(guess, local_params, lambda w, w_l: w + generator.standard_normal(w.shape) * next(spreads))
