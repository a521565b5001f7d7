"""FedNova: how far local steps reach, and what makes updates of different numbers of steps comparable."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Count, NonNegative, check_parameters

__all__ = ["accumulated_steps", "normalising_factors"]

STEPS = "fednova-steps"  # what a client calls the steps that it reports


def accumulated_steps(num_steps: Count, momentum: NonNegative = 0.0, pull: NonNegative = 0.0) -> float:
    """Return |a|_1: how many plain steps of SGD a client's steps are worth.

    It is how far the steps go along a gradient that does not change, in units of the learning rate. Momentum makes
    later steps longer; FedProx's penalty makes them shorter.

    Args:
        num_steps: tau, batches trained on.
        momentum: rho of SGD, less than 1.
        pull: learning rate times FedProx's mu.

    Returns:
        num_steps for plain SGD; 0 for no steps.

    Raises:
        ConfigError: a negative value, or a momentum of 1 and more.

    Example:
        >>> accumulated_steps(3), accumulated_steps(3, momentum=0.5), accumulated_steps(2, pull=0.25)
        (3.0, 4.25, 1.75)

    Source: Wang et al., FedNova, NeurIPS 2020, Sec. 4 and App. C: the L1 norm of a_i.
    """
    settings = {"num_steps": num_steps, "momentum": momentum, "pull": pull}
    check_parameters(accumulated_steps, settings, name="accumulated_steps")
    if momentum >= 1:
        raise ConfigError(f"accumulated_steps needs a momentum less than 1; got {momentum}. 0.9 is common.")
    if not pull:
        return (num_steps - momentum * (1 - momentum**num_steps) / (1 - momentum)) / (1 - momentum)
    gone = velocity = 0.0
    for _ in range(num_steps):
        velocity = momentum * velocity + 1 - pull * gone
        gone += velocity
    return gone


def normalising_factors(steps: Tensor, weights: Tensor | None = None, max_ratio: float = 10.0) -> Tensor:
    """Return what each client's update is multiplied by so that all are of equally many steps, tau_eff.

    Args:
        steps: (n,) tau_i, as clients say; what is NaN, infinite or not positive is no number of steps, and the median
            of the others takes its place. Not modified.
        weights: (n,) p_i, not negative; None: all alike.
        max_ratio: no client counts as more than this many times the median's steps, nor as less than the median's
            divided by it; at least 1.

    Returns:
        (n,) float64: tau_eff / tau_i, where tau_eff is the weighted mean of the tau_i so bounded. Exactly 1 for
        everybody where all took equally many, and where nobody says how many. Each lies between 1 / max_ratio^2 and
        max_ratio^2.

    Raises:
        ConfigError: ``steps`` is no vector, ``weights`` has another length, or max_ratio is less than 1.

    Example:
        >>> normalising_factors(torch.tensor([1.0, 2.0, 3.0]))
        tensor([2.0000, 1.0000, 0.6667], dtype=torch.float64)
        >>> normalising_factors(torch.tensor([2.0, 2.0, 1e9, torch.nan]), max_ratio=4.0)  # 1e9 counts as 8
        tensor([1.7500, 1.7500, 0.4375, 1.7500], dtype=torch.float64)

    Source: Wang et al., FedNova, NeurIPS 2020, Equation 6 with tau_eff = sum_i p_i tau_i. The bound is ours: the paper
    believes what clients say.
    """
    if steps.ndim != 1 or (weights is not None and weights.shape != steps.shape):
        given = None if weights is None else tuple(weights.shape)
        raise ConfigError(
            "normalising_factors needs one number of steps, and one weight, for each client; got shapes "
            f"{tuple(steps.shape)} and {given}."
        )
    if not 1 <= max_ratio < math.inf:
        raise ConfigError(
            f"normalising_factors needs a finite max_ratio of at least 1; got {max_ratio}. 10.0 is usual."
        )
    claimed = steps.double()
    usable = claimed.isfinite() & (claimed > 0)
    if not bool(usable.any()):
        return torch.ones_like(claimed)
    middle = claimed[usable].quantile(0.5)
    bounded = torch.where(usable, claimed, middle).clamp(middle / max_ratio, middle * max_ratio)
    if bool((bounded == bounded[0]).all()):
        return torch.ones_like(claimed)
    shares = torch.ones_like(claimed) if weights is None else weights.double()
    return (shares / shares.sum()) @ bounded / bounded
