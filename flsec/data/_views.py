"""Views of a torch data set: with some examples changed, with others added, without the first."""

import functools
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from flsec.data._keys import Keys, is_example, poisoned_batch, replaced
from flsec.data._poison import Poison
from flsec.data._reads import ReadsCounted
from flsec.data._values import changed_entry, is_frame, joined, like
from flsec.data.training_data import is_hugging_face, no_example

__all__ = ["ExtendedDataset", "PoisonedDataset", "gives_batches", "rest"]


def gives_batches(dataset: Any) -> bool:
    """Return whether a data set hands out whole batches; see ``flsec.data.ArrayDataset.tensors``."""
    if isinstance(dataset, View):  # they can if what they show can
        return gives_batches(dataset.dataset)
    return callable(getattr(dataset, "tensors", None))


class View(ReadsCounted, Dataset[Any]):
    """A view of a map-style data set.

    Args:
        dataset: the client's; not changed, and read only where it is asked for.
        keys: where an example has its inputs and its label.
    """

    def __init__(self, dataset: Any, keys: Keys) -> None:
        self.dataset = dataset
        self.keys = keys

    def __getitems__(self, positions: Any) -> list[Any]:
        """Return several examples, as torch's loaders and Hugging Face's data sets do."""
        return [self[position] for position in positions]


class PoisonedDataset(View):
    """A view of a map-style data set of examples, (input, label, ...) or dictionaries, with some of them changed.

    Args:
        dataset: the clean data; not changed.
        poison: how examples are changed.
        keys: where an example has its inputs and its label.

    Example:
        >>> clean = [(1.0, 5), (2.0, 6)]
        >>> poisoned = PoisonedDataset(clean, Poison(labels=lambda y: 0 * y, chosen=np.array([False, True])))
        >>> [poisoned[i] for i in range(len(poisoned))], clean[1]
        ([(1.0, 5), (2.0, 0)], (2.0, 6))
    """

    def __init__(self, dataset: Any, poison: Poison, keys: Keys = Keys()) -> None:  # noqa: B008 - a value
        super().__init__(dataset, keys)
        self.poison = poison

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        self.note_read()
        item = self.dataset[position]
        if not is_example(item):
            raise no_example(self.dataset, item)
        if isinstance(position, slice) or np.ndim(position) or is_frame(item):  # a batch, from one that gives batches
            return poisoned_batch(item, self.keys, self.poison, np.atleast_1d(np.arange(len(self))[position]))
        return self._poisoned(item, position)

    def __getitems__(self, positions: Any) -> list[Any]:
        """Return several examples, as torch's loaders and Hugging Face's data sets do."""
        at_once = getattr(self.dataset, "__getitems__", None)
        if at_once is None:
            return super().__getitems__(positions)
        self.note_read()
        return [self._poisoned(item, position) for item, position in zip(at_once(positions), positions, strict=True)]

    def tensors(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        """Return a batch at once where the clean data set can; see ``flsec.data.ArrayDataset.tensors``."""
        self.note_read()
        x, y = self.dataset.tensors(indices)
        positions = np.arange(len(self)) if indices is None else np.asarray(indices)
        return self.poison.apply(x, y, positions)

    def _poisoned(self, item: Any, position: Any) -> Any:
        if self.poison.chosen is not None and not self.poison.chosen[position]:
            return item
        news: dict[Any, Any] = {}
        for change, of in ((self.poison.inputs, self.keys.of_inputs), (self.poison.labels, self.keys.of_labels)):
            if change is not None:
                key = of(item)
                news[key] = changed_entry(item[key], change)
        return replaced(item, news)


class ExtendedDataset(View):
    """A view of a map-style data set with examples added behind its own.

    Args:
        dataset: the client's; not changed, and read only where it is asked for.
        x: (k, ...) inputs to add.
        y: (k, ...) their labels.
        keys: where an example has its inputs and its label.
    """

    def __init__(self, dataset: Any, x: Tensor, y: Tensor, keys: Keys = Keys()) -> None:  # noqa: B008 - a value
        super().__init__(dataset, keys)
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
        return self._added(added)

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
        return joined(x, self.x), joined(y, self.y)

    def _added(self, i: int) -> Any:
        example = self._example
        inputs, labels = self.keys.of_inputs(example), self.keys.of_labels(example)
        x = like(self.x[i], example[inputs])
        return replaced(example, {**_masks(example, x), inputs: x, labels: like(self.y[i], example[labels])})

    @functools.cached_property
    def _example(self) -> Any:
        example = self.dataset[0]
        if not is_example(example):
            raise no_example(self.dataset, example)
        return example


def _masks(example: Any, x: Any) -> dict[Any, Any]:
    """Return a mask that hides none of the tokens x, where an example has one."""
    if not isinstance(example, tuple | list) and "attention_mask" in example:
        mask = like(torch.ones(len(x), dtype=torch.int64), example["attention_mask"])
        return {"attention_mask": mask}
    return {}


class Rest(Subset[Any]):
    """A view of a data set without its first examples, for one that hands out whole batches."""

    def tensors(self, indices: Any = None) -> Any:
        """Return a batch at once; see ``flsec.data.ArrayDataset.tensors``."""
        positions = np.asarray(self.indices)
        return self.dataset.tensors(positions if indices is None else positions[np.asarray(indices)])  # type: ignore[attr-defined]


def rest(dataset: Any, count: int) -> Any:
    """Return a data set without its first ``count`` examples."""
    if type(dataset) is TensorDataset:
        return TensorDataset(*(tensor[count:] for tensor in dataset.tensors))
    if is_hugging_face(dataset):
        return dataset.select(range(count, len(dataset)))
    return (Rest if gives_batches(dataset) else Subset)(dataset, range(count, len(dataset)))
