"""The networks learn: on few images and in few steps the loss falls."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flsec.data.datasets.cifar10 import cifar10
from flsec.data.datasets.digits import digits
from flsec.models import build_model
from flsec.training import Training, train

ON_CIFAR10 = {
    "resnet9": ({"channels": 16, "init": "he"}, 0.1),
    "vgg11": ({"channels": 16, "hidden": 64, "dropout": 0.0}, 0.05),
    "resnet": ({"blocks": 1}, 0.1),
    "siren_cifar_cnn": ({}, 0.05),
}
ON_DIGITS = {
    "resnet": ({"blocks": 1}, 0.1),
    "resnet101_ln": ({"blocks": (1, 1, 1, 1), "channels": 8}, 0.05),
    "femnist_cnn": ({"hidden": 64}, 0.05),
    "lenet": ({}, 0.1),
    "torchvision_model": ({"architecture": "shufflenet_v2_x0_5"}, 0.1),
}


def losses(name: str, settings: dict[str, object], learning_rate: float, x: Tensor, y: Tensor) -> list[float]:
    """Return the mean loss of each of four epochs of batches of 50, as it was met in training."""
    model = build_model(name, x.shape[1:], 10, seed=0, **settings)
    training = Training(learning_rate=learning_rate, momentum=0.9, batch_size=50)
    generator = torch.Generator().manual_seed(0)
    return [train(model, x, y, training, round=epoch, generator=generator).loss for epoch in range(1, 5)]


@pytest.mark.parametrize("name", ON_CIFAR10)
def test_learns_500_images_of_cifar10(name: str) -> None:
    root = os.environ.get("FLSEC_DATA")
    if root is None or not (Path(root) / "cifar10" / "train.zip").exists():
        pytest.skip("FLSEC_DATA is not set to a folder with cifar10/train.zip")
    x, y = cifar10(root).train.tensors(range(500))
    first, *_, last = losses(name, *ON_CIFAR10[name], x - 0.5, y)
    assert last < first - 0.02  # of 2.3: without knowledge, log 10


@pytest.mark.parametrize("name", ON_DIGITS)
def test_learns_500_digits(name: str) -> None:
    x, y = digits().train.tensors(range(500))
    x = torch.nn.functional.interpolate(x, scale_factor=4)  # 32 x 32, large enough for all
    first, *_, last = losses(name, *ON_DIGITS[name], x, y)
    assert last < 0.8 * first
