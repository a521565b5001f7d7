import dataclasses
import hashlib
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.tasks import CausalLM
from flsec.training import (
    Training,
    evaluate,
    get_weights,
    logits_of,
    pick_device,
    set_weights,
    train,
    weight_names,
)
from tests.support.tasks import WithLoss


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(n: int, features: int = 6, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, features, generator=rng(seed), dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=rng(seed + 1))


def network(features: int = 6, classes: int = 3, seed: int = 0) -> nn.Module:
    return build_model("mlp", (features,), classes, seed, hidden=[5]).double()


def batches_of(n: int, training: Training, seed: int = 0) -> list[list[int]]:
    """The rows of each batch that ``train`` takes from n examples, in order."""
    seen: list[list[int]] = []

    def record(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels.tolist())
        return logits.sum() * 0.0

    train(
        nn.Linear(1, 2),
        torch.zeros(n, 1),
        torch.arange(n),
        training,
        round=1,
        generator=rng(seed),
        task=WithLoss(function=record),
    )
    return seen


# ---- the optimisers


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_full_batch_sgd_on_softmax_regression_equals_the_closed_form(momentum: float, weight_decay: float) -> None:
    x, y = task(20)
    model = build_model("softmax", (6,), 3, seed=0).double()
    settings = Training(learning_rate=0.3, momentum=momentum, weight_decay=weight_decay, steps=7, batch_size=1.0)
    result = train(model, x, y, settings, round=1, generator=rng())

    inputs = np.hstack([x.numpy(), np.ones((20, 1))])  # the bias as one more feature
    targets = np.eye(3)[y.numpy()]
    weights, velocity, losses = np.zeros((3, 7)), np.zeros((3, 7)), []
    for _ in range(7):
        scores = np.exp(inputs @ weights.T)
        shares = scores / scores.sum(axis=1, keepdims=True)
        losses.append(-np.log((shares * targets).sum(axis=1)).mean())
        gradient = (shares - targets).T @ inputs / 20 + weight_decay * weights
        velocity = momentum * velocity + gradient
        weights = weights - 0.3 * velocity
    trained = np.hstack([model.output.weight.detach().numpy(), model.output.bias.detach().numpy()[:, None]])
    np.testing.assert_allclose(trained, weights, rtol=1e-12, atol=1e-14)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert (result.num_examples, result.steps) == (20, 7)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({"learning_rate": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
        (
            {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        ({"optimizer": "adam", "learning_rate": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01)),
        (
            {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        ),
    ],
)
def test_minibatch_training_equals_a_loop_over_torch_optim(settings, reference) -> None:
    x, y = task(23)
    training = Training(epochs=3, batch_size=5, **settings)
    model, other = network(), network()
    result = train(model, x, y, training, round=1, generator=rng(4))

    optimizer, total = reference(other.parameters()), 0.0
    rows = batches_of(23, training, seed=4)
    for batch in rows:
        optimizer.zero_grad()
        value = cross_entropy(other(x[batch]), y[batch])
        value.backward()
        optimizer.step()
        total += value.item() * len(batch)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert result.loss == pytest.approx(total / (3 * 23), rel=1e-12)
    assert result.steps == len(rows) == 15


def test_optimiser_state_does_not_survive_the_round() -> None:
    x, y = task(12)
    settings = Training(learning_rate=0.1, momentum=0.9, steps=1, batch_size=1.0)
    twice, plain = network(), network()
    for round in (1, 2):
        train(twice, x, y, settings, round=round, generator=rng())
        train(plain, x, y, dataclasses.replace(settings, momentum=0.0), round=round, generator=rng())
    # one step a round: momentum that was kept would show in the second
    for ours, theirs in zip(twice.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_one_gradient_that_reaches_two_parameters_is_not_changed_between_them() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([1.0, 2.0]))
            self.b = nn.Parameter(torch.tensor([30.0, 40.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.a + self.b)  # autograd hands a and b one and the same tensor

    model = Sum()
    settings = Training(learning_rate=1.0, weight_decay=0.1, steps=1)
    train(
        model,
        torch.ones(1, 2),
        torch.zeros(1),
        settings,
        round=1,
        generator=rng(),
        task=WithLoss(function=lambda out, _: out.sum()),
    )
    torch.testing.assert_close(model.a.detach(), torch.tensor([1 - 1.1, 2 - 1.2]))
    torch.testing.assert_close(model.b.detach(), torch.tensor([30 - 4.0, 40 - 5.0]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_and_unused_parameters_stay(optimizer: str) -> None:
    x, y = task(10)
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    model.layers[1].weight.requires_grad_(False)
    before = dict(zip(weight_names(model), get_weights(model), strict=True))
    settings = Training(optimizer=optimizer, learning_rate=0.1, weight_decay=0.1)
    train(model, x, y, settings, round=1, generator=rng())
    after = dict(zip(weight_names(model), get_weights(model), strict=True))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"layers.1.bias", "layers.3.weight", "layers.3.bias"}


# ---- batches


@given(
    n=st.integers(1, 40),
    size=st.one_of(st.integers(1, 50), st.floats(0.01, 1.0)),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_epoch_meets_every_example_once(n: int, size: float, epochs: int, seed: int) -> None:
    training = Training(learning_rate=0.1, batch_size=size, epochs=epochs)
    rows = batches_of(n, training, seed)
    full = training.batch_size_for(n)
    per_epoch = math.ceil(n / full)
    assert len(rows) == epochs * per_epoch == training.num_steps(n)
    for epoch in range(epochs):
        of_epoch = rows[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(itertools.chain(*of_epoch)) == list(range(n))
        assert [len(batch) for batch in of_epoch[:-1]] == [full] * (per_epoch - 1)
        assert len(of_epoch[-1]) == n - full * (per_epoch - 1)  # the last, short batch is not dropped


@pytest.mark.parametrize(
    ("size", "n", "expected"),
    [
        (0.1, 300, 30),
        (0.1, 5, 1),  # never empty: round(0.5) = 0 and int(0.5) = 0 would be
        (0.29, 100, 29),  # 0.29 * 100 = 28.999999999999996
        (0.25, 10, 3),
        (1.0, 7, 7),
        (1, 7, 1),
        (10, 7, 7),
    ],
)
def test_batch_size_is_a_count_or_a_share(size: float, n: int, expected: int) -> None:
    training = Training(learning_rate=0.1, batch_size=size)
    assert training.batch_size_for(n) == expected
    assert max(len(batch) for batch in batches_of(n, training)) == expected


@pytest.mark.parametrize("steps", [1, 3, 4, 9])
def test_steps_count_batches_and_reshuffle_when_the_data_is_used_up(steps: int) -> None:
    training = Training(learning_rate=0.1, batch_size=4, steps=steps)
    rows = batches_of(10, training)
    assert len(rows) == steps == training.num_steps(10)
    for first in range(0, steps, 3):
        whole_pass = list(itertools.chain(*rows[first : first + 3]))
        assert len(set(whole_pass)) == len(whole_pass)
    assert rows == batches_of(10, Training(learning_rate=0.1, batch_size=4, epochs=3))[:steps]


def test_epochs_and_seeds_shuffle_differently() -> None:
    rows = batches_of(30, Training(learning_rate=0.1, batch_size=30, epochs=2), seed=1)
    assert rows[0] != rows[1]
    assert rows[0] != list(range(30))
    assert rows[0] != batches_of(30, Training(learning_rate=0.1, batch_size=30), seed=2)[0]


# ---- randomness and side effects


def small_cnn() -> nn.Module:
    return build_model("siren_cnn", (1, 8, 8), 10, seed=3, channels=2, kernel_size=3, hidden=8)


def fingerprint() -> str:
    """Train a network with dropout on noise; a digest of its weights."""
    x = torch.randn(40, 1, 8, 8, generator=rng(1))
    y = torch.randint(10, (40,), generator=rng(2))
    model = small_cnn()
    train(model, x, y, Training(learning_rate=0.1, momentum=0.5, epochs=2), round=1, generator=rng(9))
    return hashlib.sha256(b"".join(array.tobytes() for array in get_weights(model))).hexdigest()


def test_leaves_the_global_random_state_alone_and_does_not_depend_on_it() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fingerprint()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert fingerprint() == first


def test_dropout_follows_the_generator() -> None:
    x, y = torch.randn(1, 1, 8, 8, generator=rng(1)), torch.tensor([4])  # one example: the order cannot differ
    losses = set()
    for seed in (1, 1, 2):
        result = train(small_cnn(), x, y, Training(learning_rate=0.1), round=1, generator=rng(seed))
        losses.add(result.loss)
    assert len(losses) == 2


def test_another_process_gets_the_same_bits_and_loads_no_compiler() -> None:
    script = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1])); torch.rand(3)\n"
        "sys.path.insert(0, sys.argv[2]); import test_training; print(test_training.fingerprint())\n"
        "print('torch._dynamo' in sys.modules, 'flwr' in sys.modules, 'ray' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(torch.get_num_threads()), str(Path(__file__).parents[2])]
    folder = Path(__file__).parent
    lines = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[0] == fingerprint()
    assert lines[1] == "False False False"


@pytest.mark.parametrize("training_mode", [True, False])
def test_modes_data_and_gradients_are_left_as_they_were(training_mode: bool) -> None:
    x, y = torch.randn(9, 1, 8, 8, generator=rng(1)), torch.arange(9)
    copies = x.clone(), y.clone()
    model = small_cnn().train(training_mode)
    model.layers[4].train(not training_mode)
    modes = [module.training for module in model.modules()]
    with torch.no_grad():  # a caller's own
        train(model, x, y, Training(learning_rate=0.1), round=1, generator=rng())
    evaluate(model, x, y)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hostile_numbers_do_not_raise() -> None:
    x, y = task(8)
    x[3] = torch.nan
    x[4] = torch.inf
    model = network()
    result = train(model, x, y, Training(learning_rate=1e30), round=1, generator=rng())
    assert math.isnan(result.loss)
    assert math.isnan(evaluate(model, x, y).loss)


@pytest.mark.parametrize("function", ["train", "evaluate"])
def test_no_data_is_a_clear_error(function: str) -> None:
    def call(x: Tensor, y: Tensor) -> None:
        if function == "train":
            train(network(), x, y, Training(learning_rate=0.1), round=1, generator=rng())
        else:
            evaluate(network(), x, y)

    with pytest.raises(ConfigError, match="data set is empty"):
        call(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ConfigError, match="same number of examples; got 3 and 2"):
        call(torch.zeros(3, 6), torch.zeros(2, dtype=torch.int64))


# ---- learning


@pytest.mark.parametrize(
    ("name", "params", "settings"),
    [
        ("softmax", {}, {"learning_rate": 0.5}),
        ("mlp", {}, {"learning_rate": 0.1}),
        ("siren_cnn", {"kernel_size": 3, "channels": 8}, {"learning_rate": 0.1}),
        ("fedinv_cnn", {}, {"learning_rate": 0.005, "optimizer": "adam", "epochs": 5}),
        ("fedinv_fcn", {}, {"learning_rate": 0.005, "optimizer": "adam", "epochs": 5}),
    ],
)
def test_every_model_learns_digits(name: str, params, settings) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    model = build_model(name, (1, 8, 8), 10, seed=0, **params)
    before = evaluate(model, x[1200:], y[1200:])
    losses = []
    for round in (1, 2, 3):
        result = train(model, x[:1200], y[:1200], Training(**settings), round=round, generator=rng(round))
        losses.append(result.loss)
    after = evaluate(model, x[1200:], y[1200:])
    assert losses[0] > losses[1] > losses[2]
    assert after.loss < before.loss / 2
    assert before.accuracy < 0.3
    assert after.accuracy > 0.8


# ---- evaluate


@pytest.mark.parametrize("batch_size", [1, 4, 11, 1024])
def test_evaluate_equals_one_example_at_a_time(batch_size: int) -> None:
    x, y = task(11)
    model = network()
    loss, accuracy, predictions, _ = evaluate(model, x, y, batch_size)
    losses, right, labels = [], 0, []
    for row, label in zip(x, y, strict=True):
        logits = model(row[None])[0].tolist()
        losses.append(math.log(sum(math.exp(value) for value in logits)) - logits[label])
        labels.append(logits.index(max(logits)))
        right += labels[-1] == label
    assert loss == pytest.approx(sum(losses) / 11, rel=1e-12)
    assert accuracy == pytest.approx(right / 11)
    assert predictions.tolist() == labels
    assert predictions.dtype == torch.int64


def test_evaluate_uses_no_dropout_and_no_batch_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.9), nn.Linear(6, 3)).double()
    x, y = task(11)
    weights = get_weights(model)
    first = evaluate(model, x, y, batch_size=11)
    assert first.loss == pytest.approx(evaluate(model, x, y, batch_size=2).loss, rel=1e-12)
    assert all(np.array_equal(a, b) for a, b in zip(weights, get_weights(model), strict=True))
    with pytest.raises(ConfigError, match="batch_size must be at least 1; got 0"):
        evaluate(model, x, y, batch_size=0)


def test_logits_are_the_models_in_eval_mode_whatever_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.9), nn.Linear(6, 3)).double()
    x, y = task(11)
    found = logits_of(model, x, batch_size=4)
    assert found.argmax(dim=1).tolist() == evaluate(model, x, y).predictions.tolist()
    assert model.training
    weight, bias = model[2].weight.detach(), model[2].bias.detach()
    torch.testing.assert_close(found, x / (1 + 1e-5) ** 0.5 @ weight.T + bias)  # BatchNorm has seen nothing yet


# ---- schedules


def rates(num_rounds: int, **settings: object) -> list[float]:
    training = Training(learning_rate=0.5, **settings)
    return [training.learning_rate_at(r, num_rounds) for r in range(1, num_rounds + 1)]


def test_constant_and_inverse_square_root() -> None:
    assert rates(4) == [0.5] * 4
    assert rates(9, schedule="inverse_sqrt") == pytest.approx([0.5 / r**0.5 for r in range(1, 10)])
    diversefl = Training(learning_rate=0.001, schedule="inverse_sqrt")
    assert diversefl.learning_rate_at(100) == pytest.approx(0.0001)


def test_step_decay_starts_in_the_milestones_round() -> None:
    got = rates(7, schedule="step", milestones=[3, 6], decay=0.4)
    assert got == pytest.approx([0.5, 0.5, 0.2, 0.2, 0.2, 0.08, 0.08])


def test_warmup_of_diversefl() -> None:
    cifar10 = Training(
        learning_rate=0.1,
        schedule="step",
        milestones=[2000],
        decay=0.4,
        warmup_rounds=1000,
        warmup_learning_rate=0.05,
    )
    for round, expected in [(1, 0.05), (501, 0.075), (1001, 0.1), (1999, 0.1), (2000, 0.04), (2400, 0.04)]:
        assert cifar10.learning_rate_at(round) == pytest.approx(expected)
    steps = np.diff([cifar10.learning_rate_at(r) for r in range(1, 1002)])
    np.testing.assert_allclose(steps, 0.05 / 1000, rtol=1e-9)


@pytest.mark.parametrize(
    ("num_rounds", "peak_at", "peak"), [(2400, 0.2, 480), (10, 0.2, 2), (24, 5 / 24, 5), (7, 0.9, 6)]
)
def test_triangular_rises_and_falls_on_two_lines(num_rounds: int, peak_at: float, peak: int) -> None:
    got = np.array([0.0, *rates(num_rounds, schedule="triangular", peak_at=peak_at), 0.0])
    assert got.argmax() == peak
    assert got[peak] == 0.5
    np.testing.assert_allclose(np.diff(got[: peak + 1]), 0.5 / peak, rtol=1e-9)
    np.testing.assert_allclose(np.diff(got[peak:]), -0.5 / (num_rounds + 1 - peak), rtol=1e-9)


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_triangular_wastes_no_round(num_rounds: int, peak_at: float) -> None:
    got = rates(num_rounds, schedule="triangular", peak_at=peak_at)
    assert 0 < min(got) <= max(got) == 0.5


def test_train_uses_the_rate_of_its_round() -> None:
    x, y = task(6)
    deltas = []
    for round in (1, 4):
        model = network()
        start = get_weights(model)
        settings = Training(learning_rate=0.1, schedule="inverse_sqrt", batch_size=1.0)
        train(model, x, y, settings, round=round, generator=rng())
        deltas.append(np.concatenate([(a - b).ravel() for a, b in zip(get_weights(model), start, strict=True)]))
    np.testing.assert_allclose(deltas[0], 2 * deltas[1], rtol=1e-9, atol=1e-15)
    settings = Training(learning_rate=0.1, schedule="triangular")
    assert train(network(), x, y, settings, round=1, num_rounds=9, generator=rng()).steps == 1
    with pytest.raises(ConfigError, match="needs num_rounds"):
        train(network(), x, y, settings, round=1, generator=rng())


@pytest.mark.parametrize(("round", "num_rounds"), [(0, 5), (-1, None), (6, 5), (1, None)])
def test_a_round_outside_the_run_is_refused(round: int, num_rounds: int | None) -> None:
    with pytest.raises(ConfigError, match=f"got round {round}"):
        Training(learning_rate=0.1, schedule="triangular").learning_rate_at(round, num_rounds)


# ---- settings


def test_defaults_are_one_epoch_and_survive_a_round_trip() -> None:
    training = Training(learning_rate=0.1)
    assert (training.epochs, training.steps) == (1, None)
    assert Training(learning_rate=0.1, steps=3).epochs is None
    stepped = Training(learning_rate=0.1, schedule="step", milestones=[2, 5])
    assert stepped.milestones == (2, 5)
    assert Training(**dataclasses.asdict(stepped)) == stepped
    assert hash(stepped) == hash(dataclasses.replace(stepped))
    with pytest.raises(dataclasses.FrozenInstanceError):
        training.epochs = 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "sgdd"}, "optimizer must be 'sgd' or 'adam'; got 'sgdd'"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0; got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate must be finite"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a valid number; got '1e-3'"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": math.inf}, "weight_decay must be finite"),
        ({"momentum": 1.0}, "momentum must be less than 1"),
        ({"momentum": 0.9, "optimizer": "adam"}, "momentum is a setting of sgd"),
        ({"epochs": 0}, "epochs must be greater than or equal to 1; got 0"),
        ({"epochs": 1.5}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"epochs": 2, "steps": 3}, "epochs or steps, not both"),
        ({"batch_size": 0}, "batch_size .* got 0. Allowed: int, at least 1 or float, more than 0, at most 1"),
        ({"batch_size": -3}, "batch_size"),
        ({"batch_size": 0.0}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"batch_size": math.nan}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"schedule": "cosine"}, "schedule"),
        ({"schedule": "step"}, "go together; got schedule 'step', milestones \\[\\]"),
        ({"milestones": [3]}, "go together; got schedule 'constant', milestones \\[3\\]"),
        ({"schedule": "step", "milestones": [5, 3]}, "must increase"),
        ({"schedule": "step", "milestones": [3, 3]}, "must increase"),
        ({"schedule": "step", "milestones": [0]}, "milestones"),
        ({"decay": 1.0}, "decay"),
        ({"peak_at": 0.0}, "peak_at"),
        ({"warmup_rounds": 3}, "go together; got 3 and None"),
        ({"warmup_learning_rate": 0.1}, "go together; got 0 and 0.1"),
        (
            {"warmup_rounds": 3, "warmup_learning_rate": 0.1, "schedule": "triangular"},
            "with the schedules 'constant' and 'step'; got 'triangular'",
        ),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=f"training: .*{words}"):
        Training(**{"learning_rate": 0.1, **settings})


# ---- weights


def with_buffers() -> nn.Module:
    """Parameters, float buffers and a 0-d integer counter."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(5, 3, generator=rng()))  # moves the running mean and counts one batch
    return model


def test_weights_come_in_the_state_dicts_order_with_their_dtypes() -> None:
    model = with_buffers()
    names = weight_names(model)
    assert names == list(model.state_dict())
    arrays = dict(zip(names, get_weights(model), strict=True))
    counter = arrays["1.num_batches_tracked"]
    assert isinstance(counter, np.ndarray)
    assert (counter.dtype, counter.shape, int(counter)) == (np.int64, (), 1)
    for name, tensor in model.state_dict().items():
        assert np.array_equal(arrays[name], tensor.numpy())
        assert str(arrays[name].dtype) in str(tensor.dtype)


def test_weights_survive_a_round_trip_bit_for_bit() -> None:
    model, other = with_buffers(), nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    set_weights(other, get_weights(model))
    for ours, theirs in zip(get_weights(model), get_weights(other), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


def test_arrays_and_model_share_no_memory() -> None:
    model = with_buffers()
    arrays = get_weights(model)
    kept = [array.copy() for array in arrays]
    x = torch.randn(8, 3, generator=rng())
    train(model, x, torch.arange(8) % 4, Training(learning_rate=0.5), round=1, generator=rng())
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
    assert int(dict(zip(weight_names(model), get_weights(model), strict=True))["1.num_batches_tracked"]) == 2
    set_weights(model, arrays)
    for array in arrays:
        array[...] = 77
    assert all(np.array_equal(a, b) for a, b in zip(get_weights(model), kept, strict=True))


def test_set_weights_takes_what_the_wire_and_averages_produce() -> None:
    model = with_buffers()
    arrays = get_weights(model)
    expected = [array.copy() for array in arrays]
    arrays[0] = np.frombuffer(arrays[0].tobytes(), dtype=np.float32).reshape(4, 3)  # read-only
    arrays[1] = arrays[1].astype(np.float64)
    arrays[2] = np.ascontiguousarray(arrays[2][::-1])[::-1]  # negative stride
    arrays[-1], expected[-1] = np.float64(6.5), np.array(6)  # a mean of counters is a scalar with a fraction
    parameters = list(model.parameters())
    set_weights(model, arrays)
    for got, wanted in zip(get_weights(model), expected, strict=True):
        assert np.array_equal(got, wanted)
    assert [p.dtype for p in model.parameters()] == [torch.float32] * 4
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda arrays: arrays[:-1], "7 parameters and buffers; got 6 arrays"),
        (lambda arrays: [*arrays, np.zeros(1)], "got 8 arrays"),
        (lambda arrays: [*arrays[:-1], np.zeros(1)], r"1.num_batches_tracked has the shape \(\); got \(1,\)"),
        (lambda arrays: [arrays[0] + 1, np.zeros((4, 1)), *arrays[2:]], r"0.bias has the shape \(4,\); got \(4, 1\)"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(spoil, words: str) -> None:
    model = with_buffers()
    before = get_weights(model)
    with pytest.raises(ConfigError, match=words):
        set_weights(model, spoil(get_weights(model)))
    assert all(np.array_equal(a, b) for a, b in zip(get_weights(model), before, strict=True))


# ---- devices


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch sees no GPU here"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="one of 'auto', 'cpu', 'cuda'; got 'gpu'"):
        pick_device("gpu")


# --- a model that gives its logits only where they are asked for


class Picky(nn.Module):
    """Logits (n, L, 5) of tokens; notes which places it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 5)
        self.asked: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x)  # type: ignore[no-any-return]

    def logits_at(self, x: Tensor, places: Tensor) -> Tensor:
        self.asked.append(places.tolist())
        return self(x)[:, places]  # type: ignore[no-any-return]


def test_only_counted_places_are_asked_for_and_nothing_else_changes() -> None:
    x, y = torch.randint(5, (6, 4), generator=rng(3)), torch.full((6, 4), -100)
    y[:, 1], y[2, 3] = 2, 4
    y[5] = -100
    picky, task = Picky(), CausalLM()
    plain = nn.Sequential(nn.Embedding(5, 5))
    plain[0].load_state_dict(picky.embedding.state_dict())
    for batch_size in (1, 4, 6):
        ours, theirs = evaluate(picky, x, y, batch_size, task=task), evaluate(plain, x, y, batch_size, task=task)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
        assert ours.measures == pytest.approx(theirs.measures, rel=1e-6)
        counted = y != -100
        assert torch.equal(ours.predictions[counted], theirs.predictions[counted])
    assert picky.asked[-1] == [1, 3]
    assert ours.predictions[:, [0, 2]].eq(-100).all()
    for model in (picky, plain):
        settings = Training(learning_rate=0.5, steps=3, batch_size=3)
        train(model, x, y, settings, round=1, generator=rng(1), task=task)
    torch.testing.assert_close(picky.embedding.weight, plain[0].weight)


def test_a_lone_example_for_batch_norm_is_explained() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    settings = Training(learning_rate=0.1, batch_size=2)
    train(model, torch.rand(4, 2, generator=rng()), torch.zeros(4).long(), settings, round=1, generator=rng())
    with pytest.raises(ConfigError, match="batch_size that leaves no batch of one example"):
        train(model, torch.rand(3, 2, generator=rng()), torch.zeros(3).long(), settings, round=1, generator=rng())
