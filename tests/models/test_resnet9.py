import pytest
import torch
from torch import Tensor
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import ResNet9


def test_has_as_many_parameters_as_the_paper_prints() -> None:
    widths = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    by_hand = sum(9 * a * b for a, b in widths) + 512 * 10
    assert sum(p.numel() for p in ResNet9((3, 32, 32), 10).parameters()) == by_hand == 6_568_640


def test_computes_pages_layout() -> None:
    torch.manual_seed(0)
    model = ResNet9((2, 32, 35), 5, channels=2, scale=0.5).double()
    x = torch.rand(3, 2, 32, 35, dtype=torch.float64)
    *kernels, output = (p.detach() for p in model.parameters())
    k = iter(kernels)

    def step(maps: Tensor) -> Tensor:
        return functional.conv2d(maps, next(k), padding=1).clamp(min=0)

    maps = functional.max_pool2d(step(step(x)), 2)
    maps = maps + step(step(maps))
    maps = functional.max_pool2d(step(maps), 2)
    maps = functional.max_pool2d(step(maps), 2)
    maps = maps + step(step(maps))
    assert maps.shape == (3, 16, 4, 4)
    torch.testing.assert_close(model(x), 0.5 * functional.max_pool2d(maps, 4).flatten(1) @ output.T)


def test_judges_each_example_by_itself_in_training_too() -> None:
    model = ResNet9((1, 8, 8), 3, channels=4).train()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))
    assert not list(model.buffers())


def test_takes_images_from_8_x_8_on() -> None:
    assert ResNet9((1, 8, 9), 3, channels=2)(torch.rand(1, 1, 8, 9)).shape == (1, 3)
    for shape in [(1, 7, 9), (1, 9, 7), (64,)]:
        with pytest.raises(ConfigError, match=r"'resnet9' takes images .* at least 8 x 8"):
            ResNet9(shape, 3)


@pytest.mark.parametrize("settings", [{"channels": 0}, {"scale": 0.0}])
def test_refuses_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ResNet9((3, 32, 32), 10, **settings)
