"""The semantic backdoor on a client."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flsec.attacks.label_flipping import flip_labels
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.client_apps.poison import Poison
from flsec.errors import ConfigError
from flsec.parameters import Count

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SemanticBackdoor"]


class SemanticBackdoor(Attack):
    """Have unmodified inputs of one class taken for another: all training samples of it carry the wrong label.

    Inputs are not touched, so that images, token sequences and feature vectors are all the same to it. A client without
    a sample of the source class uploads an honest update; see ``candidates`` of ``Adversaries``. Stack
    ``ModelReplacement`` around it to outweigh the honest clients.

    Args:
        source: s, the class under attack, with ``target``: 7 -> 1 or 4 -> 9 in the papers.
        target: t, what it is to be taken for.
        pairs: several (source, target) pairs instead, such as ``[[7, 1], [4, 9]]``; applied at the same time.
        options: see ``Attack``.

    Raises:
        ConfigError: neither or both of (source, target) and pairs, or pairs that contradict each other.

    Example:
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = SemanticBackdoor(source=7, target=1)
        >>> x, y = attack.poisoned_dataset((np.zeros((3, 2)), np.array([7, 4, 7])), AttackContext(1, 0))
        >>> y
        array([1, 4, 1])

    Source: Bagdasaryan et al., AISTATS 2020, Sec. 4.1; Sun et al., 2019; SparseFed, Sec. 3.2 and App. B.5 (7 -> 1 and
    4 -> 9); DiverseFL, Sec. IV-B (4 -> 9).
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        source: Count | None = None,
        target: Count | None = None,
        pairs: Sequence[Sequence[Count]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if pairs is None and source is not None and target is not None:
            pairs = [(source, target)]
        elif pairs is None or source is not None or target is not None:
            raise ConfigError(
                "SemanticBackdoor takes either source and target (such as 7 and 1) or pairs (such as [[7, 1], [4, 9]])."
            )
        flip_labels(np.zeros(0, np.int64), pairs)  # checks the pairs before any training
        self.pairs = tuple((int(a), int(b)) for a, b in pairs)

    def poison(self, num_examples: int, context: AttackContext) -> Poison:
        """Relabel."""
        return Poison(labels=partial(flip_labels, pairs=self.pairs))

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of the test samples of the source classes that are taken for their targets."""
        wanted = flip_labels(y, self.pairs)
        attacked = wanted != y
        taken = predictions[attacked] == wanted[attacked]
        return {"attack_success": float(taken.double().mean()) if len(taken) else None}
