"""Model, data and training: put yours here."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

NUM_TEST = 360


class Net(nn.Sequential):
    """A small network for images of 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@cache
def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.images / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]


def load_data(partition_id: int, num_partitions: int) -> tuple[Tensor, Tensor]:
    """Return the images and labels of one client."""
    images, labels = _digits()
    mine = slice(NUM_TEST + partition_id, None, num_partitions)
    return images[mine], labels[mine]


def load_test_data() -> tuple[Tensor, Tensor]:
    """Return the server's images and labels."""
    images, labels = _digits()
    return images[:NUM_TEST], labels[:NUM_TEST]


def train(model: nn.Module, images: Tensor, labels: Tensor, learning_rate: float, seed: int) -> float:
    """Train in place for an epoch in batches of 16, and return the last batch's loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    for batch in order.split(16):
        optimizer.zero_grad()
        loss = cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def test(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy."""
    return (model(images).argmax(1) == labels).float().mean().item()
