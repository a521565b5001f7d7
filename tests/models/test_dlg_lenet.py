import pytest
import torch
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import DLGLeNet, build_model


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 9, 14)])
def test_computes_three_convolutions_and_a_linear_layer(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = DLGLeNet(shape, 7).double()
    x = torch.rand(2, *shape, dtype=torch.float64)
    k1, a1, k2, a2, k3, a3, w, b = model.parameters()
    maps = torch.sigmoid(functional.conv2d(x, k1, a1, stride=2, padding=2))
    maps = torch.sigmoid(functional.conv2d(maps, k2, a2, stride=2, padding=2))
    maps = torch.sigmoid(functional.conv2d(maps, k3, a3, padding=2))
    torch.testing.assert_close(model(x), maps.reshape(2, -1) @ w.T + b)


def test_has_the_sizes_of_the_released_program() -> None:
    assert DLGLeNet((3, 32, 32), 100).layers[-1].in_features == 768
    by_hand = (12 * 3 * 25 + 12) + 2 * (12 * 12 * 25 + 12) + (768 * 100 + 100)
    assert sum(p.numel() for p in DLGLeNet((3, 32, 32), 100).parameters()) == by_hand


@pytest.mark.parametrize("init_range", [0.5, 0.01])
def test_weights_and_biases_are_uniform(init_range: float) -> None:
    model = build_model("dlg_lenet", (3, 32, 32), 100, seed=0, init_range=init_range)
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert values.abs().max() <= init_range
    assert values.abs().max() > 0.99 * init_range
    assert values.mean().abs() < 0.01 * init_range
    assert float(values.std()) == pytest.approx(init_range / 3**0.5, rel=0.02)
    assert all(p.std() > 0.2 * init_range for p in model.parameters())  # biases too


def test_can_be_differentiated_twice() -> None:
    model = DLGLeNet((1, 4, 4), 3, channels=2).double()
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: functional.cross_entropy(model(v), torch.tensor([1])), x)


@pytest.mark.parametrize("shape", [(784,), (8, 8)])
def test_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="takes images"):
        DLGLeNet(shape, 10)
