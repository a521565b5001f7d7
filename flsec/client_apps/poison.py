"""How training data are poisoned: lazily, and never by a change to the caller's data set."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_loader, is_tensor
from flsec.client_apps._client_data import is_pair, poisoned
from flsec.errors import ConfigError

__all__ = ["Poison", "poisoned"]


@dataclass(frozen=True)
class Poison:
    """How examples are changed.

    Attributes:
        inputs: maps a batch of inputs (k, ...) to changed ones; None: as they are.
        labels: maps a batch of labels (k,) to changed ones; None: as they are.
        chosen: (n,) boolean mask of the examples that are poisoned; None: all.
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
        if self.chosen is None:
            return (
                x if self.inputs is None else self.inputs(x),
                y if self.labels is None else self.labels(y),
            )
        rows = np.flatnonzero(self.chosen[np.asarray(positions, dtype=np.intp)])
        if not len(rows):
            return x, y
        return _replaced(x, rows, self.inputs), _replaced(y, rows, self.labels)


def _replaced(values: Any, rows: NDArray[np.intp], change: Callable[[Any], Any] | None) -> Any:
    if change is None:
        return values
    if is_tensor(values):
        import torch

        index: Any = torch.from_numpy(rows)
        copied: Any = values.clone()
    else:
        index, copied = rows, np.array(values)
    copied[index] = change(values[index])
    return copied


def poison_dataset(dataset: Any, poison_for: Callable[[int], Poison]) -> Any:
    """Return a poisoned view of a ``Dataset``, a ``DataLoader`` or an (x, y) pair of arrays.

    Args:
        dataset: the clean data; not changed.
        poison_for: gives the poison for a number of examples.
    """
    if is_pair(dataset):
        x, y = dataset
        changed = poison_for(len(y)).apply(x, y, np.arange(len(y)))
        return changed if isinstance(dataset, tuple) else list(changed)
    from flsec.client_apps.poisoned_dataset import PoisonedDataset  # a torch Dataset

    if is_loader(dataset) and is_map_style(dataset.dataset):
        loader = copy.copy(dataset)  # the same batches, workers and random numbers
        clean: Any = dataset.dataset
        vars(loader).update(dataset=PoisonedDataset(clean, poison_for(len(clean))), _iterator=None)
        return loader
    if is_map_style(dataset) and not isinstance(dataset, tuple | list | dict):
        return PoisonedDataset(dataset, poison_for(len(dataset)))
    raise ConfigError(
        f"training data must be a torch Dataset with positions and a length, a DataLoader of one, or an (x, y) "
        f"pair of arrays; got {type(getattr(dataset, 'dataset', dataset)).__name__}."
    )


def is_map_style(dataset: Any) -> bool:
    """Return whether a data set has positions and a length."""
    torch_data = sys.modules.get("torch.utils.data")
    streams = torch_data is not None and isinstance(dataset, torch_data.IterableDataset)
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not streams
