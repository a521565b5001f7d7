import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import MLP, Softmax, build_model
from tests.support.texts import CLASSIFIERS

each_model = pytest.mark.parametrize("name", CLASSIFIERS)  # of numbers; those of texts: test_text_models.py
SHAPE = (1, 32, 32)


class Noisy(torch.nn.Module):
    """Somebody's own model; draws from torch's global state."""

    def __init__(self, input_shape, num_classes, scale=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(scale * torch.randn(input_shape[0], num_classes))

    def forward(self, x):
        return x @ self.weight


def weights(name: str, seed: int, **params: object) -> torch.Tensor:
    model = build_model(name, SHAPE, 3, seed, **params)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@each_model
def test_same_seed_same_weights_whatever_was_drawn_before(name: str) -> None:
    torch.manual_seed(1)
    first = weights(name, seed=5)
    torch.rand(17)
    assert torch.equal(first, weights(name, seed=5))


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - {"softmax"}))
def test_another_seed_gives_other_weights(name: str) -> None:
    assert not torch.equal(weights(name, seed=5), weights(name, seed=6))


def test_softmax_starts_at_zero_unless_told_otherwise() -> None:
    assert not weights("softmax", seed=5).any()
    drawn = weights("softmax", seed=5, zero_init=False)
    assert drawn.any()
    assert not torch.equal(drawn, weights("softmax", seed=6, zero_init=False))


@each_model
def test_leaves_the_global_random_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    build_model(name, SHAPE, 3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_restores_the_random_state_when_a_model_cannot_be_built() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ConfigError):
        build_model("siren_cnn", (1, 8, 8), 3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_passes_parameters_on_and_knows_every_spelling() -> None:
    model = build_model("mlp", [64], 10, 0, hidden=[8])
    assert isinstance(model, MLP)
    assert [tuple(p.shape) for p in model.parameters()] == [(8, 64), (8,), (10, 8), (10,)]
    assert isinstance(build_model("Softmax", [64], 10, 0), Softmax)
    assert type(build_model("fedinv_fcn", [64], 10, 0)) is type(build_model("FedInvFCN", [64], 10, 0))


def test_builds_a_users_own_model() -> None:
    path = f"{__name__}:Noisy"
    model = build_model(path, [4], 3, 1, scale=2.0)
    assert torch.equal(model.weight, 2 * build_model(path, [4], 3, 1).weight)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("sofmax", {}, "Did you mean 'softmax'"),
        ("mlp", {"hiden": [3]}, "Did you mean 'hidden'"),
        ("mlp", {"hidden": [0]}, r"hidden\[0\] must be greater than or equal to 1; got \[0\]"),
        ("softmax", {"zero_init": 1}, "zero_init"),
        ("build_model", {}, "no model"),
    ],
)
def test_a_mistake_is_named(name: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(name, (1, 9, 9), 3, 0, **params)
