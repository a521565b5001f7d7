"""Which clients a round asks."""

import functools
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from flsec.attacks.adversaries import Adversaries
from flsec.randomness import numpy_generator
from flsec.simulations.schema import Config

__all__ = ["Sampling"]


class Sampling:
    """The clients of each round, by the run's seed alone.

    Args:
        config: the experiment.
        adversaries: who attacks, where the file says how many of them a round meets.
    """

    def __init__(self, config: Config, adversaries: Adversaries | None):
        self._config = config
        self._adversaries = adversaries

    @functools.cached_property
    def _order(self) -> NDArray[np.int64]:
        """The order in which clients are asked, where each is asked at most once."""
        rng = numpy_generator(self._config.seed, purpose="sampling")
        return rng.permutation(self._config.simulation.num_clients)

    def draw(self, round_: int, excluded: Collection[int]) -> list[int]:
        """Return the partition ids of this round's clients, ascending; others take the places of those excluded."""
        simulation, adversaries = self._config.simulation, self._adversaries
        if simulation.sampling == "without_replacement":
            start = (round_ - 1) * simulation.cohort_size
            return sorted(set(self._order[start : start + simulation.cohort_size].tolist()) - set(excluded))
        rng = numpy_generator(self._config.seed, round_, purpose="sampling")
        others = sorted(set(range(simulation.num_clients)) - set(excluded))
        if simulation.adversaries_per_round is None or adversaries is None:
            drawn = min(simulation.cohort_size, len(others))
            return sorted(int(i) for i in rng.choice(others, drawn, replace=False)) if drawn else []
        hostile = sorted(adversaries.active(round_) - set(excluded))
        honest = sorted(set(others) - set(hostile))
        wanted = min(simulation.adversaries_per_round, len(hostile))  # all of them, in rounds in which few are active
        chosen = [*rng.choice(hostile, wanted, replace=False)] if wanted else []
        chosen += [*rng.choice(honest, min(simulation.cohort_size - wanted, len(honest)), replace=False)]
        return sorted(int(i) for i in chosen)
