"""Model, data and training: scikit-learn's handwritten digits, dealt out to the clients."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

NUM_TEST = 360


class Net(nn.Sequential):
    """A network with batch normalisation: its running statistics and its counter are exchanged, too."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


@cache
def _shuffled() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.data, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]


def load_data(partition_id: int, num_partitions: int) -> DataLoader:
    """Return one client's training data."""
    x, y = _shuffled()
    part = slice(NUM_TEST + partition_id, None, num_partitions)
    seeded = torch.Generator().manual_seed(partition_id)
    return DataLoader(TensorDataset(x[part], y[part]), batch_size=16, shuffle=True, drop_last=True, generator=seeded)


def load_test_data() -> DataLoader:
    """Return the server's test data."""
    x, y = _shuffled()
    return DataLoader(TensorDataset(x[:NUM_TEST], y[:NUM_TEST]), batch_size=NUM_TEST)


def get_parameters(model: nn.Module) -> list[np.ndarray]:
    """Return all that the state dict holds: weights, running statistics, the number of batches."""
    return [value.numpy(force=True).copy() for value in model.state_dict().values()]


def set_parameters(model: nn.Module, parameters: list[np.ndarray]) -> None:
    """Load what ``get_parameters`` returned."""
    arrays = map(torch.as_tensor, parameters)
    model.load_state_dict(dict(zip(model.state_dict(), arrays, strict=True)))


def train(model: nn.Module, loader: DataLoader, epochs: int, learning_rate: float) -> None:
    """Train in place."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()


@torch.no_grad()
def test(model: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Return loss and accuracy, both means over the examples."""
    model.eval()
    logits, labels = zip(*((model(x), y) for x, y in loader), strict=True)
    logits, labels = torch.cat(logits), torch.cat(labels)
    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()
