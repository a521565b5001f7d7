"""The deployed defense as attackers who all upload the same try it out."""

from torch import Tensor

from flsec.attacks._collusion import rehearsal_of
from flsec.attacks.cohort_view import CohortView

__all__ = ["DeployedRule"]


class DeployedRule:
    """Measures uploads against what the defense makes of the honest mean.

    Args:
        view: of the round.
        mean: (d,), the honest mean, which is tried first.
        attack: who asks, for the message.

    Raises:
        ConfigError: the attackers have been given nothing to try.
    """

    def __init__(self, view: CohortView, mean: Tensor, attack: str):
        self._rehearse, self._num_attackers = rehearsal_of(view, attack), len(view.own)
        self.trials = 0
        self.accepted = 0
        self._start = self._aggregate(mean)
        self._needed = max(1, self.accepted)

    def displacement(self, upload: Tensor) -> Tensor | None:
        """Return how far (d,) the aggregate is from that of the mean, or None if too few attackers' rows are accepted.

        As many as with the mean, and at least one: all for most defenses, one for Krum, which keeps one row.

        Args:
            upload: (d,), of every attacker.
        """
        aggregate = self._aggregate(upload)
        return aggregate - self._start if self.accepted >= self._needed else None

    def _aggregate(self, upload: Tensor) -> Tensor:
        outcome = self._rehearse(upload.repeat(self._num_attackers, 1))
        self.trials += 1
        self.accepted = int(outcome.accepted.sum())
        return outcome.aggregate.double()
