import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import ResNetGN, build_model


def count(**settings) -> int:
    return sum(p.numel() for p in ResNetGN((3, 32, 32), 10, **settings).parameters())


def by_hand(blocks: int, c: int) -> int:
    convolutions = 3 * c * 9
    norms = 2 * c
    width = c
    for stage in range(3):
        out = c * 2**stage
        for block in range(blocks):
            convolutions += (width if block == 0 else out) * out * 9 + out * out * 9
            norms += 2 * 2 * out
            if block == 0 and stage:
                convolutions += width * out
                norms += 2 * out
        width = out
    return convolutions + norms + width * 10 + 10


@pytest.mark.parametrize(("blocks", "channels"), [(1, 16), (3, 16), (9, 16), (1, 32)])
def test_parameter_counts(blocks: int, channels: int) -> None:
    assert count(blocks=blocks, channels=channels) == by_hand(blocks, channels)


@pytest.mark.parametrize(("blocks", "layers"), [(1, 8), (3, 20), (9, 56)])
def test_has_as_many_layers_as_its_name_says(blocks: int, layers: int) -> None:
    model = ResNetGN((3, 8, 8), 10, blocks=blocks)
    weighted = [
        m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and getattr(m, "kernel_size", 0) != (1, 1)
    ]
    assert len(weighted) == layers


def test_computes_residual_blocks() -> None:
    torch.manual_seed(0)
    model = ResNetGN((3, 9, 12), 5, blocks=1, channels=4, groups=2).double()
    x = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    p = iter([q.detach() for q in model.parameters()])

    def normalised(maps: Tensor, stride: int = 1) -> Tensor:
        kernel = next(p)
        maps = functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return functional.group_norm(maps, 2, next(p), next(p))

    maps = normalised(x).relu()
    for stride in (1, 2, 2):
        inside = normalised(normalised(maps, stride).relu())
        maps = (inside + (maps if stride == 1 else normalised(maps, 2))).relu()
    torch.testing.assert_close(model(x), maps.mean(dim=(2, 3)) @ next(p).T + next(p))


def test_is_the_same_in_training_and_knows_no_batch() -> None:
    model = ResNetGN((3, 8, 8), 5, blocks=1)
    x = torch.rand(4, 3, 8, 8)
    together = model.train()(x)
    torch.testing.assert_close(together, model.eval()(x))
    torch.testing.assert_close(together[1:2], model(x[1:2]))
    assert not list(model.buffers())


def test_without_pooling_the_linear_layer_sees_every_position() -> None:
    model = ResNetGN((1, 9, 12), 5, blocks=1, pooling="none")
    assert model.layers[-1].in_features == 64 * 3 * 3
    assert model(torch.rand(2, 1, 9, 12)).shape == (2, 5)


def test_is_resnet_under_a_name_of_its_own() -> None:
    settings = {"norm": "group", "shortcut": "projection", "init": "torch"}
    state = build_model("resnet", (3, 8, 8), 5, seed=4, **settings).state_dict()
    own = build_model("resnet_gn", (3, 8, 8), 5, seed=4).state_dict()
    assert list(own) == list(state)
    assert all(torch.equal(own[key], state[key]) for key in state)


def test_draws_and_names_are_those_of_plain_torch_modules_in_this_order() -> None:
    def conv(a: int, b: int, size: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(a, b, size, stride=stride, padding=size // 2, bias=False)

    def block(a: int, b: int, stride: int) -> nn.Module:
        made = nn.Module()
        made.layers = nn.Sequential(
            conv(a, b, 3, stride), nn.GroupNorm(2, b), nn.ReLU(), conv(b, b, 3), nn.GroupNorm(2, b)
        )
        if stride > 1:
            made.shortcut = nn.Sequential(conv(a, b, 1, stride), nn.GroupNorm(2, b))
        return made

    torch.manual_seed(1)
    expected = nn.Module()
    expected.layers = nn.Sequential(
        conv(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), block(4, 4, 1), block(4, 8, 2), block(8, 16, 2),
        nn.Identity(), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    torch.manual_seed(1)
    state = ResNetGN((3, 8, 8), 5, blocks=1, channels=4, groups=2).state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())


@pytest.mark.parametrize("setting", [{"norm": "batch"}, {"shortcut": "zeros"}, {"init": "he"}])
def test_has_no_settings_that_would_make_it_another_network(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"'resnet_gn' has no parameter '{next(iter(setting))}'"):
        build_model("resnet_gn", (3, 8, 8), 5, 0, **setting)


def test_refuses_groups_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="'resnet_gn': groups must divide channels=16; got 3"):
        ResNetGN((3, 8, 8), 5, groups=3)
