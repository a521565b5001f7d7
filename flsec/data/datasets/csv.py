"""A data set of your own, as a table of numbers in a CSV file."""

import csv as tables
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flsec.data.datasets._own import Samples, check_one_test_set, find_path, own_source
from flsec.data.source import DataSource
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, check_parameters

__all__ = ["csv"]

logger = logging.getLogger("flsec")


class _Columns(NamedTuple):
    """Which columns are what."""

    label: str
    client: str | None
    features: tuple[str, ...] | None


def csv(
    root: str | None = None,
    *,
    file: str,
    label: str,
    client: str | None = None,
    features: Sequence[str] | None = None,
    test_file: str | None = None,
    test_fraction: OpenFraction | None = None,
    standardize: bool = False,
    delimiter: str = ",",
) -> DataSource:
    r"""Return the rows of a CSV file as samples; its first line names the columns.

    Classes are numbered in sorted order, whole numbers by their value. A column in which no row has a number is left
    out, and the log says so; one in which only some rows have is an error. Empty cells are no numbers.

    Args:
        root: where a relative ``file`` starts; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        file: path of the file, in UTF-8.
        label: column of the classes.
        client: column that says whose sample a row is; becomes ``groups["client"]`` for the partitioner ``natural``.
        features: columns of the inputs, in this order; default: all others that hold numbers.
        test_file: path of a second file with the test set, with the same columns in any order.
        test_fraction: share of the rows that is the test set, where there is no ``test_file``; default 0.2. Of each
            class the same share, and the same rows whatever the seed.
        standardize: subtract from each feature its mean over the training rows, and divide by its standard deviation.
        delimiter: between cells.

    Raises:
        ConfigError: a file that is not there, a column that is missing or listed twice, or a cell that is no number.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "flowers.csv"
        >>> _ = path.write_text("width,kind\n" + "1.5,rose\n2,tulip\n" * 5)
        >>> source = csv(file=str(path), label="kind")
        >>> source.class_names, source.input_shape, len(source.test)
        (('rose', 'tulip'), (1,), 2)

    Source: ours.
    """
    given = {key: value for key, value in locals().items() if key != "root"}
    check_parameters(csv, given, name="data set 'csv'")
    if len(delimiter) != 1:
        raise ConfigError(f"data set 'csv': delimiter must be one character; got {delimiter!r}.", parameter="delimiter")
    if test_file is not None:
        check_one_test_set("csv", f"test_file {test_file}", test_fraction)
    path = str(find_path("csv", root, file, "file"))
    test_path = None if test_file is None else str(find_path("csv", root, test_file, "test_file"))
    columns = _Columns(label, client, None if features is None else tuple(features))
    source = own_source("csv", _read, test_fraction, path, test_path, columns, delimiter)
    return _standardized(source) if standardize else source


@functools.cache
def _standardized(source: DataSource) -> DataSource:
    x = source.train.tensors()[0].double()
    std = x.std(dim=0, correction=0)
    return source.normalized(x.mean(dim=0).tolist(), std.where(std > 0, 1.0).tolist())  # a constant column becomes 0


def _read(
    test_fraction: float | None, path: str, test_path: str | None, columns: _Columns, delimiter: str
) -> tuple[Samples, Samples | None]:
    table = _table(path, delimiter)
    features = columns.features or _numeric(path, table, columns)
    train = _samples(path, table, columns, features)
    test = None
    if test_path is not None:  # whose rows have no use for a client
        test = _samples(test_path, _table(test_path, delimiter), columns._replace(client=None), features)
    return train, test


def _table(path: str, delimiter: str) -> dict[str, list[str]]:
    """Return {column: cells}."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in tables.reader(file, delimiter=delimiter) if line]
    except (OSError, UnicodeDecodeError, tables.Error) as error:
        raise ConfigError(f"data set 'csv': {path} cannot be read as a CSV file in UTF-8: {error}.") from error
    if len(lines) < 2:
        raise ConfigError(f"data set 'csv': {path} must have a line of column names, and rows; got {len(lines)} lines.")
    header = [name.strip() for name in lines[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ConfigError(f"data set 'csv': {path} has two columns called {twice[0]!r}. Rename one.")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise ConfigError(
                f"data set 'csv': {path}, row {number}: it must have {len(header)} cells, as the line of names; got "
                f"{len(line)}. Is {delimiter!r} the delimiter?"
            )
    return {
        name: [cell.strip() for cell in cells] for name, cells in zip(header, zip(*lines[1:], strict=True), strict=True)
    }


def _numeric(path: str, table: dict[str, list[str]], columns: _Columns) -> tuple[str, ...]:
    """Return the columns that hold numbers, and say which are left out."""
    others = [name for name in table if name not in (columns.label, columns.client)]
    found = [name for name in others if any(_is_number(cell) for cell in table[name])]
    if len(found) < len(others):
        left_out = ", ".join(name for name in others if name not in found)
        logger.warning("data set 'csv': %s: left out, since they hold no numbers: %s.", path, left_out)
    if not found:
        raise ConfigError(f"data set 'csv': {path}: besides the label, some column must hold numbers; none does.")
    return tuple(found)


def _samples(path: str, table: dict[str, list[str]], columns: _Columns, features: tuple[str, ...]) -> Samples:
    needed = {"label": (columns.label,), "features": features, "client": (columns.client,) if columns.client else ()}
    for parameter, names in needed.items():
        for name in names:
            if name not in table:
                raise ConfigError(
                    f"data set 'csv': {path} has no column {name!r}; it has: {', '.join(table)}.", parameter=parameter
                )
    if columns.label in features or len(set(features)) < len(features):
        raise ConfigError(
            f"data set 'csv': features must be different columns, and not the label {columns.label!r}; got "
            f"{', '.join(features)}.",
            parameter="features",
        )
    x = np.stack([_numbers(path, name, table[name]) for name in features], axis=1)
    client = np.array(table[columns.client]) if columns.client else None
    return Samples(x, _labels(table[columns.label]), client)


def _numbers(path: str, name: str, cells: list[str]) -> npt.NDArray[np.float32]:
    for row, cell in enumerate(cells, 1):
        if not _is_number(cell):
            raise ConfigError(
                f"data set 'csv': {path}, row {row}, column {name!r}: must be a number; got {cell!r}. Fill it in, take "
                "the row out, or name the features without this column.",
                parameter="features",
            )
    return np.array(cells, dtype=np.float32)


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False


def _labels(cells: list[str]) -> npt.NDArray[Any]:
    """Return whole numbers where all are, so that 10 comes after 9; else texts."""
    try:
        return np.array([int(cell) for cell in cells])
    except ValueError:
        return np.array(cells)
