"""A data set of Hugging Face's ``datasets``: a folder on disk, or one by its name on the hub."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flsec.data._extras import import_extra
from flsec.data.datasets._own import Samples, check_one_test_set, find_path, own_source
from flsec.data.datasets._pictures import Pictures
from flsec.data.source import DataSource
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, PositiveCount, check_parameters

__all__ = ["huggingface"]

_TITLE = "data set 'huggingface'"
_USUAL = {
    "inputs": ("image", "img", "x", "pixel_values", "features", "data"),
    "label": ("label", "labels", "y", "target", "class", "fine_label", "coarse_label", "character", "digit"),
    "client": ("client", "client_id", "writer_id", "writer", "user_id", "user", "speaker_id", "subject"),
}


class _Wanted(NamedTuple):
    """Which part of a data set is what, as the user said it; None: by its usual name."""

    train_split: str
    test_split: str
    inputs: str | None
    label: str | None
    client: str | None
    size: int | None
    channels: int | None


def huggingface(
    root: str | None = None,
    *,
    path: str,
    inputs: str | None = None,
    label: str | None = None,
    client: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    test_fraction: OpenFraction | None = None,
    size: PositiveCount | None = None,
    channels: Literal[1, 3] | None = None,
) -> DataSource:
    """Return a data set of Hugging Face's library ``datasets``: pictures, or numbers in one column.

    ``path`` is a folder that ``save_to_disk`` wrote, or else a name on the hub, such as ``ylecun/mnist``, which is
    fetched once into Hugging Face's own cache. Rows are read, and pictures decoded, when they are asked for.

    Columns are found by their usual names, such as ``image`` or ``img`` and ``label`` or ``fine_label``, or are named
    here. Texts are refused: which tokens they become is for the data set ``jsonl``.

    Args:
        root: where a relative ``path`` starts; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        path: of the folder, or the name on the hub.
        inputs: column of pictures, or of lists of numbers that have one shape.
        label: column of classes.
        client: column that says whose sample a row is; becomes ``groups["client"]`` for the partitioner ``natural``.
            Default: one with a usual name such as ``writer_id``, if there is any.
        train_split: which split the clients share.
        test_split: which split is the test set.
        test_fraction: share of the samples that is the test set, where there is no such split; default 0.2.
        size: scale every picture to size x size pixels; default: all have one size.
        channels: 1: grey, 3: RGB; default: as the first picture is.

    Returns:
        Inputs (n, ...), pictures as (n, c, height, width), float32, and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: ``datasets`` is not installed, no such data set, split or column, or inputs that are no numbers.

    Source: Lhoest et al., "Datasets: a community library for natural language processing", EMNLP 2021.
    """
    given = {key: value for key, value in locals().items() if key != "root"}
    check_parameters(huggingface, given, name=_TITLE)
    import_extra("datasets", _TITLE)
    try:
        place = str(find_path("huggingface", root, path, "path"))
    except ConfigError as missing:
        if Path(path).expanduser().is_absolute() or path.count("/") > 1:  # no name on the hub
            raise
        place = path
        try:
            _splits(place)
        except ConfigError as error:
            raise ConfigError(f"{missing} As a name on the hub: {error}", parameter="path") from error
    wanted = _Wanted(train_split, test_split, inputs, label, client, size, channels)
    return own_source("huggingface", _read, test_fraction, place, wanted)


def _read(test_fraction: float | None, place: str, wanted: _Wanted) -> tuple[Samples, Samples | None]:
    splits = _splits(place)
    if wanted.train_split not in splits:
        raise ConfigError(
            f"{_TITLE}: {place} has no split {wanted.train_split!r}; it has: {', '.join(splits)}.",
            parameter="train_split",
        )
    train = _samples(splits[wanted.train_split], wanted)
    if wanted.test_split == wanted.train_split or wanted.test_split not in splits:
        return train, None
    check_one_test_set("huggingface", f"the split {wanted.test_split!r}", test_fraction)
    test = _samples(splits[wanted.test_split], wanted._replace(channels=wanted.channels or train.x.shape[1]))
    return train, test


@functools.cache
def _splits(place: str) -> dict[str, Any]:
    """Return {name of a split: Dataset}; a single data set is its own split ``train``."""
    library = import_extra("datasets", _TITLE)
    try:
        found = library.load_from_disk(place) if Path(place).is_dir() else library.load_dataset(place)
    except Exception as error:  # whatever the hub, the network or the files say
        raise ConfigError(
            f"{_TITLE}: {place} cannot be read: {type(error).__name__}: {str(error).strip()[:200]}",
            parameter="path",
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _samples(split: Any, wanted: _Wanted) -> Samples:
    inputs = _column(split, "inputs", wanted.inputs)
    label = _column(split, "label", wanted.label)
    client = _usual(split, "client") if wanted.client is None else _column(split, "client", wanted.client)
    names = getattr(split.features[label], "names", None)  # of a ClassLabel, whose numbers stand for them
    return Samples(
        _inputs(split, inputs, wanted),
        np.asarray(split[label][:]),
        None if client is None else np.asarray(split[client][:]),
        None if names is None else tuple(names),
    )


def _usual(split: Any, parameter: str) -> str | None:
    return next((name for name in _USUAL[parameter] if name in split.column_names), None)


def _column(split: Any, parameter: str, given: str | None) -> str:
    name = _usual(split, parameter) if given is None else given
    if name is None or name not in split.column_names:
        wanted = repr(given) if given else f"with a usual name ({', '.join(_USUAL[parameter])})"
        raise ConfigError(
            f"{_TITLE}: no column {wanted} for {parameter}. Name one of: {', '.join(split.column_names)}.",
            parameter=parameter,
        )
    return name


def _inputs(split: Any, column: str, wanted: _Wanted) -> Any:
    kind = split.features[column]
    if type(kind).__name__ == "Image":
        pictures = split.select_columns([column])
        return Pictures(
            lambda row: pictures[row][column],
            len(split),
            wanted.size,
            wanted.channels,
            lambda row: f"{_TITLE}: the picture of row {row}",
        )
    if getattr(kind, "dtype", None) in ("string", "large_string"):
        raise ConfigError(
            f"{_TITLE}: the column {column!r} holds texts, which are not read here. Write them as lines of JSON "
            "(dataset.to_json('FILE.jsonl')) and take the data set 'jsonl'.",
            parameter="inputs",
        )
    return _Numbers(split, column)


class _Numbers:
    """A column of numbers, or of lists of numbers, read row by row."""

    def __init__(self, split: Any, column: str):
        self._rows, self._column = split.select_columns([column]).with_format("numpy"), column
        first = self._read([0])
        self.dtype = np.dtype(np.uint8 if first.dtype == np.uint8 else np.float32)
        self.shape = (len(split), *first.shape[1:])

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if len(rows) == 0:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        return self._read(rows.tolist()).astype(self.dtype)

    def _read(self, rows: Sequence[int]) -> npt.NDArray[Any]:
        values = self._rows[rows][self._column]
        try:
            array = np.stack([np.asarray(value) for value in values])
            if array.dtype.kind in "biuf" and np.isfinite(array).all():
                return array if array.ndim > 1 else array[:, None]
        except (TypeError, ValueError):  # no two of one shape
            pass
        raise ConfigError(
            f"{_TITLE}: the column {self._column!r} must hold pictures, or finite numbers of one shape in every row; "
            f"got for instance {str(values[0])[:60]!r}.",
            parameter="inputs",
        )
