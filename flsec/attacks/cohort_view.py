"""What attackers who work together see of a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flsec.randomness import numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["CohortView", "Rehearsal"]

# What an ``Adversary`` on the server sends its clients: which attacks it completes, class names joined by commas.
ADVERSARY = "flsec-adversary"


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What the deployed defense would make of certain uploads.

    Attributes:
        aggregate: (d,) float32, the change of the global model before the wrapped strategy's own server step; zero if
            the defense would keep the previous model.
        accepted: (m,) bool, whether each attacker's row would still count at the end.

    Example:
        >>> import torch
        >>> rehearsal = Rehearsal(aggregate=torch.tensor([0.5, 0.5]), accepted=torch.tensor([True, False]))
        >>> rehearsal.accepted.tolist()  # the defense keeps the first attacker only
        [True, False]
    """

    aggregate: Tensor
    accepted: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class CohortView:
    """One round, as the attackers of one kind see it before they upload.

    Attributes:
        own: (m, d) float32, the updates that the attackers would have uploaded without this attack. Not to be
            changed in place.
        own_ids: (m,), their client ids.
        clients_per_round: n, how many clients' updates the server gets in this round, the attackers' included.
        global_parameters: (d,) float32, the model that the clients started from.
        round: the server's round, from 1.
        seed: of the attack.
        others: (n - m, d), the updates of everybody else; None for attackers who know only their own. Not to be
            changed in place.
        rehearse: maps (m, d) uploads of the attackers to what the deployed defense would make of them; None for
            attackers who do not know the defense. The defense does not notice.
        global_state: what the clients started from besides, in the model's order: BatchNorm's statistics and counters,
            which have no place in the vectors.
        notes: what the attack wants on record about this round, such as the factor that it chose; filled by the attack.

    Example:
        >>> import torch
        >>> own = torch.tensor([[1.0, 2.0]])
        >>> view = CohortView(own=own, own_ids=(7,), clients_per_round=10, round=1, global_parameters=torch.zeros(2))
        >>> view.honest  # who knows nobody else takes the own update as a sample
        tensor([[1., 2.]])
    """

    own: Tensor
    own_ids: tuple[int, ...]
    clients_per_round: int
    global_parameters: Tensor
    round: int
    seed: int = 0
    others: Tensor | None = None
    rehearse: Callable[[Tensor], Rehearsal] | None = None
    global_state: tuple[NDArray[Any], ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def honest(self) -> Tensor:
        """(h, d), what the attackers know of honest updates: the others', or their own as a sample of such."""
        return self.own if self.others is None else self.others

    def generator(self, purpose: str) -> np.random.Generator:
        """Return random numbers that all attackers of this round have in common."""
        return numpy_generator(self.seed, self.round, purpose=purpose)
