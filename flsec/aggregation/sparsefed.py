"""SparseFed's step on the server: momentum, error feedback and a global top-k."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.aggregation.top_k import top_k
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, PositiveCount, check_parameters
from flsec.randomness import generator

__all__ = [
    "Coordinates",
    "Momentum",
    "SparseFedState",
    "Variant",
    "choose_k",
    "num_coordinates",
    "sparsefed_init",
    "sparsefed_step",
]

Coordinates = PositiveCount | Annotated[float, Gt(0), Le(1)]  # a number of coordinates, or a share of all of them
Momentum = Annotated[float, Ge(0), Lt(1)]
Variant = Literal["released", "paper_main", "paper_appendix"]


@dataclass(frozen=True)
class SparseFedState:
    """What the server keeps between rounds.

    Attributes:
        momentum: (d,), V of the released program and R of the paper.
        error: (d,), E of the released program and W of the paper: what was not yet sent to the clients.

    Example:
        >>> sparsefed_init(3).error
        tensor([0., 0., 0.])
    """

    momentum: Tensor
    error: Tensor


def sparsefed_init(
    size: PositiveCount, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SparseFedState:
    """Return the state before the first round, zero.

    Args:
        size: d, the number of parameters.
        dtype: of the updates.
        device: of the updates.

    Returns:
        The state, of two (d,) tensors.

    Raises:
        ConfigError: ``size`` is no whole number of at least 1.

    Example:
        >>> sparsefed_init(3)
        SparseFedState(momentum=tensor([0., 0., 0.]), error=tensor([0., 0., 0.]))

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 1.
    """
    check_parameters(sparsefed_init, {"size": size}, name="sparsefed_init")
    zeros = torch.zeros(size, dtype=dtype, device=device)
    return SparseFedState(zeros, zeros.clone())


@torch.no_grad()
def sparsefed_step(
    state: SparseFedState,
    update: Tensor,
    *,
    k: Coordinates,
    momentum: Momentum = 0.9,
    variant: Variant = "released",
) -> tuple[Tensor, SparseFedState]:
    """Return Delta, of which at most k entries are not zero, and the state for the next round.

    The new global model is theta + lambda Delta. The sign is that of Flower's updates, local minus global parameters;
    the printed algorithms subtract, and define the update as local minus global too, so they would climb the loss.

    Three algorithms are in print. With u the mean of the clipped updates and rho the momentum:

    - ``"released"``, the program that made the paper's tables, and the default::

        V = rho V + u
        E = E + V
        Delta = top_k(E)
        E[Delta != 0] = 0        (error feedback)
        V[Delta != 0] = 0        (momentum factor masking)

    - ``"paper_main"``, Algorithm 1. R never reaches Delta: this is error feedback without momentum::

        R = rho R + u            (Momentum)
        W = u + W                (Error feedback)
        Delta = top_k(W)         (Extract top_k)
        W = W - Delta            (Error accumulation)
        R = R - Delta            (Momentum factor masking)

    - ``"paper_appendix"``, Algorithm 5. Momentum goes on for coordinates that were just sent::

        R = rho R + u            (Momentum)
        W = R + W                (Error feedback)
        Delta = top_k(W)         (Extract top_k)
        W = W - Delta            (Error accumulation)

    With k = d, ``"paper_appendix"`` is SGD with momentum and the other two are SGD without any: masking clears the
    whole momentum in every round.

    Args:
        state: of the round before; not modified.
        update: (d,), u, float32 or float64. Not modified. NaN and infinite entries count as 0.
        k: coordinates to change: a number (``1`` is one), or a share of d (``1.0`` is all).
        momentum: rho.
        variant: see above.

    Returns:
        Delta, (d,), a new tensor, and a new state.

    Raises:
        ConfigError: shapes differ, k > d, or a setting is out of its range.

    O(d) time and memory. Deterministic.

    Example:
        >>> state = sparsefed_init(3)
        >>> for _ in range(2):
        ...     delta, state = sparsefed_step(state, torch.tensor([1.0, 0.25, 0.5]), k=1)
        >>> delta, state.error  # the first went in round 1; what the third had to wait for comes with its momentum
        (tensor([0.0000, 0.0000, 1.4500]), tensor([1.0000, 0.7250, 0.0000]))

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 1 and App. B.1.1, Algorithm 5; the released program,
    github.com/sparsefed/sparsefed, mode ``true_topk``.
    """
    settings = {"k": k, "momentum": momentum, "variant": variant}
    check_parameters(sparsefed_step, settings, name="sparsefed_step")
    if update.ndim != 1 or update.shape != state.error.shape:
        raise ConfigError(
            f"sparsefed_step needs an update of the state's shape, {tuple(state.error.shape)}; got "
            f"{tuple(update.shape)}. Start with sparsefed_init(d)."
        )
    u = update.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    velocity = torch.add(u, state.momentum, alpha=momentum)
    error = state.error + (u if variant == "paper_main" else velocity)
    delta = top_k(error, num_coordinates(k, len(error)))
    error.sub_(delta)  # exactly 0 where delta is not: it holds the entries of error bit by bit
    if variant == "released":
        velocity.masked_fill_(delta != 0, 0.0)
    elif variant == "paper_main":
        velocity.sub_(delta)
    return delta, SparseFedState(velocity, error)


def num_coordinates(k: Coordinates, size: PositiveCount) -> int:
    """Return a number of coordinates from a number or a share.

    Args:
        k: an int is a number of coordinates, a float a share of ``size``, rounded to the nearest and at least 1.
        size: d, how many there are.

    Returns:
        An int, from 1 to d.

    Raises:
        ConfigError: k > d.

    Example:
        >>> num_coordinates(5, 7850), num_coordinates(0.1, 7850), num_coordinates(1.0, 7850)
        (5, 785, 7850)

    Source: k of Panda et al., SparseFed, AISTATS 2022, Algorithm 1, which is a number; shares of d are ours.
    """
    if isinstance(k, float):
        return max(1, math.floor(k * size + 0.5))
    if k > size:
        raise ConfigError(f"k must be at most the number of parameters, {size}; got k={k}. A share such as 0.01 fits.")
    return k


def choose_k(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    max_loss: NonNegative,
    batch_size: PositiveCount,
    num_gradients: PositiveCount = 10,
    num_steps: PositiveCount | None = None,
    measure: Literal["fraction", "mass"] = "fraction",
    seed: int = 0,
) -> int:
    """Return the smallest k, on a grid, with which top-k loses little of a minibatch gradient, on one device's data.

    k = d/r, 2d/r, ...: until the l1 mass that top-k drops, averaged over fresh minibatch gradients, is at most
    ``max_loss``. The paper calls this a binary search; what it prints, and what this is, goes up step by step.

    Args:
        model: the network, at the parameters of interest; used in eval mode, not modified.
        x: (n, ...) inputs of the device.
        y: (n,) labels.
        max_loss: omega, the information that may be lost.
        batch_size: samples of one gradient. The server's top-k sees the mean over a round, so take the samples of
            a round (500 in the paper's cross-device runs) where the device has as many.
        num_gradients: minibatch gradients at each k; more give a better estimate.
        num_steps: r, steps from nothing to d; default n / batch_size, the iterations of an epoch, as in the paper.
        measure: ``"fraction"``: lost mass over the gradient's mass, the loss rate of Definition 5, from 0 to 1;
            ``"mass"``: the lost mass itself, as Algorithm 11 prints it, whose scale depends on the model.
        seed: of the minibatches.

    Returns:
        k, between 1 and d, where d counts the parameters that require a gradient.

    Raises:
        ConfigError: no data, x and y of different lengths, or a setting out of its range.

    Example:
        >>> model = nn.Linear(20, 2, bias=False)  # 40 parameters, of which 8 meet an input that is not 0
        >>> x, y = torch.zeros(64, 20), torch.arange(64) % 2
        >>> x[:, 3], x[:, 7], x[:, 8], x[:, 9] = 1.0 + y, 2.0 - y, 1.0 + 2 * y, 3.0 - y
        >>> choose_k(model, x, y, max_loss=1e-6, batch_size=16, num_steps=10)
        8

    Source: Panda et al., SparseFed, AISTATS 2022, App. B.1.5, Algorithm 11; Definition 5 for ``"fraction"``.
    """
    settings = {
        "max_loss": max_loss,
        "batch_size": batch_size,
        "num_gradients": num_gradients,
        "num_steps": num_steps,
        "measure": measure,
        "seed": seed,
    }
    check_parameters(choose_k, settings, name="choose_k")
    if len(x) != len(y) or len(y) == 0:
        raise ConfigError(f"choose_k needs as many labels as inputs, and at least one; got {len(x)} and {len(y)}.")
    gradients = _minibatch_gradients(copy.deepcopy(model).eval(), x, y, batch_size, generator(seed, purpose="choose_k"))
    d = sum(p.numel() for p in model.parameters() if p.requires_grad)
    steps = num_steps or math.ceil(len(y) / batch_size)
    for step in range(1, steps):
        k = math.ceil(step * d / steps)
        lost = sum(_lost(next(gradients), k, measure) for _ in range(num_gradients))
        if lost / num_gradients <= max_loss:
            return k
    return d  # nothing is lost any more


def _minibatch_gradients(
    model: nn.Module, x: Tensor, y: Tensor, batch_size: int, random: torch.Generator
) -> Iterator[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    while True:
        rows = torch.randperm(len(y), generator=random)[:batch_size].to(x.device)
        with torch.enable_grad():
            loss = cross_entropy(model(x[rows]), y[rows])
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        yield torch.cat(
            [
                torch.zeros(p.numel(), device=p.device) if gradient is None else gradient.reshape(-1)
                for p, gradient in zip(parameters, gradients, strict=True)
            ]
        )


def _lost(gradient: Tensor, k: int, measure: str) -> float:
    mass = float(gradient.abs().sum(dtype=torch.float64))
    lost = float((gradient - top_k(gradient, k)).abs().sum(dtype=torch.float64))
    return lost / mass if measure == "fraction" and mass > 0 else lost
