"""Fang's attack on the trimmed mean and the median, by colluding clients."""

from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from flsec.attacks._collusion import Ddof, honest_direction
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.trimmed_mean_attack import (
    draw_between,
    trimmed_mean_attack_range,
    trimmed_mean_attack_range_partial,
)
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.randomness import numpy_generator

__all__ = ["TrimmedMeanAttack"]


class TrimmedMeanAttack(CohortAttack):
    """Each attacker uploads numbers just beyond the honest ones, against the direction in which each would move.

    Args:
        b: with ``knowledge="all"``: how far beyond the outermost honest number, see
            ``flsec.attacks.trimmed_mean_attack_range``.
        ddof: with ``knowledge="colluders"``: the variance divides by the number of attackers less this. A lone attacker
            knows no deviation, and uploads its honest update.
        options: see ``Attack``, and ``knowledge``: ``"all"`` is the paper's full knowledge: all updates. With
            ``"colluders"``, its partial knowledge, the attackers draw from 3 to 4 of their own standard deviations
            beyond their own mean. Either way they know that the defense works on coordinates.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. For the trimmed mean, and as it is for the
    median. The direction is that of the mean of all known updates, the attackers' own honest ones included. Attackers
    draw independently of each other.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks import CohortView
        >>> view = CohortView(
        ...     own=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(2), others=torch.tensor([[2.0, 0.0], [2.0, 1.0], [2.0, 2.0], [3.0, 1.0]]),
        ... )
        >>> uploads = TrimmedMeanAttack().poison_cohort(view)
        >>> bool((uploads[:, 0] < 2.0).all())  # below the least of the others, who all move up
        True

    Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
    Sec. 4.3 and 4.4.
    """

    def __init__(self, *, b: Annotated[float, Gt(1)] = 2.0, ddof: Ddof = 1, **options: Any) -> None:
        super().__init__(**options)
        self.b = b
        self.ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m rows drawn from the intervals."""
        direction = honest_direction(view)
        if view.others is None or not len(view.others):
            low, high = trimmed_mean_attack_range_partial(view.own, direction, ddof=self.ddof)
            if len(view.own) <= self.ddof:
                view.notes["deviation"] = f"unknown: {len(view.own)} update, ddof {self.ddof}"
        else:
            low, high = trimmed_mean_attack_range(view.others, direction, b=self.b)
        rows = torch.empty_like(view.own)
        for row, client_id in zip(rows, view.own_ids, strict=True):
            row.copy_(
                draw_between(low, high, numpy_generator(view.seed, view.round, client_id, "trimmed_mean_attack"), row)
            )
        return rows
