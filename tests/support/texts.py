"""Texts that a small network can learn, as an experiment's own data sets."""

from dataclasses import dataclass

import numpy as np

from flsec.data import ArrayDataset, DataSource
from flsec.models import MODELS
from flsec.parameters import parameters_of
from flsec.tasks import CausalLM, NextToken, Task, TextClassification

VOCABULARY, LENGTH, PAD = 20, 8, 0

CLASSIFIERS = [name for name, model in MODELS.items() if "classification" in model.tasks]
TEXT_MODELS = [name for name, model in MODELS.items() if "vocab_size" in parameters_of(model)]


@dataclass(frozen=True)
class Numbered:
    """Tokens 1, 2, ... are written as their numbers; 0 fills up."""

    size: int = VOCABULARY
    pad: int = PAD

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, tokens):
        return " ".join(str(token) for token in tokens if token != self.pad)


def rows(n, seed=0):
    """(n, LENGTH) texts that count upwards from a random token by 1 or by 2, filled up at the end."""
    rng = np.random.default_rng(seed)
    start, stride = rng.integers(1, 5, (n, 1)), rng.integers(1, 3, (n, 1))
    texts = start + stride * np.arange(LENGTH)
    texts[np.arange(LENGTH) >= rng.integers(4, LENGTH + 1, (n, 1))] = PAD
    return texts


def _source(name: str, task: Task, num_classes: int, label) -> DataSource:
    train, test = (ArrayDataset(x := rows(n, n), label(x), tokens=True) for n in (96, 32))
    return DataSource(name, train, test, num_classes, (LENGTH,), task=task, vocabulary=Numbered())


def by_stride(root: str | None = None) -> DataSource:
    """Is it counted by 1 or by 2?"""
    return _source("by_stride", TextClassification(), 2, lambda x: x[:, 1] - x[:, 0] - 1)


def counting(root: str | None = None) -> DataSource:
    """The token behind each token."""
    return _source("counting", NextToken(positions="all"), VOCABULARY, _followers)


def instructed(root: str | None = None) -> DataSource:
    """The same, as a language model's data."""
    return _source("instructed", CausalLM(), VOCABULARY, _followers)


def _followers(x):
    after = np.concatenate([x[:, 1:], np.zeros_like(x[:, :1])], axis=1)
    return np.where(after == PAD, -100, after)
