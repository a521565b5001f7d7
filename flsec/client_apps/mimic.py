"""Mimic, by colluding clients."""

from typing import Any, Literal

from torch import Tensor

from flsec.attacks.cohort_view import CohortView
from flsec.attacks.mimic import mimicked_row
from flsec.client_apps._cohort_attack import CohortAttack

__all__ = ["Mimic"]


class Mimic(CohortAttack):
    """All attackers upload a copy of one honest client's update, so that its data count too much.

    Args:
        knowledge: ``"all"``: the attackers see everybody's updates; with less there is nobody to mimic. They know
            nothing about the defense, and nothing they upload can be told from honest.
        options: see ``Attack``.

    They choose who lies farthest out along the direction in which honest updates differ most, in every round anew: an
    attack that kept a direction over rounds, as in the paper, would need a memory. An attacker is never mimicked. Does
    harm where clients' data differ; with alike data it does next to none. In a round without honest clients the
    attackers upload what they have.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks.cohort_view import CohortView
        >>> view = CohortView(own=torch.tensor([[1.0], [3.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(1), others=torch.tensor([[2.0], [2.0], [9.0]]))
        >>> Mimic().poison_cohort(view)
        tensor([[9.],
                [9.]])

    Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
    Sec. 3.2.
    """

    def __init__(self, *, knowledge: Literal["all"] = "all", **options: Any) -> None:
        super().__init__(knowledge=knowledge, **options)

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of an honest update."""
        if view.others is None or not len(view.others):
            return view.own
        row = mimicked_row(view.others)
        view.notes["mimicked_row"] = row
        return view.others[row].repeat(len(view.own), 1)
