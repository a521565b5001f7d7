"""FL-WBC's perturbation: noise where the loss is flat, and an attack's effect would stay."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import NonNegative

__all__ = ["wbc_perturbation"]

SCALE = "flwbc-scale"  # what the server calls the setting that it sends


@torch.no_grad()
def wbc_perturbation(gradient: Tensor, previous: Tensor, scale: NonNegative, generator: torch.Generator) -> Tensor:
    """Return Laplace noise where it is at least as large as the gradient's change over one step, and 0 elsewhere.

    The change of the gradient estimates the diagonal of the Hessian, up to the length of the step. What an attack did
    to the model fades in a client's training by the factor I - learning rate * Hessian: hardly at all where the
    Hessian's entry is small. The threshold is the noise itself, drawn anew for each entry.

    Args:
        gradient: of this step, of any shape. Not modified.
        previous: of the step before, of the same shape. Not modified.
        scale: b >= 0 of the Laplace distribution; its standard deviation is sqrt(2) b.
        generator: of the noise, on the CPU; advanced.

    Returns:
        The perturbation, to be added to the parameters times the learning rate; with the shape and dtype of
        ``gradient``.

    Raises:
        ConfigError: shapes that differ, or a scale that is negative or not finite.

    Example:
        >>> gradient, noise = torch.tensor([1.0, 1.0, 1.0]), torch.Generator().manual_seed(0)
        >>> wbc_perturbation(gradient, torch.tensor([1.0, 1.0, 9.0]), scale=0.5, generator=noise)
        tensor([0.4866, 0.0973, 0.0000])

    Source: Sun et al., FL-WBC, NeurIPS 2021, Sec. 4.2 and Algorithm 1; the released program draws with b = s.
    """
    if gradient.shape != previous.shape or not 0 <= scale < math.inf:
        raise ConfigError(
            "wbc_perturbation needs gradients of one shape and 0 <= scale < inf; got "
            f"{tuple(gradient.shape)}, {tuple(previous.shape)} and scale={scale}."
        )
    # Drawn on the CPU in float64: the same noise on every device and for every dtype.
    first, second = torch.empty(2, *gradient.shape, dtype=torch.float64).exponential_(generator=generator)
    noise = (scale * (first - second)).to(gradient)  # a difference of exponentials is Laplace, and never infinite
    return torch.where((gradient - previous).abs() <= noise.abs(), noise, 0.0)
