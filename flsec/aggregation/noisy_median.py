"""The noisy median's client half: noise on what is uploaded, so that a median of different clients is a mean."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flsec._numbers import floats_of, in_dtype, is_weight
from flsec.errors import ConfigError
from flsec.parameters import NonNegative

__all__ = ["noisy_upload"]

STD = "noisy-median-std"  # what the server calls the setting that it sends


def noisy_upload(
    parameters: Sequence[NDArray[Any]], std: NonNegative, generator: torch.Generator, state: Collection[int] = ()
) -> list[NDArray[Any]]:
    """Return the arrays with independent Gaussian noise on every weight.

    The server then takes ``flsec.aggregation.median``. On heterogeneous clients the plain median sticks to the values
    of whoever is in the middle; with noise that is larger than the clients differ, it is close to their mean.

    Args:
        parameters: the arrays that the client would upload. Not modified.
        std: sigma >= 0, in parameter units.
        generator: of the noise, a torch generator on the CPU; advanced.
        state: positions of floating arrays that are no weights, such as BatchNorm's: noise can make a variance
            negative.

    Returns:
        Arrays of the same shapes and dtypes; those that hold no weights as they are.

    Raises:
        ConfigError: std is negative or not finite.

    Example:
        >>> noisy_upload([np.ones(2), np.array(3)], 0.0, torch.Generator())
        [array([1., 1.]), array(3)]

    Source: X. Chen et al., "Distributed Training with Heterogeneous Data: Bridging Median- and Mean-Based Algorithms",
    2019; DiverseFL, Sec. II-C ("Noisy Median").
    """
    if not 0 <= std < math.inf:
        raise ConfigError(f"noisy_upload needs 0 <= std < inf; got {std}.")
    return [
        np.asarray(array) if place in state else _noisy(np.asarray(array), std, generator)
        for place, array in enumerate(parameters)
    ]


def _noisy(array: NDArray[Any], std: float, generator: torch.Generator) -> NDArray[Any]:
    if not is_weight(array.dtype):
        return array
    floats = floats_of(array)
    noise = torch.randn(floats.shape, generator=generator, dtype=torch.float64).numpy()
    return in_dtype(floats + std * noise, array.shape, array.dtype)
