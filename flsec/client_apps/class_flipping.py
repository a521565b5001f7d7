"""Class flipping on a client."""

from functools import partial
from typing import Any, ClassVar, Literal

from flsec.attacks.class_flipping import flip_classes
from flsec.client_apps.base import Attack, AttackContext
from flsec.client_apps.poison import Poison
from flsec.parameters import PositiveCount

__all__ = ["ClassFlipping"]


class ClassFlipping(Attack):
    """Train on data in which every class carries another's label.

    Args:
        num_classes: C, the number of classes of the data.
        mode: ``"reverse"``: C - 1 - y; ``"next"``: (y + 1) mod C.
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> attack, trainset = ClassFlipping(num_classes=10), (np.zeros((3, 2)), np.array([0, 4, 9]))
        >>> attack.poisoned_dataset(trainset, AttackContext(round=1, client_id=0))[1]
        array([9, 5, 0])

    Source: DiverseFL, Sec. IV-A (the printed c_n - c would be out of range for class 0); FedInv, label flip.
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self, *, num_classes: PositiveCount = 10, mode: Literal["reverse", "next"] = "reverse", **options: Any
    ) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.mode = mode

    def poison(self, num_examples: int, context: AttackContext) -> Poison:
        """Relabel everything."""
        return Poison(labels=partial(flip_classes, num_classes=self.num_classes, mode=self.mode))
