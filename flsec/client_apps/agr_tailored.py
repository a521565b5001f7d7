"""Attacks tailored to the server's rule, by colluding clients."""

import math
from typing import Any, ClassVar, Literal

from torch import Tensor

from flsec.aggregation._gram import row_norms
from flsec.attacks._collusion import Ddof, Perturbation, as_upload, honest_rows, moments, perturbation_vector
from flsec.attacks.agr_tailored import TailoredUpload, agr_tailored, largest_damage
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._deployed_rule import DeployedRule
from flsec.parameters import Count, Positive

__all__ = ["AGRTailored"]


class AGRTailored(CohortAttack):
    """All attackers upload mean + gamma p, with the gamma that is best against the rule that they know.

    Args:
        rule: what the attackers take the server to do; ``"deployed"``: what it does, whatever that is, by trying it
            out.
        num_byzantine: f, what that rule assumes, if they know; null: their own number. Not used with ``"deployed"``.
        perturbation: p. ``"unit"``: -mean / |mean|; ``"std"``: minus the standard deviation of each coordinate;
            ``"sign"``: -sign(mean).
        start: gamma that the search begins with, in units of how far honest updates are from their mean, over |p|.
        tolerance: the search ends when its step is this share of ``start``: 17 trials.
        ddof: the variance divides by the number of known updates less this.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the honest updates are the others'; ``"colluders"``: the
            attackers' own, which stand for everybody's.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. With a rule by its name: Krum must select
    one crafted row, Multi-Krum and Bulyan all; the trimmed mean and the median must be moved as far as can be. With
    ``"deployed"`` the aggregate must be moved as far as can be from where the attackers' honest means would have it, in
    any direction, while as many of their rows are accepted as then; the attackers need no name for the rule, and see
    through it everybody's updates. ``adaptive_line_search`` differs in what it asks for, the way along p alone, and in
    its search.

    Noted: gamma and damage.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import Adversaries
        >>> from flsec.strategies import Adversary, Median
        >>> from flsec.testing import play_rounds
        >>> attack = AGRTailored(adversaries=Adversaries(num_clients=6, ids=[4, 5]))
        >>> strategy = Adversary(Median(FedAvg()), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [4.0], [2.0], [3.0]]).round(decimals=2)  # else 2.5
        tensor([1.5000])

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021 (AGR-tailored attacks); ``"deployed"`` is ours.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(
        self,
        *,
        rule: Literal["deployed", "krum", "multi_krum", "bulyan", "trimmed_mean", "median"] = "deployed",
        num_byzantine: Count | None = None,
        perturbation: Perturbation = "std",
        start: Positive = 10.0,
        tolerance: Positive = 1e-5,
        ddof: Ddof = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rule: Literal["deployed", "krum", "multi_krum", "bulyan", "trimmed_mean", "median"] = rule
        self.num_byzantine = num_byzantine
        self.perturbation: Perturbation = perturbation
        self.start = start
        self.tolerance = tolerance
        self.ddof: Ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of mean + gamma p."""
        honest = honest_rows(view)
        if self.rule == "deployed":
            found = self._against_deployed(view, honest)
        else:
            found = agr_tailored(
                honest,
                rule=self.rule,
                num_attackers=len(view.own),
                num_byzantine=self.num_byzantine,
                perturbation=self.perturbation,
                start=self.start,
                tolerance=self.tolerance,
                ddof=self.ddof,
            )
        view.notes.update(gamma=found.gamma, damage=found.damage)
        return found.upload.repeat(len(view.own), 1)

    def _against_deployed(self, view: CohortView, honest: Tensor) -> TailoredUpload:
        mean, std = moments(honest, self.ddof)
        p = perturbation_vector(self.perturbation, mean, std)
        rule = DeployedRule(view, as_upload(mean, honest), type(self).__name__)
        length = float(p.norm())
        if length == 0:
            return TailoredUpload(as_upload(mean, honest), 0.0, 0.0)

        def damage(gamma: float) -> float:
            moved = rule.displacement(as_upload(mean + gamma * p, honest))
            return -math.inf if moved is None else float(moved.norm())

        scale = max(float(row_norms(honest, origin=mean).max()), float(mean.norm())) / length
        gamma, done = largest_damage(damage, start=self.start * scale, tolerance=self.tolerance)
        return TailoredUpload(as_upload(mean + gamma * p, honest), gamma, done)
