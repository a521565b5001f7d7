"""Inner product manipulation, by colluding clients."""

from typing import Any

from torch import Tensor

from flsec.attacks._collusion import honest_rows
from flsec.attacks.cohort_view import CohortView
from flsec.attacks.ipm import ipm
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.parameters import Positive

__all__ = ["IPM"]


class IPM(CohortAttack):
    """All attackers upload minus epsilon times the mean of the honest updates.

    Args:
        epsilon: the factor. The paper tries 0.1, 0.5 and more up to 100; less than 1 hides, more than (n - f) / f turns
            an undefended model back.
        options: see ``Attack``, and ``knowledge``: ``"all"``: the mean of all others' updates, as in the paper;
            ``"colluders"``: of their own honest ones. Nothing is known about the defense.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.attacks.cohort_view import CohortView
        >>> view = CohortView(own=torch.tensor([[1.0], [3.0]]), own_ids=(4, 5), clients_per_round=6, round=1,
        ...     global_parameters=torch.zeros(1), others=torch.tensor([[2.0], [4.0]]))
        >>> IPM(epsilon=0.5).poison_cohort(view)
        tensor([[-1.5000],
                [-1.5000]])

    Source: Xie et al., "Fall of Empires: Breaking Byzantine-Tolerant SGD by Inner Product Manipulation", UAI 2020.
    """

    def __init__(self, *, epsilon: Positive, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return m copies of -epsilon mean."""
        return ipm(honest_rows(view), epsilon=self.epsilon).repeat(len(view.own), 1)
