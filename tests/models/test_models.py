"""What every registered model promises; the registry is the list."""

import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import MODELS, build_model
from flsec.registry import yaml_name
from flsec.tasks import TASKS
from tests.support.texts import CLASSIFIERS

each_model = pytest.mark.parametrize("name", CLASSIFIERS)  # of numbers; those of texts: test_text_models.py

SHAPE = (3, 32, 35)  # not square: height and width must not be mixed up; large enough for five poolings


def batch(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(7))


def test_the_registry_holds_the_models_and_nothing_else() -> None:
    assert {"fedinv_cnn", "fedinv_fcn", "mlp", "siren_cnn", "softmax"} <= set(MODELS.names())
    assert all(issubclass(model, torch.nn.Module) for _, model in MODELS.items())


def test_every_model_says_which_tasks_it_serves() -> None:
    assert all(set(model.tasks) <= set(TASKS.names()) and model.tasks for _, model in MODELS.items())


@each_model
def test_gives_one_finite_logit_per_example_and_class(name: str) -> None:
    logits = build_model(name, SHAPE, 5, seed=0)(batch(4))
    assert logits.shape == (4, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@each_model
def test_judges_each_example_by_itself(name: str) -> None:
    model = build_model(name, SHAPE, 5, seed=0).double().eval()
    x = batch(6).double()
    with torch.no_grad():
        for parameter in model.parameters():  # zero weights would pass for free
            parameter.add_(0.01)
        together = model(x)
        torch.testing.assert_close(together, torch.cat([model(row) for row in x.split(1)]))
        assert not torch.allclose(together[0], together[1])


@each_model
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = build_model(name, SHAPE, 5, seed=0).eval()
    torch.nn.functional.cross_entropy(model(batch(8)), torch.arange(8) % 5).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@each_model
@pytest.mark.parametrize(
    ("shape", "num_classes", "words"),
    [
        ((), 5, "input_shape"),
        ((3, 0, 12), 5, r"input_shape\[1\] must be greater than or equal to 1"),
        ((3, 12.0, 12), 5, "input_shape"),
        (784, 5, "input_shape"),
        (SHAPE, 1, "num_classes must be greater than or equal to 2; got 1"),
        (SHAPE, 2.5, "num_classes"),
    ],
)
def test_refuses_what_is_no_task(name: str, shape: object, num_classes: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        MODELS.get(name)(shape, num_classes)
    assert repr(yaml_name(MODELS.get(name))) in str(caught.value)


@each_model
def test_accepts_the_shape_of_a_tensor(name: str) -> None:
    assert MODELS.get(name)(batch(1).shape[1:], 5)(batch(1)).shape == (1, 5)
