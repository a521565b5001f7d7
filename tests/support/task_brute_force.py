"""What tasks compute, in plain Python and float64."""

import math

import torch

from flsec.tasks import NOT_COUNTED


def places(logits, labels):
    """Yield (the numbers of a place, its label) where labels are counted."""
    rows = logits.double().reshape(-1, logits.shape[-1]).tolist()
    yield from (
        (row, label) for row, label in zip(rows, labels.flatten().tolist(), strict=True) if label != NOT_COUNTED
    )


def cross_entropy(logits, labels):
    losses = [math.log(math.fsum(math.exp(v) for v in row)) - row[label] for row, label in places(logits, labels)]
    return math.fsum(losses) / len(losses)


def accuracy(logits, labels):
    """(sum, count): the first of the largest is what is predicted."""
    right = [row.index(max(row)) == label for row, label in places(logits, labels)]
    return sum(right), len(right)


def drawn(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labelled(*shape, classes, seed=1, share_counted=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) >= share_counted] = NOT_COUNTED
    return labels
