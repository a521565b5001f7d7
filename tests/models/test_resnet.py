import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flsec.errors import ConfigError
from flsec.models import ResNet, build_model
from flsec.state_arrays import state_of_module


def count(**settings) -> int:
    return sum(p.numel() for p in ResNet((3, 32, 32), 10, **settings).parameters())


@pytest.mark.parametrize(
    ("blocks", "printed", "exact"), [(3, 0.27, 269_722), (5, 0.46, 464_154), (7, 0.66, 658_586), (9, 0.85, 853_018)]
)
def test_parameter_counts_are_the_printed_ones(blocks: int, printed: float, exact: int) -> None:
    assert count(blocks=blocks) == exact
    assert round(exact / 1e6, 2) == printed  # He et al., Table 6


def test_projections_add_two_convolutions_and_two_norms() -> None:
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert count(shortcut="projection") == count() + extra == 272_474
    assert count(blocks=9, shortcut="projection") == count(blocks=9) + extra
    assert count(norm="group", shortcut="projection") == count(shortcut="projection")


def test_fedmls_network_of_56_layers_has_bottlenecks() -> None:
    def bottleneck(width_in: int, width: int) -> int:
        convolutions = width_in * width + 9 * width * width + width * 4 * width
        return convolutions + 2 * (width + width + 4 * width)

    by_hand = 3 * 16 * 9 + 2 * 16 + 256 * 10 + 10
    for width_in, width in ((16, 16), (64, 32), (128, 64)):
        by_hand += bottleneck(width_in, width) + 5 * bottleneck(4 * width, width) + width_in * 4 * width + 2 * 4 * width
    assert count(block="bottleneck", blocks=6, shortcut="projection") == by_hand == 591_322


@pytest.mark.parametrize(("block", "blocks", "layers"), [("basic", 3, 20), ("basic", 9, 56), ("bottleneck", 6, 56)])
def test_has_as_many_layers_as_its_name_says(block: str, blocks: int, layers: int) -> None:
    model = ResNet((3, 8, 8), 10, block=block, blocks=blocks)
    assert sum(isinstance(m, nn.Linear | nn.Conv2d) for m in model.modules()) == layers  # zeros: no other convolution


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_computes_residual_blocks_with_zeros_for_new_channels(block: str) -> None:
    torch.manual_seed(0)
    model = ResNet((3, 9, 12), 5, blocks=1, channels=4, block=block).double()
    x = torch.rand(6, 3, 9, 12, dtype=torch.float64)
    p = iter([q.detach() for q in model.parameters()])

    def normalised(maps: Tensor, stride: int = 1) -> Tensor:
        kernel = next(p)
        maps = functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var = maps.mean(dim=(0, 2, 3), keepdim=True), maps.var(dim=(0, 2, 3), keepdim=True, correction=0)
        return (maps - mean) / (var + 1e-5).sqrt() * next(p)[:, None, None] + next(p)[:, None, None]

    maps = normalised(x).relu()
    for stride in (1, 2, 2):
        inside = normalised(maps, stride if block == "basic" else 1).relu()
        inside = normalised(inside, 1 if block == "basic" else stride)
        if block == "bottleneck":
            inside = normalised(inside.relu())
        beside = torch.zeros_like(inside)
        beside[:, : maps.shape[1]] = maps[:, :, ::stride, ::stride]
        maps = (inside + beside).relu()
    torch.testing.assert_close(model(x), maps.mean(dim=(2, 3)) @ next(p).T + next(p))


def test_convolutions_start_from_hes_draw() -> None:
    model = build_model("resnet", (3, 32, 32), 10, seed=3, channels=64)
    convolutions = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Conv2d)]
    for weight in convolutions[1:]:  # the first has too few values to tell
        assert float(weight.std()) == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.03)
        assert float(weight.abs().max()) > 3 * float(weight.std())  # not uniform
    uniform = build_model("resnet", (3, 32, 32), 10, seed=3, channels=64, init="torch").layers[0].weight.detach()
    assert float(uniform.abs().max()) <= (1 / 27) ** 0.5


def test_statistics_are_state_and_weights_are_not() -> None:
    model = ResNet((3, 8, 8), 10, blocks=1)
    names = list(model.state_dict())
    assert {names[i] for i in state_of_module(model)} == set(names) - dict(model.named_parameters()).keys()
    assert len(state_of_module(model)) == 3 * 7
    assert not state_of_module(ResNet((3, 8, 8), 10, blocks=1, norm="group"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "group", "groups": 3}, "'resnet': groups must divide channels=16; got 3"),
        ({"norm": "group", "channels": 12}, "groups must divide channels=12; got 8"),
        ({"groups": 4}, "groups goes with norm 'group'; got 4 and norm 'batch'"),
        ({"norm": "layer"}, "norm"),
        ({"blocks": 0}, "blocks"),
    ],
)
def test_refuses_what_does_not_fit(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ResNet((3, 8, 8), 5, **settings)


def test_a_subclass_may_take_other_arguments() -> None:
    class Mine(ResNet):
        def __init__(self, input_shape, num_classes, *, extra: int = 3):
            super().__init__(input_shape, num_classes, blocks=1)
            self.extra = extra

    assert Mine((3, 8, 8), 5)(torch.rand(2, 3, 8, 8)).shape == (2, 5)
