import pytest
import torch
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import LeNet


@pytest.mark.parametrize(("shape", "padding"), [((1, 28, 28), 2), ((1, 32, 32), 0)])
def test_parameter_counts_by_hand(shape: tuple[int, ...], padding: int) -> None:
    by_hand = (25 * 6 + 6) + (6 * 25 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert sum(p.numel() for p in LeNet(shape, 10, padding=padding).parameters()) == by_hand == 61_706


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("old", [True, False])
def test_is_two_convolutions_and_three_dense_layers(padding: int, old: bool) -> None:
    torch.manual_seed(0)
    settings = {"activation": "tanh", "pooling": "mean"} if old else {}
    model = LeNet((2, 17, 22), 3, padding=padding, **settings).double()
    x = torch.randn(4, 2, 17, 22, dtype=torch.float64)
    (k1, a1, k2, a2, w1, b1, w2, b2, w3, b3) = model.parameters()
    smooth, pool = (torch.tanh, functional.avg_pool2d) if old else (torch.relu, functional.max_pool2d)
    maps = pool(smooth(functional.conv2d(x, k1, a1, padding=padding)), 2)
    maps = pool(smooth(functional.conv2d(maps, k2, a2)), 2)
    hidden = smooth(smooth(maps.flatten(1) @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(model(x), hidden @ w3.T + b3)


def test_an_image_in_a_margin_is_the_paper_input() -> None:
    torch.manual_seed(0)
    padded, bare = LeNet((1, 28, 28), 10), LeNet((1, 32, 32), 10, padding=0)
    bare.load_state_dict(padded.state_dict())
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(padded(x), bare(functional.pad(x, (2, 2, 2, 2))))


@pytest.mark.parametrize(("padding", "smallest"), [(0, 16), (2, 12)])
def test_takes_images_from_the_smallest_on(padding: int, smallest: int) -> None:
    shape = (1, smallest, smallest + 1)
    assert LeNet(shape, 2, padding=padding)(torch.zeros(1, *shape)).shape == (1, 2)
    for too_small in [(1, smallest - 1, 20), (1, 20, smallest - 1)]:
        with pytest.raises(ConfigError, match=f"at least {smallest} x {smallest}"):
            LeNet(too_small, 2, padding=padding)


@pytest.mark.parametrize("settings", [{"padding": 1}, {"activation": "gelu"}, {"pooling": "none"}])
def test_refuses_settings_out_of_range(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LeNet((1, 28, 28), 10, **settings)
