"""SCAFFOLD: the server's control variate, from the update that a round came to."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Fraction, Positive

__all__ = ["scaffold_control"]

# What the server calls the settings that it sends.
CONTROL = "scaffold-control"
STEPS = "scaffold-steps"
RATE = "scaffold-learning-rate"


@torch.no_grad()
def scaffold_control(
    control: Tensor, update: Tensor, *, num_steps: int, learning_rate: Positive, share: Fraction
) -> Tensor:
    """Return the server's new control variate, which estimates the gradient of all clients together.

    A client's variate becomes the mean gradient of its own steps (option II). That is a function of its update and of
    what the server has sent: c_i+ - c_i = -c - update / (num_steps * learning_rate). So the server needs the update
    alone, and a robust aggregate of updates gives a robust c.

    Args:
        control: (d,) c, as it was sent to the clients of this round. Not modified.
        update: (d,) the mean, or the robust aggregate, of the clients' local minus global parameters. Not modified.
        num_steps: K, each client's steps in the round.
        learning_rate: of these steps.
        share: |S| / N, the part of all clients that took part in the round.

    Returns:
        (d,) c + share * (-c - update / (num_steps * learning_rate)), with the dtype of ``control``.

    Raises:
        ConfigError: shapes that differ, or a setting out of its range.

    Example:
        >>> scaffold_control(torch.zeros(2), torch.tensor([0.5, -1.0]), num_steps=5, learning_rate=0.1, share=0.5)
        tensor([-0.5000,  1.0000])

    Source: Karimireddy et al., SCAFFOLD, ICML 2020, Algorithm 1, lines 12 (option II), 14 and 17.
    """
    if control.ndim != 1 or control.shape != update.shape:
        raise ConfigError(
            "scaffold_control needs control and update of one shape (d,); got "
            f"{tuple(control.shape)} and {tuple(update.shape)}."
        )
    if num_steps < 1 or not 0 < learning_rate < math.inf or not 0 <= share <= 1:
        raise ConfigError(
            "scaffold_control needs num_steps >= 1, learning_rate > 0 and a share from 0 to 1; got "
            f"{num_steps}, {learning_rate} and {share}."
        )
    gradient = update.double() / (-num_steps * learning_rate)
    return control.double().lerp(gradient, share).to(control.dtype)
