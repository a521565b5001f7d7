import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.metrics import reconstruction_scores
from flsec.models import build_model
from flsec.reconstruction import invert_update
from flsec.reconstruction._matching_batch import Autograd, ClosedForm, matching_batch
from tests.reconstruction.problems import SHAPE, digits, examples, gradients_of

SMALL = {"input_shape": (2, 6, 5), "num_classes": 3, "batch_size": 4, "num_steps": 8, "learning_rate": 0.1}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def convolutional():
    """Everything that the closed form knows, in odd shapes: strides, dilation, a pooling that cuts a row off."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (2, 3), padding=(1, 2), bias=False),
            nn.Softplus(beta=2),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 2, stride=(1, 2), dilation=(2, 1), padding=1),
            nn.Tanh(),
            nn.Dropout(),
            nn.Flatten(),
            nn.Identity(),
            nn.Linear(24, 5),
            nn.Sigmoid(),
            nn.Linear(5, 6, bias=False),
            nn.ReLU(),
            nn.Linear(6, 3),
            nn.Softplus(),
        ).double()
    )


class Residual(nn.Module):
    """No chain: a connection around a layer, a weight used twice, BatchNorm, dropout, a scalar, something frozen."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.7))
        self.first, self.second = nn.Linear(60, 5), nn.Linear(5, 5)
        self.norm, self.drop, self.last = nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)
        self.last.bias.requires_grad_(False)

    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        h = self.factor * h + self.drop(self.norm(self.second(self.second(h))))
        return self.last(h)


def observed_for(model, n, seed=1, size=0.1):
    return [size * draw(seed + i, n, *p.shape) for i, p in enumerate(model.parameters()) if p.requires_grad]


def error_by_hand(model, x, y, gradients):
    """|G - g|^2 of one client, with plain autograd."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(cross_entropy(model(x), y), parameters, create_graph=True)
    return sum((a - b).square().sum() for a, b in zip(found, gradients, strict=True))


def one_after_another(model, gradients, start, labels, rate, steps):
    """FedInv's inversion as printed, client by client, with torch's own Adam."""
    inputs = []
    for row in zip(*gradients, strict=True):
        x = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            x.grad = torch.autograd.grad(error_by_hand(model, x, labels, row), x)[0]
            optimizer.step()
        inputs.append(x.detach())
    return torch.stack(inputs)


MODELS = {"closed form": convolutional, "general": lambda: seeded(lambda: Residual().double())}


@pytest.mark.parametrize("kind", MODELS)
def test_derivative_and_loss_are_those_of_each_client_alone(kind):
    model = MODELS[kind]().eval()
    y, x, gradients = torch.tensor([0, 2, 2, 1]), draw(0, 3, 4, 2, 6, 5), observed_for(model, 3)
    matching = matching_batch(model, (2, 6, 5), y, gradients)
    assert isinstance(matching, ClosedForm) == (kind == "closed form")
    losses, slopes = [], []
    for i in range(3):
        own = x[i].clone().requires_grad_()
        losses.append(error_by_hand(model, own, y, [g[i] for g in gradients]))
        slopes.append(torch.autograd.grad(losses[-1], own)[0])
    packed = matching.pack(x)
    assert torch.equal(matching.unpack(packed), x)
    torch.testing.assert_close(matching.loss(packed), torch.stack(losses).detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(matching.unpack(matching.derivative(packed)), torch.stack(slopes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_derivative_agrees_with_finite_differences(kind):
    model = MODELS[kind]().eval()
    gradients = observed_for(model, 2)
    matching = matching_batch(model, (2, 6, 5), torch.tensor([1, 0]), gradients)
    x, along = draw(2, 2, 2, 2, 6, 5), draw(3, 2, 2, 2, 6, 5)
    h = 1e-6
    ahead, behind = (matching.loss(matching.pack(x + sign * h * along)).sum() for sign in (1, -1))
    slope = (matching.unpack(matching.derivative(matching.pack(x))) * along).sum()
    assert float(slope) == pytest.approx(float((ahead - behind) / (2 * h)), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fedinv_cnn", (1, 8, 8)),
        ("fedinv_fcn", (7,)),
        ("softmax", (7,)),
        ("softmax", (2, 3, 3)),
        ("mlp", (1, 4, 4)),
        ("dlg_lenet", (1, 8, 8)),
    ],
)
def test_the_papers_models_have_a_closed_form(name, shape):
    model = build_model(name, shape, 4, 0).double().eval()
    y, x, gradients = torch.tensor([3, 0, 1]), draw(0, 2, 3, *shape), observed_for(model, 2)
    closed, general = ClosedForm.of(model, shape, y, gradients), Autograd(model, y, gradients)
    assert closed is not None
    torch.testing.assert_close(
        closed.unpack(closed.derivative(closed.pack(x))), general.derivative(x), rtol=1e-9, atol=1e-12
    )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(60, 3), nn.Linear(60, 3)

    def forward(self, x):
        return self.one(x.flatten(1)) + self.two(x.flatten(1))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(60, 3)

    def forward(self, x):
        return self.one(x.flatten(1)) if x.sum() < 1e9 else x.flatten(1)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.never = nn.Linear(60, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.one(x.flatten(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.same = nn.Linear(60, 60, bias=False), nn.Linear(60, 60, bias=False)
        self.same.weight = self.first.weight

    def forward(self, x):
        return self.same(self.first(x.flatten(1)))


@pytest.mark.parametrize(
    "make",
    [
        Residual,
        TwoInputs,
        Branching,
        Unused,
        Tied,
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(48, 3)),
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(120, 3)),
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.Flatten(), nn.Linear(120, 3)),
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2, stride=1), nn.Flatten(), nn.Linear(24, 3)),
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(48, 3)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 3)).requires_grad_(False),
        lambda: nn.Sequential(nn.Linear(5, 5), nn.Flatten(), nn.Linear(60, 3)),  # along the width of the images
        lambda: nn.Sequential(nn.Flatten(2), nn.Flatten(), nn.Linear(60, 3)),
    ],
)
def test_anything_else_is_left_to_the_general_way(make):
    model = seeded(make).double()
    assert ClosedForm.of(model, (2, 6, 5), torch.tensor([0]), observed_for(model, 1)) is None


@pytest.mark.parametrize("kind", MODELS)
def test_is_the_printed_inversion_of_one_client_after_another(kind):
    model = MODELS[kind]().eval()
    gradients = observed_for(model, 3)
    result = invert_update(model, list(zip(*gradients, strict=True)), **SMALL)
    expected = one_after_another(model, gradients, result.start, result.labels, 0.1, 8)
    torch.testing.assert_close(result.inputs, expected, rtol=1e-6, atol=1e-8)


def test_in_float32_the_batch_agrees_with_one_client_after_another():
    model = build_model("fedinv_cnn", (1, 12, 12), 5, 0)
    rows = 0.01 * draw(0, 6, sum(p.numel() for p in model.parameters()), dtype=torch.float32)
    form = {"input_shape": (1, 12, 12), "num_classes": 5, "batch_size": 4, "num_steps": 25, "learning_rate": 0.1}
    together = invert_update(model, rows, **form)
    alone = torch.cat([invert_update(model, rows[i : i + 1], **form).inputs for i in range(6)])
    torch.testing.assert_close(together.inputs, alone, rtol=1e-3, atol=1e-3)
    in_parts = invert_update(model, rows, **form, clients_at_once=4)
    torch.testing.assert_close(together.inputs, in_parts.inputs, rtol=1e-3, atol=1e-3)
    assert (together.inputs - together.start).abs().max() > 0.5  # far more than the tolerance


def test_all_clients_share_labels_and_start_which_depend_on_the_seed_alone():
    model = convolutional().eval()
    result = invert_update(model, list(zip(*observed_for(model, 3), strict=True)), **{**SMALL, "num_steps": 1})
    assert result.labels.shape == (4,)
    assert result.start.shape == (4, 2, 6, 5)
    moved = (result.inputs - result.start).abs()
    assert bool((moved <= 0.1 + 1e-6).all())  # one step of Adam away from the shared start, each of them
    others = invert_update(model, list(zip(*observed_for(model, 2, seed=9), strict=True)), **SMALL)
    assert torch.equal(result.start, others.start)
    assert torch.equal(result.labels, others.labels)
    another = invert_update(model, list(zip(*observed_for(model, 2), strict=True)), **SMALL, seed=1)
    assert not torch.equal(result.start, another.start)
    given = invert_update(model, list(zip(*observed_for(model, 2), strict=True)), **SMALL, labels=[2, 2, 0, 1])
    assert given.labels.tolist() == [2, 2, 0, 1]
    assert not torch.allclose(given.inputs, others.inputs)


def test_labels_are_uniform_among_all_classes():
    model = build_model("softmax", (2,), 4, 0)
    form = {"input_shape": (2,), "num_classes": 4, "batch_size": 4000, "num_steps": 1}
    labels = invert_update(model, torch.ones(1, 12), **form).labels
    assert labels.bincount().min() > 900


def test_permuting_the_clients_permutes_the_dummies():
    model = convolutional().eval()
    gradients = observed_for(model, 5)
    order = [3, 0, 4, 1, 2]
    form = {**SMALL, "num_steps": 4}
    a = invert_update(model, list(zip(*gradients, strict=True)), **form)
    b = invert_update(model, list(zip(*[g[order] for g in gradients], strict=True)), **form)
    torch.testing.assert_close(b.inputs, a.inputs[order])
    torch.testing.assert_close(b.loss, a.loss[order])


def test_a_client_depends_on_its_own_gradient_alone_whatever_the_others_send():
    model = convolutional().eval()
    gradients = observed_for(model, 5)
    for p, g in zip(model.parameters(), gradients, strict=True):
        g[1], g[2], g[3], g[4] = 1e30, torch.nan, 0.0, 1e300
        assert p.shape == g.shape[1:]
    result = invert_update(model, list(zip(*gradients, strict=True)), **SMALL)
    alone = invert_update(model, [[g[0] for g in gradients]], **SMALL)
    torch.testing.assert_close(result.inputs[0], alone.inputs[0])
    assert bool(result.inputs[[0, 3]].isfinite().all())
    assert not bool(result.inputs[2].isfinite().any())


def test_the_sign_is_that_of_a_gradient():
    """The gradient of some examples with the right labels is matched; an update, which goes against it, is not."""
    model = convolutional().eval()
    first = invert_update(model, list(zip(*observed_for(model, 1), strict=True)), **SMALL)
    x, y = draw(11, 4, 2, 6, 5), first.labels
    true = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    form = {**SMALL, "num_steps": 150}
    right, wrong = (invert_update(model, [[sign * g for g in true]], **form) for sign in (1, -1))
    assert float(right.loss) < 0.1 * float(right.start_loss)
    assert float(wrong.loss) > 0.3 * float(wrong.start_loss)


def test_loss_falls_and_is_the_squared_error():
    model = convolutional().eval()
    gradients = observed_for(model, 3)
    result = invert_update(model, list(zip(*gradients, strict=True)), **{**SMALL, "num_steps": 40})
    assert bool((result.loss < result.start_loss).all())
    for inputs, losses in ((result.inputs, result.loss), (result.start.expand(3, 4, 2, 6, 5), result.start_loss)):
        for i in range(3):
            expected = error_by_hand(model, inputs[i], result.labels, [g[i] for g in gradients])
            assert losses[i].item() == pytest.approx(expected.item())


def test_rows_and_lists_are_the_same():
    model = convolutional().eval()
    gradients = observed_for(model, 3)
    rows = torch.cat([g.flatten(1) for g in gradients], dim=1)
    a, b = invert_update(model, rows, **SMALL), invert_update(model, list(zip(*gradients, strict=True)), **SMALL)
    assert torch.equal(a.inputs, b.inputs)


@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_changed_and_the_global_random_state_is_left_alone(kind):
    model = MODELS[kind]().train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = observed_for(model, 2)
    copied = [g.clone() for g in gradients]
    a, b = (invert_update(model, list(zip(*gradients, strict=True)), **SMALL) for _ in range(2))
    assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(g, c) for g, c in zip(gradients, copied, strict=True))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in MODELS[kind]().parameters()]
    assert all(p.grad is None for p in model.parameters())


def test_refuses_what_does_not_fit():
    model = build_model("softmax", (4,), 3, 0)
    form = {"input_shape": (4,), "num_classes": 3}
    for gradients in (torch.zeros(15), torch.zeros(2, 14), torch.zeros(0, 15), [], [[torch.zeros(3, 4)]]):
        with pytest.raises(ConfigError, match="gradients"):
            invert_update(model, gradients, **form)
    rows = torch.zeros(2, 15)
    for wrong in ({"labels": [0, 1, 3], "batch_size": 3}, {"labels": [0]}, {"num_steps": 0}, {"learning_rate": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            invert_update(model, rows, **{**form, **wrong})


def test_random_labels_are_what_keeps_the_dummies_from_showing_the_data():
    """The gradient of two digits: with their labels the inversion shows them, as FedInv does it they stay hidden."""
    x, y = examples([30, 31])
    model = build_model("dlg_lenet", SHAPE, 10, seed=0).eval()
    form = {"input_shape": SHAPE, "num_classes": 10, "batch_size": 2, "num_steps": 150, "learning_rate": 0.1}
    scores = {
        name: reconstruction_scores(result.inputs[0].clamp(0, 1), x, digits()[0][500:700])
        for name, result in {
            "FedInv": invert_update(model, [gradients_of(model, x, y)], **form),
            "true labels": invert_update(model, [gradients_of(model, x, y)], **form, labels=y),
        }.items()
    }
    assert scores["FedInv"].reconstruction.psnr < scores["FedInv"].mean_image.psnr - 3
    assert scores["FedInv"].reconstruction.ssim < 0.3
    assert scores["true labels"].reconstruction.psnr > scores["FedInv"].mean_image.psnr + 3
