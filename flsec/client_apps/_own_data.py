"""A client's training data as an attacker uses them: read at once, and with samples of the attacker's added."""

import copy
import functools
import operator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, default_collate

from flsec.client_apps._client_data import is_pair
from flsec.client_apps._reads import ReadsCounted
from flsec.client_apps.poison import is_map_style
from flsec.client_apps.poisoned_dataset import PoisonedDataset
from flsec.errors import ConfigError

__all__ = ["ExtendedDataset", "examples_at", "extended", "num_examples_of"]


def num_examples_of(data: Any) -> int:
    """Return how many examples training data hold: an (x, y) pair of arrays, a ``Dataset``, a ``DataLoader`` of one."""
    if is_pair(data):
        return len(data[1])
    dataset: Any = data.dataset if isinstance(data, DataLoader) else data
    if not is_map_style(dataset) or isinstance(dataset, tuple | list | dict):
        raise _refused(dataset)
    return len(dataset)


def examples_at(data: Any, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return examples of training data as a batch of inputs (k, ...) and labels (k,), copies.

    Args:
        data: as for ``num_examples_of``.
        positions: (k,).
    """
    if is_pair(data):
        x, y = (torch.as_tensor(part[positions]) for part in data)
    else:
        dataset: Any = data.dataset if isinstance(data, DataLoader) else data
        if _gives_batches(dataset):
            x, y = dataset.tensors(positions)
        else:
            x, y = (torch.as_tensor(part) for part in default_collate([dataset[int(i)] for i in positions]))
    return x.clone(), y.long()


def extended(data: Any, x: Tensor, y: Tensor) -> Any:
    """Return training data with samples added behind the client's own, in the client's types; nothing is changed.

    Args:
        data: as for ``num_examples_of``.
        x: (k, ...) inputs to add.
        y: (k,) their labels.
    """
    if is_pair(data):
        return type(data)([_joined(data[0], x), _joined(data[1], y)])
    if isinstance(data, DataLoader) and is_map_style(data.dataset):
        return _extended_loader(data, ExtendedDataset(data.dataset, x, y))
    if is_map_style(data) and not isinstance(data, tuple | list | dict):
        return ExtendedDataset(data, x, y)
    raise _refused(getattr(data, "dataset", data))


class ExtendedDataset(ReadsCounted, Dataset[Any]):
    """A view of a map-style data set of (input, label) pairs with samples added behind its own.

    Args:
        dataset: the client's; not changed, and read only where it is asked for.
        x: (k, ...) inputs to add.
        y: (k,) their labels.
    """

    def __init__(self, dataset: Any, x: Tensor, y: Tensor) -> None:
        self.dataset = dataset
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.dataset) + len(self.y)

    def __getitem__(self, position: Any) -> Any:
        self.note_read()
        if isinstance(position, slice) or np.ndim(position):
            return default_collate([self[int(i)] for i in np.arange(len(self))[position]])
        added = range(len(self))[operator.index(position)] - len(self.dataset)
        if added < 0:
            return self.dataset[position if operator.index(position) >= 0 else added + len(self.dataset)]
        x, y = self._example
        return _like(self.x[added], x), _like(self.y[added], y)

    def tensors(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        """Return a batch at once where the clean data set can; see ``flsec.data.ArrayDataset.tensors``."""
        self.note_read()
        if indices is None:
            return self._with_added(*self.dataset.tensors())
        positions = np.arange(len(self))[np.asarray(indices, dtype=np.intp)]
        clean = positions < len(self.dataset)
        x, y = self._with_added(*self.dataset.tensors(positions[clean]))
        rows = np.empty(len(positions), dtype=np.intp)
        rows[clean] = np.arange(clean.sum())
        rows[~clean] = positions[~clean] - len(self.dataset) + clean.sum()
        return x[rows], y[rows]

    def _with_added(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _joined(x, self.x), _joined(y, self.y)

    @functools.cached_property
    def _example(self) -> tuple[Any, Any]:
        x, y = self.dataset[0]
        return x, y


def _gives_batches(dataset: Any) -> bool:
    if isinstance(dataset, PoisonedDataset | ExtendedDataset):  # they can if what they show can
        return _gives_batches(dataset.dataset)
    return callable(getattr(dataset, "tensors", None))


def _joined(own: Any, added: Tensor) -> Any:
    if tuple(own.shape[1:]) != tuple(added.shape[1:]):
        raise ConfigError(
            f"the attacker's samples must have the shape of the client's, {tuple(own.shape[1:])}; got "
            f"{tuple(added.shape[1:])}. Is auxiliary_data of the same data set?"
        )
    if isinstance(own, Tensor):
        return torch.cat([own, added.to(own)])
    return np.concatenate([own, added.numpy().astype(own.dtype)])


def _like(value: Tensor, example: Any) -> Any:
    """Return a value in the type that the client's data set gives."""
    if isinstance(example, Tensor):
        return value.to(example)
    if isinstance(example, np.ndarray | np.generic):
        converted = value.numpy().astype(example.dtype)
        return converted if isinstance(example, np.ndarray) else converted[()]
    if isinstance(example, int | float | list):
        kind: Any = type(example)
        return kind(value.tolist())
    return value


def _extended_loader(loader: DataLoader[Any], dataset: ExtendedDataset) -> DataLoader[Any]:
    sampler = loader.sampler
    if type(sampler) not in (RandomSampler, SequentialSampler) or type(loader.batch_sampler) is not BatchSampler:
        raise ConfigError(
            "samples can be added to a DataLoader with a batch_size and, at most, shuffle=True; this one has a "
            f"{type(sampler).__name__} and batch_size {loader.batch_size}. Hold the data set instead, and make the "
            "DataLoader in fit."
        )
    if isinstance(sampler, RandomSampler):
        longer: Any = RandomSampler(dataset, replacement=sampler.replacement, generator=sampler.generator)
    else:
        longer = SequentialSampler(dataset)
    copied = copy.copy(loader)  # the same workers and random numbers
    assert loader.batch_size is not None
    batches = BatchSampler(longer, loader.batch_size, loader.drop_last)
    vars(copied).update(dataset=dataset, sampler=longer, batch_sampler=batches, _iterator=None)
    return copied


def _refused(dataset: Any) -> ConfigError:
    return ConfigError(
        "training data must be a torch Dataset with positions and a length, a DataLoader of one, or an (x, y) pair of "
        f"arrays; got {type(dataset).__name__}."
    )
