"""A pool of guesses tried out on the deployed defense, by colluding clients."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import row_norms
from flsec.attacks._collusion import as_upload, honest_rows, moments, rehearsal_of
from flsec.attacks.adaptive_pool import adaptive_pool
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.parameters import NonNegative, PositiveCount

__all__ = ["AdaptivePool"]


class AdaptivePool(CohortAttack):
    """All attackers upload what, of a pool of guesses, pushes the deployed defense's aggregate farthest back.

    Tried are steps of several lengths, back along the mean, against its signs, along both, and along an estimated
    gradient, from the mean of the honest updates and from means of those among them that pull back the most; see
    ``flsec.attacks.adaptive_pool``.

    Args:
        num_trials: how often the defense is tried out in a round, at most.
        jitter: each attacker adds noise of this length, in units of the mean distance of honest updates from their
            mean, so that uploads differ; tried out with it. 0: all upload the same.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the honest updates are the others'; ``"colluders"``: the
            attackers' own. The attackers know the defense with its parameters, its memory and, through what it returns,
            everybody's updates. They need no data.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. It asks for damage to the aggregate alone,
    not for being accepted: where a defense drops all attackers, nothing does damage, and they upload the mean. A
    defense that draws random numbers is tried with those that it is going to draw. Noted: base, direction, gamma,
    damage and trials.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import Adversaries
        >>> from flsec.strategies import Adversary, Median
        >>> from flsec.testing import play_rounds
        >>> attack = AdaptivePool(adversaries=Adversaries(num_clients=6, ids=[4, 5]))
        >>> strategy = Adversary(Median(FedAvg()), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [4.0], [2.0], [3.0]]).round(decimals=2)  # else 2.5
        tensor([1.5000])

    Source: ours; see ``flsec.attacks.adaptive_pool``.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(self, *, num_trials: PositiveCount = 65, jitter: NonNegative = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.num_trials = num_trials
        self.jitter = jitter

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m rows at, or next to, the strongest guess."""
        rehearse, honest = rehearsal_of(view, type(self).__name__), honest_rows(view)
        noise = self._noise(view, honest)

        def rows(upload: Tensor) -> Tensor:
            return as_upload(upload.double() + noise, view.own)

        found = adaptive_pool(
            honest,
            lambda upload: rehearse(rows(upload)).aggregate,
            view.generator("adaptive_pool"),
            num_trials=self.num_trials,
        )
        view.notes.update(found._asdict())
        del view.notes["upload"]
        return rows(found.upload)

    def _noise(self, view: CohortView, honest: Tensor) -> Tensor:
        """Return (m, d) float64, one row of the wanted length for each attacker."""
        m, d = view.own.shape
        if not self.jitter:
            return torch.zeros(m, 1, dtype=torch.float64, device=view.own.device)
        mean, _ = moments(honest)
        spread = float(row_norms(honest, origin=mean).mean())
        drawn = view.generator("adaptive_pool jitter").standard_normal((m, d))
        noise: Tensor = torch.from_numpy(drawn).to(view.own.device)
        noise *= self.jitter * spread / noise.norm(dim=1, keepdim=True)
        return noise
