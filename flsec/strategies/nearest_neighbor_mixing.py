"""Nearest-neighbour mixing as a Flower strategy."""

from typing import Any

from flsec.aggregation.nearest_neighbor_mixing import mixing_weights
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["NearestNeighborMixing"]


class NearestNeighborMixing(RobustStrategy):
    """Replace each update by the mean of its n - f nearest ones, itself included, for the rule inside.

    Args:
        strategy: the rule that goes over the mixed updates, such as ``Krum(...)`` or ``Median(...)``.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies; give the rule inside the same.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). Not a defense by itself: around a strategy that averages, a hostile client's own
    mixed row still counts. Needs n >= 2 f + 1 usable replies a round. With Krum, Multi-Krum or Bulyan inside, distances
    of the mixed updates follow from those of the updates: two passes over the round's replies in all. O(n^2 d) time;
    O(n d) memory for the mixed updates beside the replies.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import Median
        >>> strategy = NearestNeighborMixing(Median(FedAvg()), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])

    Source: Allouah et al., "Fixing by Mixing", AISTATS 2023 (NNM).
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    @property
    def judges_clients(self) -> bool:
        """Mixing is no verdict on a client."""
        return False

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Mix the rows."""
        return cohort.with_means(mixing_weights(cohort.squared_distances(), self.faults(cohort)))
