"""What the readers of a user's own files share: where the file is, how labels become classes, what is held out."""

import functools
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._roots import check_stays, roots
from flsec.data.source import ArrayDataset, DataSource
from flsec.data.subset import stratified_rows
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator

__all__ = ["DEFAULT_TEST_FRACTION", "Samples", "check_one_test_set", "class_numbers", "find_path", "own_source"]

DEFAULT_TEST_FRACTION = 0.2


class Samples(NamedTuple):
    """Samples as a file has them."""

    x: Any  # (n, ...) an array, or what an array of row numbers indexes, with a shape and a dtype
    y: npt.NDArray[Any]  # (n,) labels: whole numbers or texts
    client: npt.NDArray[Any] | None = None  # (n,) whose sample it is
    names: tuple[str, ...] | None = None  # of all classes, if the labels number them already


def find_path(name: str, root: str | None, path: str, parameter: str) -> Path:
    """Return a user's own file or folder.

    Args:
        name: of the data set, for the message.
        root: as the user gave it; a relative path starts there, or at one of the usual places.
        path: as the user gave it.
        parameter: which parameter gave it.

    Raises:
        ConfigError: it is not there, or a relative path leads out of the folder that it starts from.
    """
    given = Path(path).expanduser()
    check_stays(name, path, parameter)
    places = [given] if given.is_absolute() else [place / given for place in roots(root)]
    for place in places:
        if place.exists():
            return place.resolve()
    raise ConfigError(
        f"data set {name!r}: {parameter} {path!r} not found. Looked for: {', '.join(map(str, places))}. Give an "
        "absolute path, or set FLSEC_DATA (or the root) to the folder that a relative one starts from.",
        parameter=parameter,
    )


def check_one_test_set(name: str, own: str, test_fraction: float | None) -> None:
    """Refuse a share of the samples for testing where there are test samples already.

    Args:
        name: of the data set.
        own: what those are.
        test_fraction: as the user gave it.

    Raises:
        ConfigError: both are given.
    """
    if test_fraction is not None:
        raise ConfigError(
            f"data set {name!r}: there is a test set, {own}, so nothing is held out for one; got "
            f"test_fraction={test_fraction}. Leave it out.",
            parameter="test_fraction",
        )


def class_numbers(name: str, *parts: npt.NDArray[Any]) -> tuple[tuple[str, ...], list[npt.NDArray[np.int64]]]:
    """Return the names of the classes, sorted (numbers by value), and each part's labels as places among them.

    Raises:
        ConfigError: labels that are neither whole numbers nor texts, or so many different ones that they are none.
    """
    together = np.concatenate(parts)
    if together.dtype.kind not in "iuUb":
        raise ConfigError(f"data set {name!r}: labels must be whole numbers or texts; got {together.dtype}.")
    values, numbers = np.unique(together, return_inverse=True)
    if len(values) > max(10, len(together) // 2):
        raise ConfigError(
            f"data set {name!r}: labels must be classes; got {len(values)} different ones in {len(together)} samples, "
            f"such as {', '.join(map(str, values[:3]))}. Name the column or array that holds the class."
        )
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    return tuple(map(str, values)), np.split(numbers.astype(np.int64), cuts)


def _classes(name: str, parts: list[Samples]) -> tuple[tuple[str, ...], list[npt.NDArray[np.int64]]]:
    if parts[0].names is None:
        return class_numbers(name, *(part.y for part in parts))
    return parts[0].names, [part.y.astype(np.int64) for part in parts]


def own_source(name: str, read: Callable[..., tuple[Samples, Samples | None]], *args: Hashable) -> DataSource:
    """Return the data set that ``read`` returns; what travels to another process is the call.

    Args:
        name: of the data set.
        read: a module-level function that returns the training and test samples, or all samples and None: then
            the share ``args[0]`` (or a fifth) of every class is held out for testing, the same whatever the seed.
        *args: its hashable arguments.

    Raises:
        ConfigError: as ``class_numbers``, or too few samples.
    """
    return _source(name, read, args)


@functools.cache
def _source(name: str, read: Callable[..., Any], args: tuple[Any, ...]) -> DataSource:
    parts, names, labels, rows = _split(name, read, args)
    train, test = (
        ArrayDataset(
            LazyArray(
                _values, name, read, args, k, shape=(len(rows[k]), *parts[k].x.shape[1:]), dtype=parts[k].x.dtype
            ),
            labels[k][rows[k]],
        )
        for k in (0, 1)
    )
    groups = None
    if parts[0].client is not None:
        groups = {"client": np.unique(parts[0].client[rows[0]], return_inverse=True)[1].astype(np.int64)}
    return DataSource(name, train, test, len(names), train.input_shape, class_names=names, groups=groups)


@functools.cache
def _split(name: str, read: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return for training and test: samples, class names, labels, and the rows that belong to the part."""
    train, test = read(*args)
    names, labels = _classes(name, [part for part in (train, test) if part is not None])
    if test is not None:
        if train.x.shape[1:] != test.x.shape[1:]:
            raise ConfigError(
                f"data set {name!r}: training and test samples must have one shape; got {tuple(train.x.shape[1:])} and "
                f"{tuple(test.x.shape[1:])}."
            )
        return (train, test), names, labels, [np.arange(len(part)) for part in labels]
    total = len(train.y)
    count = round((args[0] or DEFAULT_TEST_FRACTION) * total)
    if not 0 < count < total:
        raise ConfigError(
            f"data set {name!r}: test_fraction must leave samples for training and for testing; it takes {count} of "
            f"{total}. Use for instance {DEFAULT_TEST_FRACTION}.",
            parameter="test_fraction",
        )
    held_out = stratified_rows(labels[0], count, numpy_generator(0, purpose="own test set"))
    kept = np.setdiff1d(np.arange(total), held_out)
    return (train, train), names, [labels[0], labels[0]], [kept, held_out]


class _Rows:
    """Some rows of what an array of row numbers indexes."""

    def __init__(self, values: Any, rows: npt.NDArray[np.int64]):
        self._values, self._rows = values, rows

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return np.asarray(self._values[self._rows[positions]])


def _values(name: str, read: Callable[..., Any], args: tuple[Any, ...], part: int) -> _Rows:
    parts, _, _, rows = _split(name, read, args)
    return _Rows(parts[part].x, rows[part])
