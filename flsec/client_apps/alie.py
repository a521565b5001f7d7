"""A Little Is Enough, by colluding clients."""

import functools
import logging
from typing import Any, Literal

from torch import Tensor

from flsec.attacks._collusion import Ddof, honest_rows
from flsec.attacks.alie import alie, alie_z
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.parameters import NonNegative

__all__ = ["ALIE"]

logger = logging.getLogger("flsec")


class ALIE(CohortAttack):
    """All attackers upload the mean of honest updates less z standard deviations of each coordinate.

    Args:
        z: standard deviations; null: as many as leave the outermost honest clients, whom the attackers need for a
            majority, farther out. Where the attackers are too few for that, z is 0, which is logged once: give z then.
        ddof: the variance divides by the number of known updates less this.
        knowledge: ``"colluders"``, as in the paper: mean and deviation are estimated from the attackers' own honest
            updates. ``"all"``: they are those of the others' updates.
        options: see ``Attack``.

    The attackers know how many clients take part, and nothing about the defense. A lone one cannot estimate a
    deviation, and uploads the mean that it knows.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks.cohort_view import CohortView
        >>> view = CohortView(own=torch.tensor([[1.0], [3.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(1), others=None)
        >>> ALIE(z=1.0, ddof=0).poison_cohort(view)  # mean 2, deviation 1
        tensor([[1.],
                [1.]])

    Source: Baruch et al., "A Little Is Enough: Circumventing Defenses for Distributed Learning", NeurIPS 2019,
    Algorithm 3.
    """

    def __init__(
        self,
        *,
        z: NonNegative | None = None,
        ddof: Ddof = 1,
        knowledge: Literal["colluders", "all"] = "colluders",
        **options: Any,
    ) -> None:
        super().__init__(knowledge=knowledge, **options)
        self.z = z
        self.ddof = ddof

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of mean - z std."""
        honest = honest_rows(view)
        z = _z(view.clients_per_round, len(view.own)) if self.z is None else self.z
        view.notes["z"] = z
        if len(honest) <= self.ddof:
            view.notes["deviation"] = f"unknown: {len(honest)} update, ddof {self.ddof}"
        return alie(honest, z=z, ddof=self.ddof).repeat(len(view.own), 1)


@functools.cache  # says it once, not every round
def _z(clients_per_round: int, num_attackers: int) -> float:
    z = alie_z(clients_per_round, num_attackers)
    if z == 0:
        logger.warning(
            "ALIE: %d attackers of %d clients are not enough to hide behind others; z is 0, and they upload the mean. "
            "Give z, such as z: 1.0.",
            num_attackers,
            clients_per_round,
        )
    return z
