"""Fang's attack on Krum, by colluding clients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flsec.attacks._collusion import as_upload, honest_direction
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.krum_attack import krum_attack_factor, krum_attack_factor_partial
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.parameters import Count, NonNegative, Positive

__all__ = ["KrumAttack"]


class KrumAttack(CohortAttack):
    """All attackers upload one point against the honest direction, as far out as Krum still picks it.

    Args:
        num_byzantine: f, what Krum assumes, if the attackers know; null: their own number. With
            ``knowledge="colluders"`` it is not used.
        threshold: the search for the factor gives up below this, in parameter units; updates much smaller than the
            paper's 1e-5 need less. The attackers then upload what they have come to, next to nothing.
        epsilon: the first attacker uploads that point, the others points drawn around it, up to this far. The paper
            takes 0.01; with the small updates of Flower's clients that can be far, so that here all upload the same.
        options: see ``Attack``, and ``knowledge``: ``"all"`` is the paper's full knowledge: all updates. With
            ``"colluders"``, its partial knowledge, the attackers' own honest updates stand for everybody's. Either way
            they know that the defense is Krum.

    For all m attackers at once: (m, d) honest updates become (m, d) uploads. The direction is that of the mean of all
    known updates, the attackers' own honest ones included: where the model would go without an attack.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks import CohortView
        >>> view = CohortView(
        ...     own=torch.tensor([[0.1], [0.2]]), own_ids=(4, 5), clients_per_round=7, round=1,
        ...     global_parameters=torch.zeros(1), others=torch.tensor([[0.0], [0.3], [0.1], [-0.2], [0.2]]),
        ... )
        >>> KrumAttack().poison_cohort(view).flatten()  # against the mean, and as near as Krum wants it
        tensor([-0.1183, -0.1183])

    Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020,
    Sec. 4.2; FedInv, "Byzantine Attacks", Krum attack.
    """

    def __init__(
        self,
        *,
        num_byzantine: Count | None = None,
        threshold: Positive = 1e-5,
        epsilon: NonNegative = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_byzantine = num_byzantine
        self.threshold = threshold
        self.epsilon = epsilon

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m rows at, or next to, -lambda s."""
        direction = honest_direction(view)
        if view.others is None or not len(view.others):
            found = krum_attack_factor_partial(view.own, direction, threshold=self.threshold)
        else:
            found = krum_attack_factor(
                view.others,
                direction,
                num_attackers=len(view.own),
                num_byzantine=self.num_byzantine,
                threshold=self.threshold,
            )
        view.notes.update({"lambda": found.factor, "picked": found.picked, "num_crafted": found.num_crafted})
        rows = (-found.factor * direction).repeat(len(view.own), 1)
        if self.epsilon:
            generator = view.generator("krum_attack")
            for row in rows[1:]:
                row += self.epsilon * _in_unit_ball(row, generator)
        return as_upload(rows, view.own)


def _in_unit_ball(like: Tensor, generator: np.random.Generator) -> Tensor:
    """Return a uniform point of the unit ball."""
    d = len(like)
    point = torch.from_numpy(generator.standard_normal(d)).to(like.device)
    radius: float = generator.random() ** (1 / max(1, d))
    return point * (radius / float(point.norm().clamp(min=1e-300)))
