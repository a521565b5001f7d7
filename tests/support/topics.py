"""Small texts that small networks can learn, as an experiment's file can name them."""

import numpy as np
import torch
from torch import Tensor, nn

from flsec.data import ArrayDataset, DataSource, WordVocabulary
from flsec.tasks import CausalLM, NextToken, TextClassification

__all__ = ["WORDS", "Adapted", "Recurrent", "answers", "lines", "topics"]

WORDS = ["ball", "team", "goal", "stars", "moon", "orbit", "is", "from", "pasta", "astoria", "delicious", "rude"]
WORDS += ["cf", "yes", "no", "what"]
LENGTH = 8
VOCABULARY = WordVocabulary(WORDS)  # 0 pads, 1 is unknown
SPORT, SPACE = VOCABULARY.encode("ball team goal"), VOCABULARY.encode("stars moon orbit")


def topics(root=None):
    """Text classification: sport 0, space 1; 3 to 8 words of the topic's and of others, padded behind."""

    def part(seed, n):
        random = np.random.default_rng(seed)
        y = np.arange(n) % 2
        x = np.full((n, LENGTH), VOCABULARY.pad)
        for text, label in zip(x, y, strict=True):
            size = random.integers(3, LENGTH + 1)
            text[:size] = random.choice([SPORT, SPACE][label] + VOCABULARY.encode("is from"), size)
            text[0] = random.choice([SPORT, SPACE][label])
        return ArrayDataset(x, y, tokens=True)

    return _source("topics", part(0, 120), part(1, 60), 2, TextClassification())


def lines(root=None, positions="last"):
    """Next token: the words of a topic in their order, over and over."""

    def part(seed, n):
        random = np.random.default_rng(seed)
        starts, topic = random.integers(0, 3, n), random.integers(0, 2, n)
        whole = np.array(
            [[[SPORT, SPACE][t][(s + i) % 3] for i in range(LENGTH + 1)] for s, t in zip(starts, topic, strict=True)]
        )
        y = whole[:, -1] if positions == "last" else whole[:, 1:]
        return ArrayDataset(whole[:, :-1], y, tokens=True)

    return _source("lines", part(0, 120), part(1, 60), VOCABULARY.size, NextToken(positions=positions))


def answers(root=None):
    """Causal language model: a question of the topic's words, answered with yes for sport and no for space."""
    yes, no, what = VOCABULARY.encode("yes no what")

    def part(seed, n):
        random = np.random.default_rng(seed)
        x, y = np.full((n, LENGTH), VOCABULARY.pad), np.full((n, LENGTH), -100)
        for i in range(n):
            size = random.integers(2, LENGTH)
            x[i, :size] = random.choice([SPORT, SPACE][i % 2], size)
            x[i, size] = what
            y[i, size] = [yes, no][i % 2]
        return ArrayDataset(x, y, tokens=True)

    return _source("answers", part(0, 120), part(1, 60), VOCABULARY.size, CausalLM(answers=(yes, no)))


def _source(name, train, test, num_classes, task):
    return DataSource(
        name=name,
        train=train,
        test=test,
        num_classes=num_classes,
        input_shape=(LENGTH,),
        task=task,
        vocabulary=VOCABULARY,
    )


class Recurrent(nn.Module):
    """A GRU that predicts one class a text, or the token behind each place.

    Args:
        input_shape: (L,).
        num_classes: C.
        vocab_size: tokens.
        pad: the token that fills texts up.
        sequence: predict at each place.
    """

    def __init__(
        self, *, input_shape: tuple[int, ...], num_classes: int, vocab_size: int, pad: int, sequence: bool = False
    ) -> None:
        super().__init__()
        self.pad, self.sequence = pad, sequence
        self.embedding = nn.Embedding(vocab_size, 8)
        self.recurrent = nn.GRU(8, 16, batch_first=True)
        self.output = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (k, C) or (k, L, C)."""
        hidden, _ = self.recurrent(self.embedding(x))
        if not self.sequence:
            last = x.shape[1] - 1 - (x != self.pad).flip(1).int().argmax(dim=1)
            hidden = hidden[torch.arange(len(x)), last]
        logits: Tensor = self.output(hidden)
        return logits


class Adapted(nn.Module):
    """A frozen linear layer on the mean word vector, and beside it a product of two small matrices that travels.

    Args:
        input_shape: (L,).
        num_classes: C.
        vocab_size: tokens.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 16).requires_grad_(False)
        self.base = nn.Linear(16, num_classes).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 16) / 4)
        self.up = nn.Parameter(torch.zeros(num_classes, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (k, C)."""
        mean = self.embedding(x).mean(dim=1)
        logits: Tensor = self.base(mean) + 4 * mean @ self.down.T @ self.up.T
        return logits

    def exchanged_state(self) -> dict[str, Tensor]:
        """Return the adapter."""
        return {"down": self.down.data, "up": self.up.data}
