import pytest
import torch
from torch import nn
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import SirenCifarCNN


def test_parameter_counts_by_hand() -> None:
    convolutions = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64) + (64 * 9 * 64 + 64)
    dense = (64 * 4 * 4 * 64 + 64) + (64 * 10 + 10)
    assert sum(p.numel() for p in SirenCifarCNN((3, 32, 32), 10).parameters()) == convolutions + dense == 122_570


def test_is_three_convolutions_and_two_dense_layers() -> None:
    torch.manual_seed(0)
    model = SirenCifarCNN((2, 22, 27), 3).double()
    x = torch.randn(4, 2, 22, 27, dtype=torch.float64)
    (k1, a1, k2, a2, k3, a3, w1, b1, w2, b2) = model.parameters()
    maps = functional.max_pool2d(functional.conv2d(x, k1, a1).clamp(min=0), 2)
    maps = functional.max_pool2d(functional.conv2d(maps, k2, a2).clamp(min=0), 2)
    maps = functional.conv2d(maps, k3, a3).clamp(min=0)
    torch.testing.assert_close(model(x), (maps.flatten(1) @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_biases_start_at_zero_and_weights_within_glorots_bound() -> None:
    for layer in SirenCifarCNN((3, 32, 32), 10).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            assert layer.weight.abs().max() <= (6 / (area * sum(layer.weight.shape[:2]))) ** 0.5
            assert not layer.bias.any()


def test_takes_images_from_18_x_18_on() -> None:
    assert SirenCifarCNN((1, 18, 19), 2)(torch.zeros(1, 1, 18, 19)).shape == (1, 2)
    for shape in [(1, 17, 20), (1, 20, 17), (28, 28)]:
        with pytest.raises(ConfigError, match=r"'siren_cifar_cnn' takes images .* at least 18 x 18"):
            SirenCifarCNN(shape, 2)
