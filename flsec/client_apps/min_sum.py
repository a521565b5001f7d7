"""Min-Sum, by colluding clients."""

from typing import Any

from torch import Tensor

from flsec.attacks._collusion import Ddof, Perturbation, honest_rows
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.min_sum import min_sum
from flsec.client_apps._cohort_attack import CohortAttack

__all__ = ["MinSum"]


class MinSum(CohortAttack):
    """All attackers upload one point, together no farther from the honest updates than the outermost of these is.

    Args:
        perturbation: the way in which the attackers leave the honest mean: ``"unit"``: straight back; ``"std"``: by
            the standard deviation of each coordinate; ``"sign"``: by as much in each coordinate, against the mean's
            sign.
        ddof: the variance divides by the number of known updates less this.
        options: see ``Attack``, and ``knowledge``: ``"all"``: mean, deviation and bound are those of the others'
            updates; ``"colluders"``: of the attackers' own honest ones. Nothing is known about the defense.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. The gamma that was chosen is noted.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks import CohortView
        >>> view = CohortView(
        ...     own=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(2), others=torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, 2.0], [3.0, 1.0]]),
        ... )
        >>> MinSum(perturbation="unit").poison_cohort(view)
        tensor([[1.3081, 0.5814],
                [1.3081, 0.5814]])

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021, Sec. IV (Min-Sum attack).
    """

    def __init__(self, *, perturbation: Perturbation = "std", ddof: Ddof = 1, **options: Any) -> None:
        super().__init__(**options)
        self.perturbation: Perturbation = perturbation
        self.ddof: Ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of mean + gamma p."""
        upload, gamma = min_sum(honest_rows(view), perturbation=self.perturbation, ddof=self.ddof)
        view.notes["gamma"] = gamma
        return upload.repeat(len(view.own), 1)
