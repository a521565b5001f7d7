"""RSA: clients keep models of their own, and an l1 penalty ties them to the server's."""

import math

import torch
from torch import Tensor

from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._gram import check_updates
from flsec.aggregation._threads import each_block
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive

__all__ = ["rsa_gradient", "rsa_server_step"]

# What the server calls the settings that it sends.
DELTA = "rsa-delta"
GRADIENT_SCALE = "rsa-gradient-scale"


@torch.no_grad()
def rsa_gradient(
    gradient: Tensor | None, own: Tensor, server: Tensor, delta: NonNegative, gradient_scale: Positive = 1.0
) -> Tensor:
    """Return what a client descends along: its own gradient, and the pull towards the server's model.

    Args:
        gradient: of the client's loss at ``own``; None: zero. Not modified.
        own: the client's parameters before the step, of any shape.
        server: the server's parameters, of the same shape.
        delta: weight of the l1 penalty |own - server|_1.
        gradient_scale: factor of the loss: 1/n in DiverseFL's Equation 6, 1 in Li et al.

    Returns:
        gradient_scale * gradient + delta * sign(own - server), a new tensor of the shape of ``own``.

    Raises:
        ConfigError: shapes that differ.

    Example:
        >>> own, server = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])
        >>> rsa_gradient(torch.ones(3), own, server, delta=0.5)
        tensor([0.5000, 1.0000, 1.5000])

    Source: Li et al., RSA, AAAI 2019, Algorithm 1 with p = 1; DiverseFL, Equation 6.
    """
    if own.shape != server.shape or (gradient is not None and gradient.shape != own.shape):
        given = "None" if gradient is None else tuple(gradient.shape)
        raise ConfigError(
            f"rsa_gradient needs gradient, own and server of one shape; got {given}, {tuple(own.shape)} and "
            f"{tuple(server.shape)}. Give the three of the same parameter."
        )
    pull = (own - server).sign_().mul_(delta)
    return pull if gradient is None else pull.add_(gradient, alpha=gradient_scale)


@torch.no_grad()
def rsa_server_step(
    parameters: Tensor,
    updates: Tensor,
    *,
    learning_rate: Positive,
    delta: NonNegative = 0.2635,
    lambda_: NonNegative = 0.0067,
) -> Tensor:
    """Return how the server's model moves: towards each client's own model by the same step in every coordinate.

    Args:
        parameters: (d,) theta_M, the server's model. Not modified.
        updates: (n, d), row i is client i's own model minus ``parameters``. Not modified.
        learning_rate: mu.
        delta: weight of the l1 penalty.
        lambda_: weight of the server's own regulariser lambda / 2 |theta_M|^2.

    Returns:
        (d,): -mu (lambda theta_M + delta sum_i sign(theta_M - theta_i)), with the dtype of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, ``parameters`` has another length, or a setting is out of range.

    One client moves no coordinate by more than mu delta, whatever it sends; NaN counts as no vote. The step grows with
    the number of clients. O(n d) time, O(d) extra memory.

    Example:
        >>> updates = torch.tensor([[5.0, -1.0], [1e30, 0.0]])
        >>> rsa_server_step(torch.zeros(2), updates, learning_rate=0.1, delta=0.5)
        tensor([ 0.1000, -0.0500])

    Source: Li et al., RSA, AAAI 2019, Algorithm 1 with p = 1; DiverseFL, Equation 7.
    """
    check_updates(updates, "rsa_server_step")
    if parameters.shape != updates.shape[1:]:
        raise ConfigError(
            f"rsa_server_step needs parameters of shape ({updates.shape[1]},), as the updates have; got "
            f"{tuple(parameters.shape)}."
        )
    settings = {"learning_rate": learning_rate, "delta": delta, "lambda_": lambda_}
    if not all(0 <= value < math.inf for value in settings.values()) or learning_rate == 0:
        raise ConfigError(f"rsa_server_step needs learning_rate > 0, delta >= 0 and lambda_ >= 0; got {settings}.")
    votes = torch.empty(updates.shape[1], dtype=torch.float64, device=updates.device)
    source, device = where_blocks_are(updates)

    def count(columns: slice) -> float:
        signs = source[:, columns].to(device).sign().nan_to_num_(nan=0.0)
        votes[columns] = signs.sum(dim=0, dtype=torch.float64).to(votes.device)
        return 0.0

    each_block(count, updates.shape[0], updates.shape[1], device)
    return (learning_rate * (delta * votes - lambda_ * parameters.to(votes))).to(updates.dtype)
