"""Data sources made from texts: for classes, or for the next token."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from flsec.data._tokens import make_vocabulary, padded, token_array
from flsec.data.source import ArrayDataset, DataSource
from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters
from flsec.tasks import CausalLM, NextToken, TextClassification
from flsec.tasks.base import NOT_COUNTED

__all__ = ["Texts", "text_source"]

IndexArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts and what belongs to each.

    Args:
        texts: n texts.
        labels: n class numbers; None: the texts themselves are what is learnt.
        groups: n natural ids by kind, such as ``{"author": [...]}``.

    Example:
        >>> texts = Texts(["a good film", "a bad film"], labels=[1, 0], groups={"author": [7, 7]})
        >>> len(texts.texts), texts.labels
        (2, [1, 0])
    """

    texts: Sequence[str]
    labels: Sequence[int] | None = None
    groups: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)


def text_source(
    name: str,
    train: Texts,
    test: Texts,
    *,
    class_names: tuple[str, ...] | None = None,
    tokenizer: str = "words",
    vocab_size: PositiveCount = 10_000,
    length: PositiveCount = 128,
    task: Literal["next_token", "causal_lm"] = "next_token",
) -> DataSource:
    """Return texts as a data source.

    With labels, each text is one sample: its first ``length`` tokens. Without, each text is cut into pieces of
    ``length`` tokens, and every position's label is the token that follows, across the cut too. Shorter ones are
    padded; a text without any token is one unknown token.

    Args:
        name: what reports call it.
        train: the samples that clients share; the words of the vocabulary are counted in these alone.
        test: the samples that measure the global model.
        class_names: one per class; needed with labels.
        tokenizer: ``"words"``, the most frequent ones of the training texts; ``"characters"``, LEAF's 80; or where a
            pretrained model's tokenizer is: a folder, a name, or ``"package:NAME"`` of an installed package.
        vocab_size: number of tokens of ``"words"``; the others have their own.
        length: L, tokens of a sample.
        task: what is learnt where there are no labels.

    Raises:
        ConfigError: no texts, or parts that do not fit together.

    Example:
        >>> train = Texts(["good film", "bad film"], labels=[1, 0])
        >>> source = text_source("films", train, Texts(["good"], labels=[1]), class_names=("bad", "good"), length=3)
        >>> source.train.tensors()
        (tensor([[4, 2, 0],
                [3, 2, 0]]), tensor([1, 0]))
    """
    given = {"tokenizer": tokenizer, "vocab_size": vocab_size, "length": length, "task": task}
    check_parameters(text_source, given, name=name)
    if not train.texts or not test.texts:
        raise ConfigError(
            f"{name}: needs a text or more for training and for the test; got {len(train.texts)} and {len(test.texts)}."
        )
    vocabulary = make_vocabulary(tokenizer, train.texts, vocab_size)
    if train.labels is None:
        return _next_tokens(name, train, test, vocabulary, length, task)
    names = tuple(class_names or ())
    return DataSource(
        name,
        _classified(name, train, vocabulary, length),
        _classified(name, test, vocabulary, length),
        num_classes=len(names),
        input_shape=(length,),
        class_names=names,
        groups=_groups(train),
        task=TextClassification(),
        vocabulary=vocabulary,
    )


def _classified(name: str, part: Texts, vocabulary: Vocabulary, length: int) -> ArrayDataset:
    if part.labels is None:
        raise ConfigError(f"{name}: either both parts have labels or neither has.")
    frame = len(vocabulary.begin) + len(vocabulary.end)
    if length <= frame:
        raise ConfigError(
            f"{name}: length must be more than the {frame} tokens that the tokenizer puts around a text; got {length}.",
            parameter="length",
        )
    inside = (vocabulary.encode(text)[: length - frame] or [vocabulary.unknown] for text in part.texts)
    rows = [[*vocabulary.begin, *tokens, *vocabulary.end] for tokens in inside]
    return ArrayDataset(token_array(rows, length, vocabulary), part.labels, tokens=True)


def _next_tokens(name: str, train: Texts, test: Texts, vocabulary: Vocabulary, length: int, task: str) -> DataSource:
    if test.labels is not None:
        raise ConfigError(f"{name}: either both parts have labels or neither has.")
    (train_set, owners), (test_set, _) = (_cut(name, part, vocabulary, length) for part in (train, test))
    return DataSource(
        name,
        train_set,
        test_set,
        num_classes=vocabulary.size,
        input_shape=(length,),
        groups=_groups(train, owners),
        task=NextToken(positions="all") if task == "next_token" else CausalLM(),
        vocabulary=vocabulary,
    )


def _cut(name: str, part: Texts, vocabulary: Vocabulary, length: int) -> tuple[ArrayDataset, IndexArray]:
    """Return the pieces of all texts, and of which text each is one; a text of one token has none."""
    inputs, labels, owners = [], [], []
    for owner, text in enumerate(part.texts):
        tokens = [*vocabulary.begin, *vocabulary.encode(text), *vocabulary.end]
        for start in range(0, len(tokens) - 1, length):
            piece = tokens[start : start + length + 1]
            inputs.append(piece[:-1])
            labels.append(piece[1:])
            owners.append(owner)
    if not inputs:
        raise ConfigError(f"{name}: no text has two tokens, of which the second would be learnt. Pass longer texts.")
    data = token_array(inputs, length, vocabulary)
    return ArrayDataset(data, padded(labels, length, NOT_COUNTED, np.int64), tokens=True), np.array(owners, np.int64)


def _groups(part: Texts, owners: IndexArray | None = None) -> dict[str, IndexArray] | None:
    ids = {kind: np.asarray(values, dtype=np.int64) for kind, values in part.groups.items()}
    return {kind: values if owners is None else values[owners] for kind, values in ids.items()} or None
