import pytest
import torch
from torch import nn
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import VGG11


def count(shape, classes, **settings) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VGG11(shape, classes, **settings).parameters())


def test_parameter_counts() -> None:
    assert count((3, 224, 224), 1000, norm="none") == 132_863_336  # "133" million: Simonyan and Zisserman, Table 2
    convolutions = sum(9 * a * b + b for a, b in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True))
    dense = (512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 10 + 10)
    norms = 2 * sum(WIDTHS)
    assert count((3, 32, 32), 10) == convolutions + norms + dense == 28_149_514
    assert count((3, 32, 32), 10, norm="batch") == 28_149_514
    assert count((3, 32, 32), 100, norm="none") == 28_149_514 - norms + 4097 * 90


WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)


def test_each_group_has_16_channels_throughout() -> None:
    with torch.device("meta"):
        model = VGG11((3, 32, 32), 10)
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert [m.num_channels for m in norms] == list(WIDTHS)
    assert {m.num_channels // m.num_groups for m in norms} == {16}
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 8
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 3


def test_computes_eight_convolutions_and_three_dense_layers() -> None:
    torch.manual_seed(0)
    model = VGG11((2, 32, 64), 3, channels=4, channels_per_group=2, hidden=7).double().eval()
    x = torch.rand(2, 2, 32, 64, dtype=torch.float64)
    p = iter([q.detach() for q in model.parameters()])
    maps = x
    for index in range(8):
        maps = functional.conv2d(maps, next(p), next(p), padding=1)
        grouped = maps.unflatten(1, (-1, 2))  # two channels in each group
        mean = grouped.mean(dim=(2, 3, 4), keepdim=True)
        var = grouped.var(dim=(2, 3, 4), keepdim=True, correction=0)
        maps = ((grouped - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
        maps = (maps * next(p)[:, None, None] + next(p)[:, None, None]).relu()
        if index in (0, 1, 3, 5, 7):
            maps = functional.max_pool2d(maps, 2)
    assert maps.shape == (2, 32, 1, 2)
    hidden = (maps.flatten(1) @ next(p).T + next(p)).relu()
    hidden = (hidden @ next(p).T + next(p)).relu()
    torch.testing.assert_close(model(x), hidden @ next(p).T + next(p))


def test_starts_from_glorots_uniform_weights() -> None:
    torch.manual_seed(0)
    for layer in VGG11((3, 32, 32), 10, channels=16, hidden=64).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
            assert not layer.bias.any()


def test_drops_values_in_training_only() -> None:
    torch.manual_seed(0)
    settings = {"channels": 16, "hidden": 32}
    x = torch.rand(2, 3, 32, 32)
    model = VGG11((3, 32, 32), 5, **settings)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    plain = VGG11((3, 32, 32), 5, **settings, dropout=0.0)
    assert torch.equal(plain(x), plain(x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"channels": 24}, "channels_per_group must divide channels=24; got 16"),
        ({"norm": "none", "channels_per_group": 8}, "goes with norm 'group'; got 8 and norm 'none'"),
        ({"norm": "batch", "channels_per_group": 16}, "goes with norm 'group'"),
        ({"norm": "layer"}, "norm"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_refuses_what_does_not_fit(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VGG11((3, 32, 32), 10, **settings)


def test_refuses_images_that_five_poolings_leave_nothing_of() -> None:
    for shape in [(1, 28, 28), (3, 31, 40), (3, 40, 31)]:
        with pytest.raises(ConfigError, match=r"at least 32 x 32; got .* Use lenet"):
            VGG11(shape, 10)
