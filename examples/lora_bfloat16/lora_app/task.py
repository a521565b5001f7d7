"""A frozen network that knows upright digits, and adapters that learn to read them in a mirror."""

from functools import cache

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

NUM_BASE, NUM_TEST = 400, 360
RANK = 8


class LoRALinear(nn.Module):
    """y = W x + B A x with W frozen; the adapters A and B are bfloat16.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, Sec. 4.1.
    """

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        down = torch.randn(RANK, frozen.in_features, generator=torch.Generator().manual_seed(0))
        self.lora_a = nn.Parameter((down / frozen.in_features**0.5).bfloat16())
        self.lora_b = nn.Parameter(torch.zeros(frozen.out_features, RANK, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, out) for x (b, in)."""
        return self.frozen(x) + x @ self.lora_a.float().T @ self.lora_b.float().T


@cache
def _shuffled() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.images, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]


@cache
def _base() -> dict[str, Tensor]:
    """Return the weights of a network trained on upright digits, which a real app would download."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    images, labels = _shuffled()
    _fit(model, images[:NUM_BASE].flatten(1), labels[:NUM_BASE], epochs=20, learning_rate=0.1, seed=0)
    return model.state_dict()


def new_model() -> nn.Module:
    """Return the frozen network with fresh adapters."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model.load_state_dict(_base())
    return nn.Sequential(LoRALinear(model[0]), model[1], LoRALinear(model[2]))


def load_data(partition_id: int, num_partitions: int) -> tuple[Tensor, Tensor]:
    """Return one client's training data."""
    return _mirrored(slice(NUM_BASE + NUM_TEST + partition_id, None, num_partitions))


def load_test_data() -> tuple[Tensor, Tensor]:
    """Return the server's test data."""
    return _mirrored(slice(NUM_BASE, NUM_BASE + NUM_TEST))


def _mirrored(part: slice) -> tuple[Tensor, Tensor]:
    images, labels = _shuffled()
    return images[part].flip(2).flatten(1), labels[part]


def _fit(model: nn.Module, x: Tensor, y: Tensor, epochs: int, learning_rate: float, seed: int) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=learning_rate)  # momentum in bfloat16 does not get anywhere
    seeded = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=seeded).split(16):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, learning_rate: float) -> None:
    """Train the adapters in place."""
    _fit(model, x, y, epochs, learning_rate, seed=1)


@torch.no_grad()
def test(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy."""
    return (model(x).argmax(1) == y).double().mean().item()


def get_adapters(model: nn.Module) -> ArrayRecord:
    """Return the adapters alone, as raw arrays of 2-byte items: NumPy has no bfloat16, ``np.save`` writes it so."""
    adapters = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    return ArrayRecord({name: Array(value.view(torch.int16).numpy().view("V2")) for name, value in adapters.items()})


def as_tensor(array: Array) -> Tensor:
    """Return the bfloat16 numbers of a raw array."""
    return torch.from_numpy(array.numpy().view(np.int16).copy()).view(torch.bfloat16)


def set_adapters(model: nn.Module, arrays: ArrayRecord) -> None:
    """Load what ``get_adapters`` returned; the frozen weights stay."""
    model.load_state_dict({name: as_tensor(array) for name, array in arrays.items()}, strict=False)
