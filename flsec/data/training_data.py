"""Training data in the shapes that people have, behind one adapter: count, read, poison, extend, part."""

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_loader, is_tensor
from flsec.data._keys import Key, Keys, is_example, poisoned_batch, replaced
from flsec.data._poison import Poison
from flsec.data._values import described, is_column, is_frame, joined, stacked, taken
from flsec.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TrainingData", "training_data"]


class TrainingData(ABC):
    """Training data of one shape. Whatever is made of them has that shape again; they themselves are never changed.

    Args:
        data: the client's.
        keys: where an example has its inputs and its label.

    Example:
        >>> data = training_data((np.zeros((3, 2)), np.array([0, 1, 2])))  # finds the subclass for what it is given
        >>> isinstance(data, TrainingData), len(data)
        (True, 3)
    """

    def __init__(self, data: Any, keys: Keys) -> None:
        self.data = data
        self.keys = keys

    def __len__(self) -> int:
        return len(self.data)

    @abstractmethod
    def take(self, positions: NDArray[np.intp]) -> tuple[Any, Any]:
        """Return inputs (k, ...) and labels (k, ...) of some examples, as arrays of the data's own kind.

        Args:
            positions: (k,), each from 0 to n - 1.
        """

    @abstractmethod
    def poisoned(self, poison: Poison) -> Any:
        """Return the data with some examples changed; those that are read one by one, where they are read."""

    @abstractmethod
    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        """Return the data with examples added behind the client's own, in the client's types.

        What an example has beside inputs and label is that of the client's first one.

        Args:
            x: (k, ...) inputs to add.
            y: (k, ...) their labels.
        """

    @abstractmethod
    def without_first(self, count: int) -> Any:
        """Return the data without the first ``count`` examples."""

    def tensors(self, positions: NDArray[np.intp]) -> tuple["Tensor", "Tensor"]:
        """Return inputs (k, ...) and labels (k, ...), int64, of some examples as tensors, copies."""
        x, y = self.take(positions)
        return _as_tensor(x).clone(), _as_tensor(y).long()


def training_data(
    data: Any, *, inputs_key: Key | Sequence[str] | None = None, labels_key: Key | None = None
) -> TrainingData:
    """Return training data behind the adapter.

    Args:
        data: a pair (x, y) of arrays, tensors, lists or frames, or more of them; a dictionary of such columns; a pandas
            frame; a list of examples; a torch ``Dataset`` with positions and a length; a Hugging Face ``Dataset``; or a
            ``DataLoader`` of one of the last three. Examples are tuples (input, label, ...) or dictionaries. Not
            modified.
        inputs_key: the key of the inputs in dictionaries, their position in tuples, or their columns in a frame; None:
            found by its usual name, or the first.
        labels_key: likewise of the labels; None: found by its usual name, or the second.

    Raises:
        ConfigError: data of another shape.

    Example:
        >>> data = {"image": np.zeros((3, 2)), "label": np.array([0, 1, 2])}
        >>> poisoned = training_data(data).poisoned(Poison(labels=lambda y: 9 - y))
        >>> poisoned["label"], data["label"]
        (array([9, 8, 7]), array([0, 1, 2]))
    """
    keys = Keys(inputs_key, labels_key)
    if is_loader(data):
        return Loader(data, keys)
    if is_columns(data):
        return Columns(data, keys)
    if isinstance(data, list | tuple):
        if data and not is_example(data[0]):
            raise _refused(data)
        return Samples(data, keys)
    if is_hugging_face(data):
        from flsec.data._training_data_hugging_face import HuggingFace

        return HuggingFace(data, keys)
    if not is_map_style(data):
        raise _refused(data)
    return MapStyle(data, keys)


# --- columns ----------------------------------------------------------------------------------------------------


def is_columns(data: Any) -> bool:
    """Return whether training data are columns: a frame, or a dictionary, a pair or a longer tuple of arrays."""
    if is_frame(data):
        return True
    named = isinstance(data, Mapping)
    if not named and not isinstance(data, tuple | list):
        return False
    parts = list(data.values()) if named else list(data)
    if len(parts) < 2 or not all(map(is_column, parts)) or len({len(part) for part in parts}) > 1:
        return False
    if named or any(hasattr(part, "shape") for part in parts):
        return True
    alike = all(len({type(entry) for entry in part}) < 2 for part in parts)  # lists, and no examples
    return alike and (isinstance(data, tuple) or any(isinstance(entry, str) for entry in parts[0][:1]))


class Columns(TrainingData):
    """A pair of arrays, a dictionary of arrays, a frame: one batch of all examples."""

    def __len__(self) -> int:
        return len(self.data) if is_frame(self.data) else len(self._columns[0])

    @property
    def _columns(self) -> list[Any]:
        return list(self.data.values() if isinstance(self.data, Mapping) else self.data)

    def take(self, positions: NDArray[np.intp]) -> tuple[Any, Any]:
        x, y = self.keys.split(self.data)
        return taken(x, positions), taken(y, positions)

    def poisoned(self, poison: Poison) -> Any:
        return poisoned_batch(self.data, self.keys, poison, np.arange(len(self)))

    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        inputs, labels = self.keys.of_inputs(self.data), self.keys.of_labels(self.data)
        if is_frame(self.data):
            return self._extended_frame(inputs, labels, x, y)
        names = self.data if isinstance(self.data, Mapping) else range(len(self.data))
        news = {name: self._filled(name, x) for name in names if self.data[name] is not self.data[labels]}
        return replaced(self.data, {**news, inputs: joined(self.data[inputs], x), labels: joined(self.data[labels], y)})

    def without_first(self, count: int) -> Any:
        if is_frame(self.data):
            return self.data.iloc[count:]
        names = self.data if isinstance(self.data, Mapping) else range(len(self.data))
        return replaced(self.data, {name: taken(self.data[name], slice(count, None)) for name in names})

    def _filled(self, name: Any, x: "Tensor") -> Any:
        """Return a column other than inputs and labels, with entries for added examples."""
        column = self.data[name]
        if not len(column):
            return column
        if name == "attention_mask":  # which hides none of the added tokens
            import torch

            return joined(column, torch.ones(tuple(x.shape)))
        first = taken(column, np.zeros(len(x), dtype=np.intp))
        if is_tensor(column):
            import torch

            return torch.cat([column, first])
        if isinstance(column, list):
            return [*column, *first]
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(column, pandas.DataFrame | pandas.Series):
            return pandas.concat([column, first], ignore_index=True)
        return np.concatenate([column, first])

    def _extended_frame(self, inputs: Any, labels: Any, x: "Tensor", y: "Tensor") -> Any:
        longer = self.data.iloc[[*range(len(self)), *(0 for _ in y)]].reset_index(drop=True)
        for name, added in ((inputs, x), (labels, y)):
            longer[name] = joined(self.data[name], added)
        return longer


def views_of(data: Any) -> Iterator[Any]:
    """Yield data, and what they are a view or a loader of, to the last."""
    while data is not None:
        yield data
        if is_hugging_face(data):
            from flsec.data._training_data_hugging_face import behind

            data = behind(data)
        else:
            data = getattr(data, "dataset", None)


# --- examples one by one ------------------------------------------------------------------------------------------


def is_map_style(dataset: Any) -> bool:
    """Return whether a data set has positions and a length."""
    if isinstance(dataset, Mapping | str | bytes) or hasattr(dataset, "dtype"):
        return False
    torch_data = sys.modules.get("torch.utils.data")
    streams = torch_data is not None and isinstance(dataset, torch_data.IterableDataset)
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not streams


def is_hugging_face(dataset: Any) -> bool:
    """Return whether this is a Hugging Face ``Dataset``."""
    kind = getattr(sys.modules.get("datasets"), "Dataset", None)
    return isinstance(kind, type) and isinstance(dataset, kind) and hasattr(kind, "with_transform")


class MapStyle(TrainingData):
    """A torch ``Dataset`` with positions and a length, or what behaves like one; what is made of it are views."""

    def take(self, positions: NDArray[np.intp]) -> tuple[Any, Any]:
        from flsec.data._views import gives_batches

        if gives_batches(self.data):
            return self.data.tensors(positions)  # type: ignore[no-any-return]
        parts = [self.keys.split(example) for example in self.examples(positions)]
        return stacked(x for x, _ in parts), stacked(y for _, y in parts)

    def examples(self, positions: NDArray[np.intp]) -> list[Any]:
        """Return some examples."""
        found = [self.data[int(position)] for position in positions]
        for example in found[:1]:
            if not is_example(example):
                raise no_example(self.data, example)
        return found

    def poisoned(self, poison: Poison) -> Any:
        from flsec.data._views import PoisonedDataset

        return PoisonedDataset(self.data, poison, self.keys)

    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        from flsec.data._views import ExtendedDataset

        return ExtendedDataset(self.data, x, y, self.keys)

    def without_first(self, count: int) -> Any:
        from flsec.data._views import rest

        return rest(self.data, count)


class Samples(MapStyle):
    """A list or tuple of examples."""

    def poisoned(self, poison: Poison) -> Any:
        return type(self.data)(list(super().poisoned(poison)))

    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        return type(self.data)(list(super().extended(x, y)))

    def without_first(self, count: int) -> Any:
        return self.data[count:]


class Loader(TrainingData):
    """A ``DataLoader``: its data set is replaced, all else stays."""

    def __init__(self, data: Any, keys: Keys) -> None:
        super().__init__(data, keys)
        if not is_map_style(data.dataset):
            raise _refused(data.dataset)
        self.examples = MapStyle(data.dataset, keys)

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, positions: NDArray[np.intp]) -> tuple[Any, Any]:
        try:
            return self.examples.take(positions)
        except ConfigError:
            if self.data.batch_size is None or not len(positions):
                raise
            batch = self.data.collate_fn(self.examples.examples(positions))
            if not is_example(batch):
                raise
            return self.keys.split(batch)

    def poisoned(self, poison: Poison) -> Any:
        return self._with(dataset=self.examples.poisoned(poison))  # the same batches, workers and random numbers

    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        return self._resized("added to", self.examples.extended(x, y))

    def without_first(self, count: int) -> Any:
        return self._resized("held out of", self.examples.without_first(count))

    def _with(self, **attributes: Any) -> Any:
        loader = copy.copy(self.data)
        vars(loader).update(attributes, _iterator=None)
        return loader

    def _resized(self, what: str, dataset: Any) -> Any:
        from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

        sampler, size = self.data.sampler, self.data.batch_size
        usual = type(self.data.batch_sampler) is BatchSampler
        if size is None or not usual or type(sampler) not in (RandomSampler, SequentialSampler):
            raise ConfigError(
                f"examples can be {what} a DataLoader with a batch_size and, at most, shuffle=True; this one has a "
                f"{type(sampler).__name__} and batch_size {size}. Hold the data set instead, and make the DataLoader "
                "in fit."
            )
        if isinstance(sampler, RandomSampler):
            other: Any = RandomSampler(dataset, replacement=sampler.replacement, generator=sampler.generator)
        else:
            other = SequentialSampler(dataset)
        batches = BatchSampler(other, size, self.data.drop_last)
        return self._with(dataset=dataset, sampler=other, batch_sampler=batches)


# --- what is refused --------------------------------------------------------------------------------------------


def no_example(dataset: Any, example: Any) -> ConfigError:
    """Return the error that says that a data set does not give examples."""
    return ConfigError(
        "a training example must be a tuple (input, label, ...) or a dictionary; "
        f"{type(dataset).__name__} gave {described(example)}. Wrap it in one that does."
    )


def _refused(data: Any) -> ConfigError:
    kind, advice = type(data).__name__, ""
    if isinstance(data, list | tuple) and len(data):
        kind = f"{kind} of {type(data[0]).__name__}"
        if len(data) == 2 and all(map(is_column, data)):
            advice = f" Its parts must have the same length; they have {len(data[0])} and {len(data[1])}."
    elif hasattr(data, "__iter__") and not isinstance(data, Mapping | str | bytes) and not hasattr(data, "dtype"):
        advice = " A stream has no positions, by which examples are chosen: hold its examples in a list."
    elif isinstance(data, Mapping) and data:
        kind = f"{kind} of {', '.join(f'{key!r}: {described(value)}' for key, value in data.items())}"
        advice = " Name one of its parts where it holds several data sets, such as train."
    return ConfigError(
        "training data must be a torch Dataset with positions and a length, a DataLoader of one, a Hugging Face "
        "Dataset, a list of examples, a pandas frame, a dictionary of arrays, or an (x, y) pair of arrays; got "
        f"{kind}.{advice}"
    )


def _as_tensor(values: Any) -> "Tensor":
    import torch

    if is_frame(values) or hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if isinstance(values, list):
        return stacked(values)
    if str(getattr(values, "dtype", "")) == "object":
        raise ConfigError(f"training data must be numbers to be read as tensors; got {described(values)}.")
    return torch.as_tensor(values if is_tensor(values) else np.array(values))
