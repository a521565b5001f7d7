"""LEAF's Reddit comments by user: the next word."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flsec.data._tokens import token_array
from flsec.data.datasets._jsonl import read_json
from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.data.vocabulary import WordVocabulary
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters
from flsec.tasks import NOT_COUNTED, NextToken

__all__ = ["reddit"]

_LAYOUTS = [["reddit/data/train", "reddit/data/test"], ["reddit/train", "reddit/test"]]
_SUPPLY = (
    "unpack LEAF's subsampled Reddit data (github.com/TalwalkarLab/leaf, data/reddit/README.md) into "
    "{root}/reddit/data, which then has the folders train and test with JSON files."
)
_PAD = "<PAD>"


def reddit(root: str | None = None, *, vocab_size: PositiveCount = 10_000) -> DataSource:
    """Return LEAF's Reddit comments of December 2017 in sequences of ten words; the users are natural clients.

    The words are as LEAF has cut them: lower case, a comment between ``<BOS>`` and ``<EOS>``, padded at its end. The
    vocabulary holds the most frequent words of the training comments. At each place the label is the word that follows;
    padding is not counted, nor is an unknown word: nobody earns accuracy by predicting "unknown". (LEAF counts both
    in the loss and calls predicting them wrong.)

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        vocab_size: tokens, padding and unknown included; LEAF's 10,000.

    Returns:
        Tokens (n, 10) int64 and labels (n, 10) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or broken, with file and user.

    Source: Caldas et al., "LEAF", 2018; data/reddit of its repository.
    """
    check_parameters(reddit, {"vocab_size": vocab_size}, name="data set 'reddit'")
    folder, layout = find_root("reddit", root, _LAYOUTS, _SUPPLY)
    return _load(*(folder / path for path in _LAYOUTS[layout]), vocab_size)


@functools.cache
def _load(train: Path, test: Path, vocab_size: int) -> DataSource:
    parts = [_read(folder) for folder in (train, test)]
    words = ([word for word in row if word != _PAD] for row in parts[0].inputs)
    vocabulary = WordVocabulary.of_words(words, vocab_size)
    length = len(parts[0].inputs[0])
    train_set = _dataset(parts[0], vocabulary, length, train)
    test_set = _dataset(parts[1], vocabulary, length, test)
    number = {user: i for i, user in enumerate(sorted(set(parts[0].users)))}
    return DataSource(
        "reddit",
        train_set,
        test_set,
        num_classes=vocabulary.size,
        input_shape=(length,),
        groups={"user": np.array([number[user] for user in parts[0].users], dtype=np.int64)},
        task=NextToken(positions="all"),
        vocabulary=vocabulary,
    )


@dataclasses.dataclass
class _Sequences:
    """Sequences of words, the words that follow each, and the users, one entry a sequence."""

    inputs: list[list[str]] = dataclasses.field(default_factory=list)
    targets: list[list[str]] = dataclasses.field(default_factory=list)
    users: list[str] = dataclasses.field(default_factory=list)


def _read(folder: Path) -> _Sequences:
    found = _Sequences()
    for path in sorted(folder.glob("*.json")):
        for user, x, y in _sequences(path):
            found.inputs.append(x)
            found.targets.append(y)
            found.users.append(user)
    if not found.users:
        raise ConfigError(f"{folder} must hold LEAF's JSON files with comments; found none. {_SUPPLY.format(root='.')}")
    return found


def _sequences(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (user, ten words, the ten that follow)."""
    data = read_json(path)
    user = None
    try:
        for user in data["users"]:
            own = data["user_data"][user]
            for comment, about in zip(own["x"], own["y"], strict=True):
                for x, y in zip(comment, about["target_tokens"], strict=True):
                    yield str(user), _checked(x), _checked(y)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is broken at user {user!r}: user_data must have, for each of users, x: comments as lists of "
            f"sequences of words, and y: one object a comment, with target_tokens of the same form; got {error!r}."
        ) from error


def _checked(words: Any) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{words!r:.60}, where a list of words should be")
    return words


def _dataset(part: _Sequences, vocabulary: WordVocabulary, length: int, folder: Path) -> ArrayDataset:
    if any(len(row) != length for rows in (part.inputs, part.targets) for row in rows):
        raise ConfigError(f"{folder} is broken: all sequences must have the same number of words, {length}.")
    inputs, labels = (_tokens(rows, vocabulary) for rows in (part.inputs, part.targets))
    counted = np.array(labels, dtype=np.int64)
    counted[(counted == vocabulary.pad) | (counted == vocabulary.unknown)] = NOT_COUNTED
    return ArrayDataset(token_array(inputs, length, vocabulary), counted, tokens=True)


def _tokens(rows: list[list[str]], vocabulary: WordVocabulary) -> list[list[int]]:
    return [[vocabulary.pad if word == _PAD else vocabulary.number(word) for word in row] for row in rows]
