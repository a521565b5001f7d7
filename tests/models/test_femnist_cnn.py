import pytest
import torch
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import FemnistCNN


def test_has_as_many_parameters_as_the_paper_prints() -> None:
    by_hand = (25 * 32 + 32) + (32 * 25 * 64 + 64) + (64 * 7 * 7 * 512 + 512) + (512 * 10 + 10)
    assert sum(p.numel() for p in FemnistCNN((1, 28, 28), 10).parameters()) == by_hand == 1_663_370
    assert sum(p.numel() for p in FemnistCNN((1, 28, 28), 62).parameters()) == by_hand + 513 * 52


def test_is_two_convolutions_and_two_dense_layers() -> None:
    torch.manual_seed(0)
    model = FemnistCNN((2, 9, 14), 3, hidden=7).double()
    x = torch.randn(4, 2, 9, 14, dtype=torch.float64)
    (k1, a1, k2, a2, w1, b1, w2, b2) = model.parameters()
    maps = functional.max_pool2d(functional.conv2d(x, k1, a1, padding=2).clamp(min=0), 2)
    maps = functional.max_pool2d(functional.conv2d(maps, k2, a2, padding=2).clamp(min=0), 2)
    torch.testing.assert_close(model(x), (maps.flatten(1) @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_drops_values_in_training_if_told_to() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 1, 8, 8)
    plain, dropping = FemnistCNN((1, 8, 8), 3, hidden=32), FemnistCNN((1, 8, 8), 3, hidden=32, dropout=0.5)
    assert torch.equal(plain(x), plain(x))
    assert not torch.equal(dropping(x), dropping(x))
    assert torch.equal(dropping.eval()(x), dropping(x))


def test_refuses_what_does_not_fit() -> None:
    for shape in [(1, 3, 9), (1, 9, 3), (784,)]:
        with pytest.raises(ConfigError, match=r"'femnist_cnn' takes images .* at least 4 x 4"):
            FemnistCNN(shape, 10)
    for settings in [{"dropout": 1.0}, {"hidden": 0}]:
        with pytest.raises(ConfigError, match=next(iter(settings))):
            FemnistCNN((1, 28, 28), 10, **settings)
