"""A poisoned view of a torch data set."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from flsec.client_apps._reads import ReadsCounted
from flsec.client_apps.poison import Poison
from flsec.errors import ConfigError

__all__ = ["PoisonedDataset"]


class PoisonedDataset(ReadsCounted, Dataset[Any]):
    """A view of a map-style data set of (input, label) pairs with some examples changed.

    Args:
        dataset: the clean data; not changed.
        poison: how examples are changed.
    """

    def __init__(self, dataset: Any, poison: Poison):
        self.dataset = dataset
        self.poison = poison

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> tuple[Any, Any]:
        self.note_read()
        item = self.dataset[position]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError(
                f"a poisoned data set must give (input, label) pairs; {type(self.dataset).__name__} gave "
                f"{type(item).__name__}. Wrap it in one that does."
            )
        x, y = item
        if isinstance(position, slice) or np.ndim(position):  # a batch, from a data set that gives batches
            return self.poison.apply(x, y, np.arange(len(self))[position])
        if self.poison.chosen is not None and not self.poison.chosen[position]:
            return x, y
        if self.poison.inputs is not None:
            x = self.poison.inputs(x[None] if hasattr(x, "shape") else np.asarray([x]))[0]
        if self.poison.labels is not None:
            label = self.poison.labels(y[None] if isinstance(y, torch.Tensor) else np.asarray([y]))[0]
            y = label if hasattr(y, "dtype") else label.item()
        return x, y

    def tensors(self, indices: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch at once where the clean data set can; see ``flsec.data.ArrayDataset.tensors``."""
        self.note_read()
        x, y = self.dataset.tensors(indices)
        positions = np.arange(len(self)) if indices is None else np.asarray(indices)
        return self.poison.apply(x, y, positions)
