"""Attackers who know which rule they have to pass, and stay within what it takes for honest."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flsec.aggregation._gram import row_norms
from flsec.attacks._collusion import as_upload, honest_rows, moments, perturbation_vector, rehearsal_of
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.constrained_deviation import half_angle_cosine, most_hostile
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps._view_model import arrays_of_round
from flsec.errors import ConfigError
from flsec.parameters import Fraction, NonNegative, OpenFraction, Positive, PositiveCount
from flsec.tasks import CLASSIFICATION, Task
from flsec.training import evaluate, set_weights

__all__ = ["ConstrainedDeviation"]

_Near = Callable[[Tensor, float], Tensor]


class ConstrainedDeviation(CohortAttack):
    """Each attacker uploads the most hostile update that the rule it knows takes for honest.

    One form for rules that compare each update with something: among all updates at most so far from a reference in
    angle, and between two lengths, the one that goes farthest against the honest mean. What differs is what is taken
    for the reference, and how the angle is chosen:

    - ``"diversefl"``: the attacker's own honest update stands for the guiding update that the server computes on its
      sample of the attacker's data. The cosine is ``min_cosine``, the length from ``min_ratio`` to ``max_ratio`` times
      that update's. Known: epsilon_1 and epsilon_2, not the sample.
    - ``"fltrust"``: the honest mean stands for the server's update. The cosine is the one at which trust times
      deviation is largest; the length does not matter to the rule. Known: the rule, not the root set.
    - ``"flame"``: the attacker's own honest update, which lies within the cluster. The cosine is the smallest, the same
      for all, with which the deployed defense accepts as many of the attackers' rows as it does of their honest ones,
      by trying it out; the length is the median of the honest ones, which clipping leaves as it is. Known: the defense
      with its parameters and, through what it returns, everybody's updates.
    - ``"siren"``: the attacker's own honest update, and its length. The cosine is the smallest, not below
      ``min_cosine``, with which the accuracy on ``auxiliary_data`` falls short of the honest update's by
      ``max_accuracy_drop`` at most, so that nobody alarms. Known: the tests, and data like those they are made on.
    - ``"fedinv"``: the same, with the length of the own update. Works for any defense that drops clients; with one that
      drops none there is no limit but ``min_cosine``.

    Args:
        against: which of these.
        hostile: where to: ``"unit"``: straight back, -mean / |mean|; ``"sign"``: against the mean's signs. Straight
            back has no component aside from the mean, where that is the reference.
        min_cosine: the least cosine with the reference: a margin, as the attackers' reference is not the server's.
        min_ratio: the least length, in lengths of the reference, for ``"diversefl"``, whose epsilon_1 is 0.5.
        max_ratio: the greatest, for ``"diversefl"``, whose epsilon_2 is 2.
        max_accuracy_drop: for ``"siren"``, whose clients' tolerance is 0.04.
        num_trials: how many angles are tried for ``"siren"``, ``"flame"`` and ``"fedinv"``, by halving.
        auxiliary_data: (x, y), for ``"siren"``; a simulation supplies the test set, of which attackers use copies.
        model_factory: builds the clients' model, for ``"siren"``; a simulation supplies it.
        task: what is learned, for ``"siren"``; a simulation supplies it.
        device: where accuracy is measured; a simulation supplies that of its clients.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the honest updates are the others'; ``"colluders"``: the
            attackers' own.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. Noted: the mean cosine of the uploads with
    their references.

    Raises:
        ConfigError: a parameter out of its range, or ``"siren"`` without data or model; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks import CohortView
        >>> view = CohortView(
        ...     own=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(2), others=torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, 2.0], [3.0, 1.0]]),
        ... )
        >>> ConstrainedDeviation(against="diversefl").poison_cohort(view)
        tensor([[ 0.1700, -1.6915],
                [ 0.6570, -0.5370]])

    Source: ours. The rules: Prakash and Avestimehr (DiverseFL), Sec. III; Cao et al. (FLTrust), NDSS 2021; Nguyen et
    al. (FLAME), USENIX Security 2022; Guo et al. (SIREN), Sec. 4; Zhao et al. (FedInv), AAAI 2022.
    """

    knows_defense: ClassVar[bool] = True

    def __init__(
        self,
        *,
        against: Literal["diversefl", "fltrust", "flame", "siren", "fedinv"] = "diversefl",
        hostile: Literal["unit", "sign"] = "sign",
        min_cosine: Fraction = 0.1,
        min_ratio: OpenFraction = 0.6,
        max_ratio: Positive = 1.7,
        max_accuracy_drop: NonNegative = 0.02,
        num_trials: PositiveCount = 8,
        auxiliary_data: tuple[Tensor, Tensor] | None = None,
        model_factory: Callable[[], nn.Module] | None = None,
        task: Task = CLASSIFICATION,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if against == "siren" and (auxiliary_data is None or model_factory is None):
            raise ConfigError(
                "ConstrainedDeviation against='siren' needs auxiliary_data and model_factory, to see what an update "
                "does to the accuracy. Give both; a simulation does.",
                parameter="against",
            )
        if min_ratio > max_ratio:
            raise ConfigError(
                f"ConstrainedDeviation: min_ratio must be at most max_ratio={max_ratio}; got {min_ratio}.",
                parameter="min_ratio",
            )
        self.against = against
        self.hostile: Literal["unit", "sign"] = hostile
        self.min_cosine = min_cosine
        self.min_ratio, self.max_ratio = min_ratio, max_ratio
        self.max_accuracy_drop = max_accuracy_drop
        self.num_trials = num_trials
        self.auxiliary_data = auxiliary_data
        self.model_factory = model_factory
        self.task = task
        self.device = device

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return a row for each attacker."""
        honest = honest_rows(view)
        mean, std = moments(honest)
        hostile = perturbation_vector(self.hostile, mean, std)
        own = [row.double() for row in view.own]
        if self.against == "fltrust":
            references = [mean] * len(own)
            uploads = [self._trusted(mean, hostile)] * len(own)
        else:
            references = own
            near = self._near_own(honest, hostile)
            cosines = self._cosines(view, own, near)
            uploads = [near(row, cosine) for row, cosine in zip(own, cosines, strict=True)]
        pairs = zip(uploads, references, strict=True)
        view.notes["cosine"] = sum(_cosine(v, reference) for v, reference in pairs) / len(own)
        return as_upload(torch.stack(uploads), view.own)

    def _trusted(self, mean: Tensor, hostile: Tensor) -> Tensor:
        cosine, norm = max(half_angle_cosine(mean, hostile), self.min_cosine), float(mean.norm())
        return most_hostile(mean, hostile, min_cosine=cosine, min_norm=norm, max_norm=norm)

    def _near_own(self, honest: Tensor, hostile: Tensor) -> _Near:
        """Return what maps an attacker's honest update and a cosine to what it uploads."""
        median = float(row_norms(honest).median()) if self.against == "flame" else None
        low, high = (self.min_ratio, self.max_ratio) if self.against == "diversefl" else (1.0, 1.0)

        def near(own: Tensor, cosine: float) -> Tensor:
            norm = float(own.norm()) if median is None else median
            return most_hostile(own, hostile, min_cosine=cosine, min_norm=low * norm, max_norm=high * norm)

        return near

    def _cosines(self, view: CohortView, own: list[Tensor], near: _Near) -> list[float]:
        """Return the cosine of each attacker's upload with its own honest update."""
        if self.against == "diversefl":
            return [self.min_cosine] * len(own)
        if self.against == "siren":
            return [self._widest(self._not_alarming(view, row, near)) for row in own]
        rehearse = rehearsal_of(view, type(self).__name__)
        needed = max(1, int(rehearse(view.own).accepted.sum()))

        def accepted(cosine: float) -> bool:
            rows = torch.stack([near(row, cosine) for row in own])
            return int(rehearse(as_upload(rows, view.own)).accepted.sum()) >= needed

        return [self._widest(accepted)] * len(own)

    def _widest(self, passes: Callable[[float], bool]) -> float:
        """Return the smallest cosine, of those that are tried, that passes; 1, which is honest, if none does."""
        low, high = 0.0, math.acos(self.min_cosine)
        if passes(math.cos(high)):
            return math.cos(high)
        for _ in range(self.num_trials - 1):
            middle = (low + high) / 2
            low, high = (middle, high) if passes(math.cos(middle)) else (low, middle)
        return math.cos(low)

    def _not_alarming(self, view: CohortView, own: Tensor, near: _Near) -> Callable[[float], bool]:
        assert self.auxiliary_data is not None
        assert self.model_factory is not None
        model = self.model_factory().to(self.device)
        x, y = (part.to(self.device) for part in self.auxiliary_data)

        def accuracy(update: Tensor) -> float:
            set_weights(model, arrays_of_round(model, view, type(self).__name__, as_upload(update, view.own)))
            return evaluate(model, x, y, task=self.task).accuracy

        least = accuracy(own) - self.max_accuracy_drop
        return lambda cosine: accuracy(near(own, cosine)) >= least


def _cosine(one: Tensor, other: Tensor) -> float:
    lengths = float(one.norm() * other.norm())
    return float(one @ other) / lengths if lengths > 0 else 0.0
