"""BadNets: a share of the samples gets a trigger and the attacker's label."""

import numpy as np
from numpy.typing import NDArray

from flsec.parameters import Count, Fraction, check_parameters

__all__ = ["badnets_indices"]


def badnets_indices(num_samples: Count, fraction: Fraction, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return which of a client's samples are poisoned.

    Args:
        num_samples: k, how many samples the client has.
        fraction: share of them to poison: floor(fraction * k) samples, and at least one if ``fraction`` and k are not
            0, so that a malicious client with few samples still attacks.
        generator: source of randomness. From equal generators, a smaller fraction chooses a subset of what a
            larger one chooses.

    Returns:
        (m,) distinct indices into the samples, ascending.

    Raises:
        ConfigError: ``num_samples`` is negative, or ``fraction`` is not in [0, 1].

    Example:
        >>> len(badnets_indices(100, 0.08, np.random.default_rng(0)))
        8

    Source: Gu, Dolan-Gavitt and Garg, "BadNets", 2017: samples drawn at random from all classes. FedInv,
    "Adversary Parameters": 8 % by default, 24 and 40 % elsewhere.
    """
    given = {"num_samples": num_samples, "fraction": fraction}
    check_parameters(badnets_indices, given, name="badnets_indices")
    size = int(fraction * num_samples + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if fraction > 0:
        size = max(size, 1)
    return np.sort(generator.permutation(num_samples)[:size])
