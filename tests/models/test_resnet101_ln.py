import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import ResNet101LN


def without_norms(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_parameter_counts() -> None:
    with torch.device("meta"):
        counts = {c: sum(p.numel() for p in ResNet101LN((1, 28, 28), c).parameters()) for c in (62, 63)}
    assert counts == {62: 43_124_350, 63: 43_126_399}  # "40M" in print


def test_convolutions_are_those_of_imagenets_resnet_101() -> None:
    with torch.device("meta"):
        ours, theirs = ResNet101LN((3, 224, 224), 1000), torchvision.models.resnet101()
    assert sorted(without_norms(ours)) == sorted(without_norms(theirs))
    weighted = [m for m in ours.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) - 4 == 101  # four shortcuts


def test_computes_bottlenecks_with_layer_norm() -> None:
    torch.manual_seed(0)
    model = ResNet101LN((1, 28, 21), 5, blocks=(1, 1), channels=4).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)  # norms that begin as 1 and 0 would hide their shapes
    x = torch.rand(3, 1, 28, 21, dtype=torch.float64)
    p = iter([q.detach() for q in model.parameters()])

    def normalised(maps: Tensor, stride: int = 1) -> Tensor:
        kernel = next(p)
        maps = functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var = maps.mean(dim=(1, 2, 3), keepdim=True), maps.var(dim=(1, 2, 3), keepdim=True, correction=0)
        return (maps - mean) / (var + 1e-5).sqrt() * next(p) + next(p)

    maps = functional.max_pool2d(normalised(x, 2).relu(), 3, stride=2, padding=1)
    for stride in (1, 2):
        inside = normalised(normalised(normalised(maps).relu(), stride).relu())
        maps = (inside + normalised(maps, stride)).relu()
    torch.testing.assert_close(model(x), maps.mean(dim=(2, 3)) @ next(p).T + next(p))


def test_knows_no_batch() -> None:
    model = ResNet101LN((1, 28, 28), 3, blocks=(1, 1, 1, 1), channels=4).train()
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))
    assert not list(model.buffers())


def test_refuses_what_is_no_image_and_no_layout() -> None:
    with pytest.raises(ConfigError, match="'resnet101_ln' takes images"):
        ResNet101LN((784,), 62)
    with pytest.raises(ConfigError, match=r"blocks\[0\]"):
        ResNet101LN((1, 28, 28), 62, blocks=(0, 1, 1, 1))
