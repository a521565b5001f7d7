"""CRFL's server step: the new model clipped to a norm, with noise."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Count, NonNegative, Positive, check_parameters
from flsec.randomness import generator

__all__ = ["clip_model", "crfl", "crfl_max_norm"]


def crfl_max_norm(
    round: Count, max_norm: Positive = 15.0, initial_norm: Positive | None = None, norm_growth: NonNegative = 0.0
) -> float:
    """Return rho_t, the bound on the model's norm in one round: min(max_norm, initial_norm + norm_growth * t).

    Args:
        round: t, from 1.
        max_norm: the highest bound.
        initial_norm: what the bound grows from; None: it is ``max_norm`` all the time.
        norm_growth: how much it grows a round.

    Returns:
        rho_t > 0.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> [crfl_max_norm(t, initial_norm=2.0, norm_growth=0.5) for t in (1, 2, 100)]
        [2.5, 3.0, 15.0]

    Source: the released program of CRFL: 2 + 0.1 t for MNIST, 2 + 0.025 t for LOAN, 4 + 0.25 t for EMNIST, at most 15.
    """
    settings = {"round": round, "max_norm": max_norm, "initial_norm": initial_norm, "norm_growth": norm_growth}
    check_parameters(crfl_max_norm, settings, name="crfl_max_norm")
    return max_norm if initial_norm is None else min(max_norm, initial_norm + norm_growth * round)


@torch.no_grad()
def clip_model(parameters: Tensor, max_norm: Positive = 15.0) -> Tensor:
    """Return the parameters, scaled down to an L2 norm of ``max_norm`` where theirs is larger.

    Args:
        parameters: (d,), the model itself, not an update. Not modified.
        max_norm: rho > 0.

    Returns:
        (d,), a new tensor with the dtype and device of ``parameters``. NaN and infinity are left for the caller.

    Raises:
        ConfigError: ``parameters`` is no floating vector, or max_norm is not positive and finite.

    Example:
        >>> clip_model(torch.tensor([3.0, 4.0]), max_norm=1.0)
        tensor([0.6000, 0.8000])

    Source: Xie et al., CRFL, ICML 2021, Algorithm 1 (Clip).
    """
    if parameters.ndim != 1 or not parameters.is_floating_point():
        raise ConfigError(
            "clip_model needs the model's parameters as one floating point vector of shape (d,); got "
            f"{tuple(parameters.shape)} {parameters.dtype}. Flatten and concatenate them."
        )
    if not 0 < max_norm < math.inf:
        raise ConfigError(f"clip_model needs 0 < max_norm < inf; got {max_norm}. 15.0 is a common start.")
    norm = float(torch.linalg.vector_norm(parameters, dtype=torch.float64))
    # NaN and infinity stay: a model that holds them is for the caller to refuse
    return parameters.clone() if norm <= max_norm else (parameters.double() * (max_norm / norm)).to(parameters.dtype)


def crfl(
    parameters: Tensor, max_norm: Positive = 15.0, std: NonNegative = 0.01, seed: int = 0, round: Count = 1
) -> Tensor:
    """Return the new global model of a round: clipped, plus Gaussian noise.

    Args:
        parameters: (d,), the aggregated model, not the update. Not modified.
        max_norm: rho_t > 0, the bound on the model's L2 norm.
        std: sigma_t >= 0, of the noise on each parameter; 0 in a run's last round.
        seed: seed of the run.
        round: the server's round. The noise depends on seed, round and d alone, not on what was drawn before.

    Returns:
        (d,): parameters * min(1, rho_t / |parameters|) + N(0, sigma_t^2), with the dtype and device of ``parameters``.

    Raises:
        ConfigError: ``parameters`` is no floating vector, or a setting is out of range.

    Example:
        >>> crfl(torch.tensor([3.0, 4.0]), max_norm=2.5, std=0.0)
        tensor([1.5000, 2.0000])

    Source: Xie et al., CRFL, ICML 2021, Algorithm 1.
    """
    if not 0 <= std < math.inf:
        raise ConfigError(f"crfl needs 0 <= std < inf; got {std}. 0.01 is a common start.")
    clipped = clip_model(parameters, max_norm)
    # Drawn on the CPU in float64: the same noise on every device and for every dtype.
    noise = torch.randn(len(parameters), generator=generator(seed, round, purpose="crfl"), dtype=torch.float64)
    return clipped.add_((std * noise).to(clipped))
