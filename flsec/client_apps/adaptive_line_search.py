"""An attack tuned on the deployed defense, by colluding clients."""

import math
from typing import Any, ClassVar, Literal

from torch import Tensor

from flsec.aggregation._gram import row_norms
from flsec.attacks._collusion import (
    Ddof,
    Perturbation,
    as_upload,
    honest_rows,
    known_rows,
    moments,
    perturbation_vector,
)
from flsec.attacks.adaptive_line_search import line_search
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._deployed_rule import DeployedRule
from flsec.parameters import PositiveCount

__all__ = ["AdaptiveLineSearch"]


class AdaptiveLineSearch(CohortAttack):
    """All attackers upload mean + gamma p, with the gamma that moves the deployed defense's aggregate farthest along p.

    Args:
        perturbation: p. ``"unit"``: -mean / |mean|; ``"std"``: minus the standard deviation of each coordinate;
            ``"sign"``: -sign(mean).
        reverse: which updates mean and deviation are of: ``"others"``: the honest clients'; ``"all"``: all that the
            attackers know, what they would have uploaded themselves included. Neither is always the stronger.
        num_trials: how often the defense is tried out in a round, besides once with the honest mean.
        ddof: the variance divides by the number of known updates less this.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the attackers know everybody's updates; ``"colluders"``:
            their own honest ones, which then are all there is to reverse. The attackers know the defense with its
            parameters, its memory and, through what it returns, everybody's updates: the strongest attackers, and the
            fair test of a defense whose authors publish it.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. Damage is how far the aggregate is
    displaced along p against the attackers' uploading the honest mean, in parameter units. Only those gammas count with
    which the defense accepts as many of the attackers' rows as it does with the honest mean, and at least one: all of
    them for most defenses, one for Krum, which keeps one row. Where there is no such gamma that does damage, the
    attackers upload the honest mean. The search covers ``|gamma p|`` up to 100 times the largest distance of an honest
    update from their mean, or the mean's length if that is more: with no defense it ends there, for want of a limit.

    A defense that draws random numbers is tried with those that it is going to draw. Noted: gamma, damage, trials, and
    how many rows are accepted.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import Adversaries
        >>> from flsec.strategies import Adversary, Median
        >>> from flsec.testing import play_rounds
        >>> attack = AdaptiveLineSearch(adversaries=Adversaries(num_clients=6, ids=[4, 5]))
        >>> strategy = Adversary(Median(FedAvg()), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [4.0], [2.0], [3.0]]).round(decimals=2)  # else 2.5
        tensor([1.5000])

    Source: ours, for any defense; after Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, Sec. IV,
    who tune gamma on known rules.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(
        self,
        *,
        perturbation: Perturbation = "unit",
        reverse: Literal["others", "all"] = "others",
        num_trials: PositiveCount = 20,
        ddof: Ddof = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.perturbation: Perturbation = perturbation
        self.reverse = reverse
        self.num_trials = num_trials
        self.ddof: Ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of mean + gamma p."""
        honest = known_rows(view) if self.reverse == "all" else honest_rows(view)
        mean, std = moments(honest, self.ddof)
        p = perturbation_vector(self.perturbation, mean, std)
        length = float(p.norm())

        def upload(gamma: float) -> Tensor:
            return as_upload(mean + gamma * p, honest)

        view.notes.update(gamma=0.0, damage=0.0, trials=0)
        if length == 0:
            return upload(0.0).repeat(len(view.own), 1)
        rule = DeployedRule(view, upload(0.0), type(self).__name__)
        accepted = {0.0: rule.accepted}

        def damage(gamma: float) -> float:
            moved = rule.displacement(upload(gamma))
            accepted[gamma] = rule.accepted
            return -math.inf if moved is None else float(moved @ p) / length

        scale = max(float(row_norms(honest, origin=mean).max()), float(mean.norm())) / length
        gamma, done = line_search(damage, scale=scale, num_trials=self.num_trials)
        view.notes.update(gamma=gamma, damage=done, trials=rule.trials, accepted=accepted[gamma])
        return upload(gamma).repeat(len(view.own), 1)
