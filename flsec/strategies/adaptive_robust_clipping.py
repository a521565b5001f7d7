"""Adaptive robust clipping as a Flower strategy."""

from typing import Any

from flsec.aggregation._gram import row_norms
from flsec.aggregation.adaptive_robust_clipping import robust_bound
from flsec.aggregation.norm_clipping import shortened_rows
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["AdaptiveRobustClipping"]


class AdaptiveRobustClipping(RobustStrategy):
    """Scale the k = floor(2 (f / n) (n - f)) longest updates down to the length of the next one; keep everybody.

    Args:
        strategy: the rule that goes over the clipped updates, such as ``Krum(...)`` or ``Median(...)``.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies; give the rule inside the same.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). Not a defense by itself: it bounds how long hostile updates are, not where they
    point. Needs n >= 2 f + 1 usable replies a round. The note ``max_norm`` says the round's bound, ``clipped`` how many
    updates were longer. O(n d) time and memory, nothing kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import TrimmedMean
        >>> strategy = AdaptiveRobustClipping(TrimmedMean(FedAvg(), num_trimmed=1), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.5000])
        >>> strategy.last_report.verdicts[0].notes
        {'max_norm': 3.0, 'clipped': 1}

    Source: Allouah et al., "Adaptive Gradient Clipping for Robust Federated Learning", ICLR 2025 (ARC).
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    @property
    def judges_clients(self) -> bool:
        """Clipping is no verdict on a client."""
        return False

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Clip the rows; a cohort in which nobody exceeds the bound is handed on as it is."""
        norms = row_norms(cohort.updates)
        bound = robust_bound(norms, self.faults(cohort))
        clipped = int((norms > bound).sum())
        self.report(scores=norms, max_norm=bound, clipped=clipped)
        return cohort.with_updates(shortened_rows(cohort.updates, norms, bound)) if clipped else cohort
