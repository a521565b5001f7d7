"""Smaller data sets: a part of the samples, every class in proportion."""

import dataclasses
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Gt, Le

from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["take_subset"]

Size = PositiveCount | Annotated[float, Gt(0), Le(1)]  # a number of samples, or a share of them


def take_subset(source: DataSource, *, train: Size | None = None, test: Size | None = None) -> DataSource:
    """Return a source with a part of its samples; natural ids are kept in step.

    The samples are drawn at random, but the same whatever the seed of the run, so that runs with several seeds differ
    in what they do and not in their data. Where labels are classes, each class keeps its share of the samples.

    Args:
        source: the whole data set; not changed.
        train: how many training samples if an int, a share of them if a float (``1`` is one sample, ``1.0`` all);
            None: all.
        test: likewise of the test set.

    Raises:
        ConfigError: more samples asked for than there are, or none left.

    Example:
        >>> from flsec.data import load_dataset
        >>> small = take_subset(load_dataset("digits"), train=100, test=0.1)
        >>> len(small.train), len(small.test)
        (100, 36)
    """
    changes: dict[str, Any] = {}
    if train is not None:
        rows = _rows(source.train, train, source.name, "train")
        groups = None if source.groups is None else {kind: ids[rows] for kind, ids in source.groups.items()}
        changes |= {"train": source.train.subset(rows), "groups": groups}
    if test is not None:
        changes["test"] = source.test.subset(_rows(source.test, test, source.name, "test"))
    return dataclasses.replace(source, **changes)


def _rows(dataset: ArrayDataset, size: Size, name: str, part: str) -> npt.NDArray[np.int64]:
    total = len(dataset)
    count = size if isinstance(size, int) else round(size * total)
    if not 1 <= count <= total:
        raise ConfigError(
            f"a subset must be 1 to {total} samples, the {part} samples that {name} has; got {size}"
            f"{'' if isinstance(size, int) else f', which is {count}'}. Use for instance {max(1, total // 10)}.",
            parameter=part,
        )
    rng = numpy_generator(0, purpose=f"subset of {part}")
    labels = dataset.labels if dataset.labels.ndim == 1 else np.zeros(total, dtype=np.int64)
    return stratified_rows(labels, count, rng)


def stratified_rows(labels: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return ``count`` positions, rising, with every class's share of them as near to its share of all as can be.

    Args:
        labels: (n,) classes.
        count: at most n.
        rng: draws within each class; and the order in which classes with equal remainders get one more.

    Example:
        >>> rows = stratified_rows(np.repeat([0, 1], [30, 10]), 8, np.random.default_rng(0))
        >>> int((rows < 30).sum()), int((rows >= 30).sum())
        (6, 2)
    """
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = count * sizes / len(labels)
    counts = np.floor(exact).astype(np.int64)
    order = rng.permutation(len(sizes))
    largest = order[np.argsort(-(exact - counts)[order], kind="stable")]
    counts[largest[: count - int(counts.sum())]] += 1
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place within its class
    return np.sort(by_class[rank < np.repeat(counts, sizes)])
