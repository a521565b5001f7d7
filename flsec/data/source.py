"""Data sets as arrays that are read, decoded and scaled only where they are touched."""

import dataclasses
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flsec.data._lazy import LazyArray, map_file
from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError
from flsec.tasks import CLASSIFICATION, NOT_COUNTED, Task

__all__ = ["ArrayDataset", "DataSource"]

IndexArray = npt.NDArray[np.int64]


class ArrayDataset(Dataset[tuple[Tensor, Any]]):
    """Samples in one array with their labels; a torch data set that also hands out whole batches at once.

    ``dataset[i]`` is ``(x, label)``: x float32 of shape ``input_shape``, or int64 for tokens; label an int, or for
    sequences of labels a tensor (L,). ``tensors`` returns many
    samples in one step, which is several times faster than collecting them one by one.

    A value v of the array becomes v / divisor, so 8-bit images lie in [0, 1], and then (v / divisor - mean) / std
    where a normalisation is set. None is set by default: triggers, boxes and reconstruction errors are
    stated for pixels in [0, 1].

    Sending a set to another process costs little: a ``np.memmap`` of a file travels as the file's path, an array in
    memory as the rows of this view only.

    Args:
        data: (n, ...) array of numbers, in memory or a ``np.memmap``. Not copied, not modified.
        labels: (n,) integers, 0 or more; or (n, L), for a label at each place of a sequence, where -100 marks places
            that are not counted.
        divisor: what the values are divided by; default 255 for 8-bit unsigned data, 1 for all other.
        mean: subtracted after the division, one number per channel (or one for all); needs ``std``.
        std: divided by last, likewise; needs ``mean``.
        tokens: the array holds token numbers, which stay whole numbers and are not scaled.

    Attributes:
        labels: (n,) or (n, L) int64, the labels of this view.
        input_shape: shape of one sample.

    Raises:
        ConfigError: shapes, labels or scaling that do not fit together.

    Example:
        >>> pixels = np.array([[[0, 255]], [[51, 102]]], dtype=np.uint8)  # two images of 1 x 2 pixels
        >>> dataset = ArrayDataset(pixels, [3, 7])
        >>> dataset[1]
        (tensor([[0.2000, 0.4000]]), 7)
        >>> x, y = dataset.subset([1]).tensors()
        >>> tuple(x.shape), y
        ((1, 1, 2), tensor([7]))
    """

    def __init__(
        self,
        data: npt.NDArray[Any] | LazyArray,
        labels: npt.ArrayLike,
        *,
        divisor: float | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        tokens: bool = False,
    ):
        self.labels = _as_labels(labels)
        self.tokens = tokens
        self._data = _by_path(data)
        self._rows: IndexArray | None = None  # None: all of them
        if len(self.labels) != data.shape[0]:
            raise ConfigError(
                f"ArrayDataset needs one label per sample; got {len(self.labels)} labels for {data.shape[0]} samples."
            )
        self.divisor = (255.0 if data.dtype == np.uint8 else 1.0) if divisor is None else float(divisor)
        if not (np.isfinite(self.divisor) and self.divisor > 0):
            raise ConfigError(f"ArrayDataset: divisor must be finite and more than 0; got {divisor!r}.")
        self._normalisation = _as_normalisation(mean, std, self.input_shape)
        if tokens and (data.dtype.kind not in "iu" or divisor is not None or self._normalisation):
            raise ConfigError(
                f"ArrayDataset: tokens must be whole numbers without divisor, mean and std; got {data.dtype}, "
                f"divisor={divisor}, mean={mean!r}, std={std!r}."
            )

    @property
    def mean(self) -> tuple[float, ...] | None:
        """What is subtracted after the division, per channel; None: no normalisation."""
        return self._normalisation[0] if self._normalisation else None

    @property
    def std(self) -> tuple[float, ...] | None:
        """What is divided by last, per channel; None: no normalisation."""
        return self._normalisation[1] if self._normalisation else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._data.shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        position = range(len(self))[index]  # negative and out of range as in a list
        x, y = self.tensors(np.array([position]))
        return x[0], int(y[0]) if y.ndim == 1 else y[0]

    def __repr__(self) -> str:
        return f"ArrayDataset({len(self)} samples of shape {self.input_shape})"

    def tensors(self, indices: npt.ArrayLike | None = None) -> tuple[Tensor, Tensor]:
        """Return samples and labels, reading no other row of the array.

        Args:
            indices: (k,) positions in this view; default all, in order.

        Returns:
            x (k, *input_shape) float32, or int64 for tokens, and y (k,) or (k, L) int64, both new.

        Raises:
            ConfigError: a position that is not in this view.
        """
        positions = np.arange(len(self)) if indices is None else self._positions(indices)
        rows = positions if self._rows is None else self._rows[positions]
        if self.tokens:
            tokens = self._data[rows].astype(np.int64, copy=False)
            return torch.from_numpy(tokens), torch.from_numpy(self.labels[positions])
        values = self._data[rows].astype(np.float32, copy=False)  # rows taken by number are a copy already
        x = torch.from_numpy(values).div_(self.divisor)
        if self._normalisation:
            mean, std = map(torch.tensor, self._normalisation)
            channel = (-1, *(1 for _ in self.input_shape[1:]))
            x.sub_(mean.view(channel)).div_(std.view(channel))
        return x, torch.from_numpy(self.labels[positions])

    def subset(self, indices: npt.ArrayLike) -> "ArrayDataset":
        """Return a view of some samples, in the given order; the array itself is shared.

        Args:
            indices: (k,) positions in this view; a repeated one is a sample seen twice.

        Raises:
            ConfigError: a position that is not in this view.
        """
        positions = self._positions(indices)
        view = self._copy()
        view.labels = self.labels[positions]
        view._rows = positions.copy() if self._rows is None else self._rows[positions]
        return view

    def normalized(self, mean: float | Sequence[float], std: float | Sequence[float]) -> "ArrayDataset":
        """Return the same samples with another normalisation; see the class for the arguments."""
        view = self._copy()
        view._normalisation = _as_normalisation(mean, std, self.input_shape)
        return view

    def scaled(self, factor: float) -> "ArrayDataset":
        """Return the same samples with every value multiplied: with 255, pixels lie in [0, 255].

        Raises:
            ConfigError: tokens, which are no amounts, or a normalisation, which would undo it.
        """
        if self.tokens or self._normalisation:
            what = "tokens" if self.tokens else "normalised values"
            raise ConfigError(f"{what} cannot be scaled; got a factor of {factor}. Use 1.", parameter="factor")
        view = self._copy()
        view.divisor = self.divisor / factor
        return view

    def _copy(self) -> "ArrayDataset":
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        return view

    def _positions(self, indices: npt.ArrayLike) -> IndexArray:
        positions = np.asarray(indices)
        if positions.size == 0:
            return np.zeros(0, dtype=np.int64)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise ConfigError(
                f"positions must be a list of integers; got {positions.dtype} of shape {positions.shape}. "
                "For a mask, pass np.flatnonzero(mask)."
            )
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= len(self):
            raise ConfigError(f"positions must lie in 0 .. {len(self) - 1}; got {low} .. {high}.")
        return positions.astype(np.int64, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(self._data, np.ndarray) and self._rows is not None:
            state["_data"], state["_rows"] = self._data[self._rows], None
        state["labels"] = _compact(self.labels)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.labels = self.labels.astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class DataSource:
    """A data set ready to be dealt out: training and test samples and what is known about them.

    Args:
        name: what reports call it.
        train: the samples that clients share.
        test: the samples that measure the global model; never dealt to anyone.
        num_classes: C; labels are 0 .. C - 1. Where tokens are predicted, the size of the vocabulary.
        input_shape: shape of one sample, such as (1, 28, 28).
        class_names: C names, if the classes have any.
        groups: natural ids of the training samples by kind, such as ``{"writer": (n,) int64}``; None: has none.
        task: what is learned from it.
        vocabulary: turns text into tokens and back, where the inputs are tokens.

    Raises:
        ConfigError: the parts contradict each other.

    Example:
        >>> data = ArrayDataset(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 0, 1])
        >>> source = DataSource(name="mine", train=data, test=data, num_classes=2, input_shape=(1, 8, 8))
        >>> source.groups is None, source.task.name
        (True, 'classification')
    """

    name: str
    train: ArrayDataset
    test: ArrayDataset
    num_classes: int
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...] | None = None
    groups: Mapping[str, IndexArray] | None = None
    task: Task = CLASSIFICATION
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        for part, dataset in (("train", self.train), ("test", self.test)):
            if dataset.input_shape != self.input_shape:
                raise ConfigError(
                    f"{self.name}: input_shape must be the shape of every sample; got {self.input_shape}, "
                    f"but {part} has {dataset.input_shape}."
                )
            self._check_kind(part, dataset)
            if len(dataset) and int(dataset.labels.max()) >= self.num_classes:
                raise ConfigError(
                    f"{self.name}: labels must lie in 0 .. num_classes - 1 = {self.num_classes - 1}; "
                    f"{part} has {int(dataset.labels.max())}."
                )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ConfigError(
                f"{self.name}: needs one class name per class, {self.num_classes}; got {len(self.class_names)}."
            )
        for kind, ids in (self.groups or {}).items():
            if ids.shape != (len(self.train),):
                raise ConfigError(
                    f"{self.name}: groups[{kind!r}] needs one id per training sample, shape ({len(self.train)},); "
                    f"got {ids.shape}."
                )

    def _check_kind(self, part: str, dataset: ArrayDataset) -> None:
        tokens, sequence = self.task.inputs == "tokens", self.task.labels == "sequence"
        if dataset.tokens != tokens or (tokens and self.vocabulary is None):
            raise ConfigError(
                f"{self.name}: the task {self.task.name} has {self.task.inputs} as inputs; got {part} with "
                f"tokens={dataset.tokens} and vocabulary={self.vocabulary!r:.60}. Data of tokens need tokens=True, a "
                "task on tokens and a vocabulary."
            )
        if (dataset.labels.ndim == 2) != sequence:
            raise ConfigError(
                f"{self.name}: the task {self.task.name} has {'(n, L)' if sequence else '(n,)'} labels; {part} has "
                f"labels of shape {dataset.labels.shape}."
            )

    def natural_ids(self, kind: str | None = None) -> IndexArray | None:
        """Return (n,) ids of the training samples' natural clients, or None if the set has none.

        Args:
            kind: which, such as ``"writer"``; default the first.

        Raises:
            ConfigError: there is no such kind.
        """
        if not self.groups:
            if kind is None:
                return None
            raise ConfigError(f"{self.name} has no natural ids; asked for {kind!r}.")
        if kind is not None and kind not in self.groups:
            raise ConfigError(f"{self.name} has no natural ids {kind!r}; it has: {', '.join(self.groups)}.")
        return self.groups[kind if kind is not None else next(iter(self.groups))]

    def scaled(self, factor: float) -> "DataSource":
        """Return the same source with the values of training and test samples multiplied; see ``ArrayDataset``."""
        return dataclasses.replace(self, train=self.train.scaled(factor), test=self.test.scaled(factor))

    def normalized(self, mean: float | Sequence[float], std: float | Sequence[float]) -> "DataSource":
        """Return the same source with training and test samples normalised; see ``ArrayDataset``."""
        return dataclasses.replace(self, train=self.train.normalized(mean, std), test=self.test.normalized(mean, std))


def _as_labels(labels: npt.ArrayLike) -> IndexArray:
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or (array.size and array.dtype.kind not in "iu"):
        raise ConfigError(f"labels must be (n,) or (n, L) integers; got {array.dtype} of shape {array.shape}.")
    counted = array if array.ndim == 1 else array[array != NOT_COUNTED]
    if counted.size and int(counted.min()) < 0:
        raise ConfigError(f"labels must be 0 or more; got {int(counted.min())}.")
    return array.astype(np.int64)


def _as_normalisation(
    mean: float | Sequence[float] | None, std: float | Sequence[float] | None, input_shape: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ConfigError(f"a normalisation needs both mean and std; got mean={mean!r}, std={std!r}.")
    pair = tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(std).tolist())
    channels = input_shape[0] if input_shape else 1
    if any(len(value) not in (1, channels) for value in pair):
        raise ConfigError(
            f"mean and std need one number, or one per channel ({channels}); got mean={mean!r}, std={std!r}."
        )
    if not np.isfinite(pair[0]).all() or not np.isfinite(pair[1]).all() or min(pair[1]) <= 0:
        raise ConfigError(f"mean must be finite and std finite and more than 0; got mean={mean!r}, std={std!r}.")
    return pair


def _compact(labels: IndexArray) -> npt.NDArray[Any]:
    """Labels in the smallest type that holds them."""
    if not labels.size:
        return labels
    return labels.astype(np.result_type(*(np.min_scalar_type(int(end)) for end in (labels.min(), labels.max()))))


def _by_path(data: npt.NDArray[Any] | LazyArray) -> npt.NDArray[Any] | LazyArray:
    """Turn a map of a file, or a contiguous part of one, into the recipe to map it again; keep the rest as it is."""
    if not isinstance(data, np.memmap) or not data.flags.c_contiguous or data.mode == "c":
        return data
    whole: Any = data
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not isinstance(whole.base, mmap.mmap) or whole.filename is None:
        return data  # a copy in memory, or no file of its own
    offset = whole.offset + data.ctypes.data - whole.ctypes.data
    return map_file(str(whole.filename), data.dtype.str, data.shape, offset)
