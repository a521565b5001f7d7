"""How examples are changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsec.data._values import changed

__all__ = ["Poison"]


@dataclass(frozen=True)
class Poison:
    """How examples are changed.

    Attributes:
        inputs: maps a batch of inputs (k, ...) to changed ones; None: as they are.
        labels: maps a batch of labels (k,) to changed ones; None: as they are.
        chosen: (n,) boolean mask of the examples that are poisoned; None: all.

    Example:
        >>> poison = Poison(inputs=lambda x: x + 9, labels=lambda y: 0 * y, chosen=np.array([False, True]))
        >>> poison.apply(np.array([1.0, 2.0]), np.array([5, 6]), [0, 1])
        (array([ 1., 11.]), array([5, 0]))
    """

    inputs: Callable[[Any], Any] | None = None
    labels: Callable[[Any], Any] | None = None
    chosen: NDArray[np.bool_] | None = None

    def apply(self, x: Any, y: Any, positions: Any) -> tuple[Any, Any]:
        """Return a batch with the chosen examples changed; x and y are not.

        Args:
            x: (k, ...) inputs, numpy or torch.
            y: (k,) labels, numpy or torch.
            positions: (k,) integers: which of the client's examples these are.
        """
        rows = self.rows(positions)
        if rows is not None and not len(rows):
            return x, y
        return (
            x if self.inputs is None else changed(x, self.inputs, rows),
            y if self.labels is None else changed(y, self.labels, rows),
        )

    def rows(self, positions: Any) -> NDArray[np.intp] | None:
        """Return which of the examples at ``positions`` (k,) are changed, as rows of a batch of them; None: all."""
        if self.chosen is None:
            return None
        return np.flatnonzero(self.chosen[np.asarray(positions, dtype=np.intp)])
