"""A Little Is Enough with the z that is best against the deployed defense, by colluding clients."""

import math
from typing import Any, ClassVar

from torch import Tensor

from flsec.attacks._collusion import Ddof, honest_rows
from flsec.attacks.adaptive_line_search import line_search
from flsec.attacks.alie import alie
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._deployed_rule import DeployedRule
from flsec.parameters import PositiveCount

__all__ = ["OptimisedALIE"]


class OptimisedALIE(CohortAttack):
    """All attackers upload mean - z std, with the z that moves the deployed defense's aggregate farthest.

    Args:
        num_trials: how often the defense is tried out in a round, besides once with the honest mean; z from 0.01 to
            100.
        ddof: the variance divides by the number of known updates less this.
        options: see ``Attack``, and ``knowledge``: ``"all"``: mean and deviation are those of the others' updates;
            ``"colluders"``: of the attackers' own honest ones.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. Damage is the distance of the aggregate
    from what it would be if the attackers uploaded the mean, in any direction; only those z count with which the
    defense accepts as many of the attackers' rows as then. Noted: z and damage.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import Adversaries
        >>> from flsec.strategies import Adversary, Median
        >>> from flsec.testing import play_rounds
        >>> attack = OptimisedALIE(adversaries=Adversaries(num_clients=6, ids=[4, 5]))
        >>> strategy = Adversary(Median(FedAvg()), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [4.0], [2.0], [3.0]]).round(decimals=2)  # else 2.5
        tensor([1.5000])

    Source: Baruch et al., "A Little Is Enough", NeurIPS 2019, Algorithm 3, for the upload; that the factor is optimised
    against the rule is after Shejwalkar and Houmansadr, NDSS 2021.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(self, *, num_trials: PositiveCount = 20, ddof: Ddof = 1, **options: Any) -> None:
        super().__init__(**options)
        self.num_trials = num_trials
        self.ddof: Ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of mean - z std."""
        honest = honest_rows(view)

        def upload(z: float) -> Tensor:
            return alie(honest, z=z, ddof=self.ddof)

        rule = DeployedRule(view, upload(0.0), type(self).__name__)

        def damage(z: float) -> float:
            moved = rule.displacement(upload(z))
            return -math.inf if moved is None else float(moved.norm())

        z, done = line_search(damage, scale=1.0, num_trials=self.num_trials)
        view.notes.update(z=z, damage=done)
        return upload(z).repeat(len(view.own), 1)
