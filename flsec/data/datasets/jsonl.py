"""Texts of your own, from files with one JSON object a line."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flsec.data.datasets._jsonl import read_jsonl
from flsec.data.datasets._roots import check_stays, find_root
from flsec.data.datasets._split import split_by_class
from flsec.data.source import DataSource
from flsec.data.text import Texts, text_source
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters

__all__ = ["jsonl"]

_SUPPLY = 'write one JSON object a line, such as {{"text": "some words", "label": "sport"}}, into {root}/train.jsonl.'

Row = dict[str, Any]


def jsonl(
    root: str | None = None,
    *,
    train: str | list[str] = "train.jsonl",
    test: str | list[str] | None = None,
    text: str = "text",
    label: str | None = "label",
    client: str | None = None,
    task: Literal["next_token", "causal_lm"] = "next_token",
    tokenizer: str = "words",
    vocab_size: PositiveCount = 10_000,
    length: PositiveCount = 128,
) -> DataSource:
    """Return texts with labels (text classification), or texts alone (the next token), from JSON Lines.

    The classes are the labels of the training files, in sorted order. Without ``test``, a fixed fifth of each class is
    the test set, or of all texts where there are no labels, the same whatever the seed of the run.

    Args:
        root: folder that holds the files; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        train: file or files, relative to ``root`` or absolute; ``.gz`` is decompressed.
        test: likewise.
        text: column of the texts.
        label: column of the labels, text or whole numbers; null: learn the texts themselves.
        client: column of whom a text is from, text or whole numbers: the natural clients.
        task: what is learnt where there are no labels.
        tokenizer: ``"words"``, ``"characters"``, or where a pretrained tokenizer is.
        vocab_size: tokens of ``"words"``, counted in the training texts.
        length: tokens of a sample; of a labelled text the first are kept, one without a label is cut into pieces.

    Raises:
        ConfigError: no such file, a broken line or one without these columns, with its number; or a test label that no
            training text has.

    Example:
        >>> source = jsonl(train="reviews.jsonl", label="stars", client="reader")  # doctest: +SKIP

    Source: JSON Lines, jsonlines.org.
    """
    given = {"train": train, "test": test, "text": text, "label": label, "client": client, "task": task}
    sizes = {"tokenizer": tokenizer, "vocab_size": vocab_size, "length": length}
    check_parameters(jsonl, given | sizes, name="data set 'jsonl'")
    files, test_files = ([part] if isinstance(part, str) else part or [] for part in (train, test))
    for parameter, names in (("train", files), ("test", test_files)):
        for name in names:
            check_stays("jsonl", name, parameter)
    folder, _ = find_root("jsonl", root, [[*files, *test_files]], _SUPPLY)
    paths, test_paths = (tuple(folder / file for file in part) for part in (files, test_files))
    return _load(paths, test_paths, (text, label, client), task, tokenizer, vocab_size, length)


@functools.cache
def _load(
    train: tuple[Path, ...],
    test: tuple[Path, ...],
    columns: tuple[str, str | None, str | None],
    task: Literal["next_token", "causal_lm"],
    tokenizer: str,
    vocab_size: int,
    length: int,
) -> DataSource:
    rows, test_rows = (_rows(paths, columns) for paths in (train, test))
    label = columns[1]
    names = _class_names(rows, label) if label else []
    if label and test:
        _check_known(test_rows, label, names, test)
    if not test:
        classes = np.array([names.index(row[label]) if label else 0 for row in rows], dtype=np.int64)
        rows, test_rows = ([rows[i] for i in part] for part in split_by_class(classes, "jsonl"))
        if not test_rows:
            raise ConfigError(
                f"data set 'jsonl': {len(classes)} texts are too few to set a fifth of each class aside; name a file "
                "as test.",
                parameter="test",
            )
    return text_source(
        "jsonl",
        *(_texts(part, columns, names) for part in (rows, test_rows)),
        class_names=tuple(map(str, names)),
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        length=length,
        task=task,
    )


def _rows(paths: tuple[Path, ...], columns: tuple[str, str | None, str | None]) -> list[Row]:
    text, *others = columns
    types: dict[str, tuple[type, ...]] = {column: (str, int) for column in others if column} | {text: (str,)}
    return [row for path in paths for row in read_jsonl(path, types)]


def _class_names(rows: list[Row], label: str) -> list[str | int]:
    found = {row[label] for row in rows}
    if len({type(value) for value in found}) > 1:
        raise ConfigError(
            f"data set 'jsonl': the labels in the column {label!r} must be all text or all whole numbers; got "
            f"{sorted(found, key=str)[:10]}."
        )
    return sorted(found)


def _check_known(rows: list[Row], label: str, names: list[str | int], files: tuple[Path, ...]) -> None:
    new = {row[label] for row in rows} - {*names}
    if new:
        raise ConfigError(
            f"data set 'jsonl': every label of {', '.join(map(str, files))} must be one of the training texts', "
            f"{names[:20]}; got {sorted(new, key=str)[0]!r}."
        )


def _texts(rows: list[Row], columns: tuple[str, str | None, str | None], names: list[str | int]) -> Texts:
    text, label, client = columns
    labels = [names.index(row[label]) for row in rows] if label else None
    if client is None:
        return Texts([row[text] for row in rows], labels)
    number = {name: i for i, name in enumerate(sorted({str(row[client]) for row in rows}))}
    return Texts([row[text] for row in rows], labels, {client: [number[str(row[client])] for row in rows]})
