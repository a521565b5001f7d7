import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.reconstruction import analytic_inverse
from tests.reconstruction.problems import SHAPE, examples, gradients_of, lenet

FORM = {"input_shape": SHAPE, "num_classes": 10}


@pytest.mark.parametrize("name", ["softmax", "mlp", "fedinv_fcn"])
@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_one_example_leaks_exactly(name: str, factor: float) -> None:
    model = build_model(name, SHAPE, 10, seed=0)
    for index in (3, 4, 5):
        x, y = examples([index])
        result = analytic_inverse(model, [factor * g for g in gradients_of(model, x, y)], **FORM)
        torch.testing.assert_close(result.inputs, x, rtol=0, atol=1e-4)
        assert torch.equal(result.labels, y)
        assert (result.loss < 1e-8) == (factor == 1.0)  # the loss compares lengths too


def test_a_batch_gives_a_mixture() -> None:
    model = build_model("softmax", SHAPE, 10, seed=0)
    x, y = examples([3, 4])
    mixed = analytic_inverse(model, gradients_of(model, x, y), **FORM).inputs.flatten()
    weights = torch.linalg.lstsq(x.flatten(1).T, mixed[:, None]).solution
    torch.testing.assert_close(x.flatten(1).T @ weights, mixed[:, None], rtol=0, atol=1e-4)


def test_refuses_networks_that_do_not_begin_with_a_linear_layer() -> None:
    model = lenet()
    with pytest.raises(ConfigError, match=r"first layer nn.Linear\(64, ...\) with a bias.*\(12, 1, 5, 5\)"):
        analytic_inverse(model, gradients_of(model, *examples([3])), **FORM)


def test_refuses_a_first_layer_without_signal() -> None:
    model = build_model("softmax", SHAPE, 10, seed=0)
    observed = [torch.ones(10, 64), torch.zeros(10)]
    with pytest.raises(ConfigError, match="bias gradient of the first layer is zero"):
        analytic_inverse(model, observed, **FORM)
