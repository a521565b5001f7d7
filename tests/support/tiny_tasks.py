"""Data that a linear layer learns in a few rounds, one function a task, and models, attacks and defenses for them.

A file names them as ``tests.support.tiny_tasks:images``.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flsec.client_apps import SignFlipping
from flsec.data import ArrayDataset, DataSource
from flsec.strategies import Median
from flsec.tasks import NOT_COUNTED, CausalLM, Classification, NextToken, TextClassification

CLASSES, TOKENS, LENGTH, TRAIN, TEST = 4, 9, 5, 120, 40
ANSWERS = (3, 5)


class Numbers:
    """A vocabulary of which nobody needs the texts."""

    size, pad = TOKENS, 0

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, tokens):
        return " ".join(map(str, tokens))


def _drawn():
    return np.random.default_rng(0)


def images(root: str | None = None) -> DataSource:
    """Images of 1 x 4 x 4, one of whose quarters is bright."""
    rng = _drawn()
    labels = np.arange(TRAIN + TEST) % CLASSES
    pixels = 0.2 * rng.random((len(labels), 1, 4, 4), np.float32)
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 0.8
    return DataSource("images", *_split(pixels, labels), num_classes=CLASSES, input_shape=(1, 4, 4))


def texts(root: str | None = None) -> DataSource:
    """Rows of tokens, most of which say the class."""
    rng = _drawn()
    labels = np.arange(TRAIN + TEST) % CLASSES
    tokens = np.where(rng.random((len(labels), LENGTH)) < 0.8, 1 + labels[:, None], rng.integers(1, TOKENS, LENGTH))
    return _text_source("texts", tokens, labels, CLASSES, TextClassification())


def next_token(root: str | None = None, everywhere: bool = False) -> DataSource:
    """Tokens that count up, from 1 to the last and again from 1."""
    start = _drawn().integers(0, TOKENS - 1, (TRAIN + TEST, 1))
    counting = 1 + (start + np.arange(LENGTH + 1)) % (TOKENS - 1)
    labels = counting[:, 1:] if everywhere else counting[:, -1]
    task = NextToken(positions="all" if everywhere else "last")
    return _text_source("next_token", counting[:, :-1], labels, TOKENS, task)


def answers(root: str | None = None) -> DataSource:
    """Rows whose last token but one decides which of two answers follows the last."""
    rng = _drawn()
    tokens = rng.integers(1, TOKENS, (TRAIN + TEST, LENGTH))
    tokens[:, -1] = rng.integers(6, 8, len(tokens))
    labels = np.full_like(tokens, NOT_COUNTED)
    labels[:, -1] = np.where(tokens[:, -1] == 6, *ANSWERS)
    return _text_source("answers", tokens, labels, TOKENS, CausalLM(answers=ANSWERS))


def _split(x, y, **options):
    return ArrayDataset(x[:TRAIN], y[:TRAIN], **options), ArrayDataset(x[TRAIN:], y[TRAIN:], **options)


def _text_source(name, tokens, labels, num_classes, task):
    train, test = _split(tokens, labels, tokens=True)
    return DataSource(
        name, train, test, num_classes=num_classes, input_shape=(LENGTH,), task=task, vocabulary=Numbers()
    )


class TokenModel(nn.Module):
    """A vector a token, then a linear layer: on the last vector, on their mean, or on each."""

    def __init__(self, input_shape, num_classes, *, vocab_size, reads: str = "mean"):
        super().__init__()
        self.reads = reads
        self.embedding, self.output = nn.Embedding(vocab_size, 8), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.embedding(x)
        if self.reads == "mean":
            vectors = vectors.mean(dim=1)
        return self.output(vectors[:, -1] if self.reads == "last" else vectors)


class AttackOnTokens(SignFlipping):
    fits_inputs: ClassVar = "tokens"


class AttackOnNumbers(SignFlipping):
    fits_inputs: ClassVar = "numbers"


class DefenseOfTokens(Median):
    fits_inputs: ClassVar = "tokens"


class DefenseOfNumbers(Median):
    fits_inputs: ClassVar = "numbers"


class OneTooMany(nn.Module):
    """Serves no task: an output too many, and no generator."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.num_outputs = num_classes + 1
        self.bias = nn.Parameter(torch.zeros(self.num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), self.num_outputs)


class Derived(Classification):
    """Somebody's own classification."""
