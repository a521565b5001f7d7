import pytest
import torch

from flsec.errors import ConfigError
from flsec.metrics import reconstruction_scores
from flsec.models import build_model
from flsec.reconstruction import invert_gradients
from flsec.reconstruction.invert_gradients import _decayed, _total_variation
from tests.reconstruction.problems import SHAPE, digits, examples, gradients_of, lenet

FORM = {"input_shape": SHAPE, "num_classes": 10}


def test_rebuilds_a_digit_far_better_than_knowing_nothing() -> None:
    model = lenet()
    x, y = examples([30])
    result = invert_gradients(model, gradients_of(model, x, y), **FORM, max_iterations=300, total_variation=1e-3)
    scores = reconstruction_scores(result.inputs, x, digits()[0][200:400])
    assert torch.equal(result.labels, y)  # revealed
    assert scores.reconstruction.psnr > scores.mean_image.psnr + 6
    assert scores.reconstruction.psnr > scores.random_image.psnr + 6
    assert scores.reconstruction.ssim > 0.8


def test_clipping_hides_nothing_but_the_sign_does() -> None:
    model = lenet()
    x, y = examples([30])
    settings = {**FORM, "max_iterations": 60, "total_variation": 0.0, "labels": y}
    observed = gradients_of(model, x, y)
    plain = invert_gradients(model, observed, **settings)
    clipped = invert_gradients(model, [0.125 * g for g in observed], **settings)  # by a power of two: exact
    wrong = invert_gradients(model, [-g for g in observed], **settings)
    assert torch.equal(plain.inputs, clipped.inputs)
    assert plain.loss < 0.05
    assert wrong.loss > 0.5


@pytest.mark.parametrize("box", [(0.0, 1.0), (0.4, 0.6), (-0.2, 0.1)])
def test_stays_in_the_box(box: tuple[float, float]) -> None:
    model = lenet()
    observed = gradients_of(model, *examples([30]))
    inputs = invert_gradients(model, observed, **FORM, max_iterations=20, box=box).inputs
    assert torch.tensor(box[0]) <= inputs.min()
    assert inputs.max() <= torch.tensor(box[1])
    free = invert_gradients(model, observed, **FORM, max_iterations=20, box=None).inputs
    assert free.min() < -0.2 or free.max() > 0.6


def test_total_variation_and_its_derivative() -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = [
        abs(float(images[n, c, i + a, j + b] - images[n, c, i, j]))
        for a, b in [(1, 0), (0, 1)]
        for n in range(2)
        for c in range(3)
        for i in range(4 - a)
        for j in range(5 - b)
    ]
    down, across = by_hand[: 2 * 3 * 3 * 5], by_hand[2 * 3 * 3 * 5 :]
    assert float(_total_variation(images)) == pytest.approx(sum(down) / len(down) + sum(across) / len(across))
    assert torch.autograd.gradcheck(_total_variation, images.requires_grad_())  # random pixels: no ties
    assert float(_total_variation(torch.full((1, 1, 3, 3), 0.7))) == 0
    assert float(_total_variation(torch.ones(1, 1, 1, 1))) == 0


def test_total_variation_smooths() -> None:
    model = lenet()
    observed = gradients_of(model, *examples([30]))
    rough, smooth = (
        invert_gradients(model, observed, **FORM, max_iterations=40, total_variation=weight).inputs
        for weight in (0.0, 10.0)
    )
    assert _total_variation(smooth) < 0.3 * _total_variation(rough)


def test_the_rate_falls_three_times() -> None:
    rates = [_decayed(0.1, i, 16) for i in range(1, 17)]
    assert rates == pytest.approx([0.1] * 6 + [0.01] * 4 + [0.001] * 4 + [0.0001] * 2)


def test_data_that_is_no_image() -> None:
    model = build_model("fedinv_fcn", (12,), 4, seed=0)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(3, 12, generator=rng), torch.tensor([2, 0, 1])
    form = {"input_shape": (12,), "num_classes": 4, "batch_size": 3, "max_iterations": 10}
    a, b = (invert_gradients(model, gradients_of(model, x, y), **form, total_variation=tv) for tv in (0.0, 1.0))
    assert a.inputs.shape == (3, 12)
    assert torch.equal(a.inputs, b.inputs)
    assert a.labels.tolist() == [0, 1, 2]


def test_is_decided_by_the_seed_and_keeps_the_best_restart() -> None:
    model = lenet()
    observed = gradients_of(model, *examples([8]))
    settings = {**FORM, "max_iterations": 8, "restarts": 3}
    a, b = (invert_gradients(model, observed, seed=5, **settings) for _ in range(2))
    c = invert_gradients(model, observed, seed=6, **settings)
    assert torch.equal(a.inputs, b.inputs)
    assert not torch.equal(a.inputs, c.inputs)
    assert a.restarts == 3
    assert [len(losses) for losses in a.history] == [9, 9, 9]
    assert a.loss == min(min(losses) for losses in a.history)


@pytest.mark.parametrize("box", [(1.0, 0.0), (0.5, 0.5), (0.0, 0.5, 1.0)])
def test_refuses_a_box_without_room(box: tuple[float, ...]) -> None:
    model = lenet()
    with pytest.raises(ConfigError, match="box must be"):
        invert_gradients(model, gradients_of(model, *examples([8])), **FORM, box=box)
