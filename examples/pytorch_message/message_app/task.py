"""Model, data and training: scikit-learn's handwritten digits, dealt out to the clients."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

NUM_TEST = 360


class Net(nn.Module):
    """A small convolutional network for images of 8x8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (b, 10) of images (b, 1, 8, 8)."""
        return self.head(self.features(images).flatten(1))


class Digits(Dataset):
    """Examples as dictionaries, the way Hugging Face data give them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"img": self.images[index], "label": self.labels[index]}


@cache
def _shuffled() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images[order], torch.tensor(digits.target)[order]


def load_data(partition_id: int, num_partitions: int) -> DataLoader:
    """Return one client's training data."""
    images, labels = _shuffled()
    part = slice(NUM_TEST + partition_id, None, num_partitions)
    seeded = torch.Generator().manual_seed(partition_id)
    return DataLoader(Digits(images[part], labels[part]), batch_size=16, shuffle=True, generator=seeded)


def load_test_data() -> DataLoader:
    """Return the server's test data."""
    images, labels = _shuffled()
    return DataLoader(Digits(images[:NUM_TEST], labels[:NUM_TEST]), batch_size=128)


def train(model: nn.Module, loader: DataLoader, epochs: int, learning_rate: float) -> float:
    """Train in place and return the last batch's loss."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(batch["img"]), batch["label"])
            loss.backward()
            optimizer.step()
    return loss.item()


@torch.no_grad()
def test(model: nn.Module, loader: DataLoader) -> float:
    """Return the accuracy."""
    model.eval()
    right = sum(int((model(batch["img"]).argmax(1) == batch["label"]).sum()) for batch in loader)
    return right / len(loader.dataset)
