"""Inner product manipulation with the factor that is best against the deployed defense, by colluding clients."""

import math
from typing import Any, ClassVar

from torch import Tensor

from flsec.attacks._collusion import as_upload, honest_rows, moments
from flsec.attacks.adaptive_line_search import line_search
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.ipm import ipm
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._deployed_rule import DeployedRule
from flsec.parameters import PositiveCount

__all__ = ["OptimisedIPM"]


class OptimisedIPM(CohortAttack):
    """All attackers upload -epsilon mean, with the epsilon that moves the deployed defense's aggregate farthest.

    Args:
        num_trials: how often the defense is tried out in a round, besides once with the honest mean; epsilon from 0.01
            to 100.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the mean of all others' updates; ``"colluders"``: of
            their own honest ones.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. Damage is the distance of the aggregate
    from what it would be if the attackers uploaded the mean; only those epsilon count with which the defense accepts as
    many of the attackers' rows as then. Where there is none, they upload the mean, and the noted epsilon is 0. Noted:
    epsilon and damage.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import Adversaries
        >>> from flsec.strategies import Adversary, Median
        >>> from flsec.testing import play_rounds
        >>> attack = OptimisedIPM(adversaries=Adversaries(num_clients=6, ids=[4, 5]))
        >>> strategy = Adversary(Median(FedAvg()), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [4.0], [2.0], [3.0]]).round(decimals=2)  # else 2.5
        tensor([1.5000])

    Source: Xie et al., "Fall of Empires", UAI 2020, for the upload; that the factor is optimised against the rule is
    after Shejwalkar and Houmansadr, NDSS 2021.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(self, *, num_trials: PositiveCount = 20, **options: Any) -> None:
        super().__init__(**options)
        self.num_trials = num_trials

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of -epsilon mean."""
        honest = honest_rows(view)
        mean = as_upload(moments(honest)[0], honest)
        rule = DeployedRule(view, mean, type(self).__name__)

        def damage(epsilon: float) -> float:
            moved = rule.displacement(ipm(honest, epsilon=epsilon))
            return -math.inf if moved is None else float(moved.norm())

        epsilon, done = line_search(damage, scale=1.0, num_trials=self.num_trials)
        view.notes.update(epsilon=epsilon, damage=done)
        return (ipm(honest, epsilon=epsilon) if epsilon else mean).repeat(len(view.own), 1)
