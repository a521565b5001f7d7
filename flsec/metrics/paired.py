"""What only two runs with the same seed can tell: what an attack costs, and what a defense costs."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.state_arrays import is_state_name

__all__ = ["cost_of_defense", "damage", "l1_distance"]

Weights = Mapping[str, npt.NDArray[np.generic]]


@explained
def damage(accuracy: float, attack_free: float) -> float:
    """Return the accuracy that an attack has taken; for a backdoor, whose goal is another, how far it shows.

    Args:
        accuracy: of the attacked run, in [0, 1].
        attack_free: of its twin without attackers: same seed, same defense.

    Example:
        >>> damage(0.25, attack_free=0.75)
        0.5
    """
    return attack_free - accuracy


@explained
def cost_of_defense(accuracy: float, undefended: float) -> float:
    """Return the accuracy that a defense costs where nobody attacks.

    Args:
        accuracy: of the defended run without attackers, in [0, 1].
        undefended: of its twin without the defense: same seed, no attackers either.

    Example:
        >>> cost_of_defense(0.5, undefended=0.75)
        0.25
    """
    return undefended - accuracy


@explained
def l1_distance(weights: Weights, others: Weights) -> float:
    """Return the L1 distance of two models, summed in float64 over their floating arrays.

    Args:
        weights: {name: array} of one model, such as a run's ``model.safetensors``.
        others: of the other, with the same names and shapes; often the attack-free twin's.

    Raises:
        ConfigError: other names or shapes.

    Example:
        >>> l1_distance({"w": np.array([1.0, 2.0])}, {"w": np.array([0.5, 3.0])})
        1.5

    Source: SparseFed, Sec. 3.3, the quantity that its certified radius bounds.
    """
    shapes = [{name: array.shape for name, array in model.items()} for model in (weights, others)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f"l1_distance needs two models of the same arrays; got {shapes[0]} and {shapes[1]}.")
    return float(
        sum(
            np.abs(array.astype(np.float64) - others[name].astype(np.float64)).sum()
            for name, array in weights.items()
            if array.dtype.kind == "f" and not is_state_name(name)
        )
    )
