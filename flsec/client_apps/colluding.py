"""Clients who upload the same."""

from typing import Any, Literal

from torch import Tensor

from flsec.aggregation.mean import mean
from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._cohort_attack import CohortAttack

__all__ = ["Colluding"]


class Colluding(CohortAttack):
    """All attackers upload the mean of what each would have uploaded alone.

    Args:
        knowledge: ``"colluders"``: the attackers know each other's uploads, and nothing about others or the defense.
        options: see ``Attack``.

    Goes with any other attack by the same clients, listed before it: data poisoning, an attack on the upload, or none.
    Their uploads agree bit by bit, whatever process each of them runs in.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks.cohort_view import CohortView
        >>> view = CohortView(own=torch.tensor([[1.0], [3.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(1), others=None)
        >>> Colluding().poison_cohort(view)
        tensor([[2.],
                [2.]])

    Source: Panda et al., SparseFed, AISTATS 2022, Sec. 3.2 ("Colluding attack"): all attackers upload the same update.
    There they compute one; the mean is ours.
    """

    def __init__(self, *, knowledge: Literal["colluders"] = "colluders", **options: Any) -> None:
        super().__init__(knowledge=knowledge, **options)

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of the mean of the attackers' own rows."""
        return mean(view.own).repeat(len(view.own), 1)
