"""A client around any torch model; and FedProx's proximal term."""

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp
from torch import nn

from flsec.client_apps import BadNets, LabelFlipping, SignFlipping, TorchClient, numpy_client_app
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.randomness import generator
from flsec.training import Training, evaluate, get_weights, set_weights, train, weight_names
from tests.client_apps import toys
from tests.support.tasks import WithLoss

SETTINGS = Training(learning_rate=0.1, momentum=0.5, epochs=2, batch_size=5)


def dataset(n: int = 23, seed: int = 0) -> ArrayDataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1, 6, 6)).astype(np.float32)
    return ArrayDataset(x, (x[:, 0, 0, 0] > 0).astype(int) + (x[:, 0, 5, 5] > 0))


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def weights(seed: int = 0) -> list[np.ndarray]:
    torch.manual_seed(seed)
    return get_weights(model())


def client(**changes) -> TorchClient:
    options = {"model": model(), "trainset": dataset(), "training": SETTINGS, "client_id": 4, "seed": 11} | changes
    return TorchClient(options.pop("model"), options.pop("trainset"), options.pop("training"), **options)


def directly(x, y, *, round=3, client_id=4, seed=11, **options):
    net = model()
    set_weights(net, weights())
    rng = generator(seed, round, client_id, "batches")
    result = train(net, x, y, SETTINGS, round=round, generator=rng, **options)
    return get_weights(net), result


def test_fit_is_training_and_nothing_else():
    x, y = dataset().tensors()
    expected, result = directly(x, y)
    sent = weights()
    uploaded, num_examples, metrics = client().fit(sent, {"server-round": 3})
    assert toys.same(uploaded, expected)
    assert (num_examples, metrics) == (23, {"train-loss": result.loss})
    assert type(metrics["train-loss"]) is float
    assert toys.same(sent, weights())
    assert not toys.same(uploaded, sent)
    assert [a.dtype for a in uploaded] == [a.dtype for a in sent]


def test_fit_depends_on_seed_round_and_client_alone():
    one = client()
    first = one.fit(weights(), {"server-round": 3})[0]
    torch.manual_seed(99)
    one.fit(weights(1), {"server_round": 7})  # whatever it did before
    assert toys.same(one.fit(weights(), {"server_round": 3})[0], first)
    assert toys.same(client().fit(weights(), {"server-round": 3})[0], first)
    for other, round in ((client(seed=12), 3), (client(client_id=5), 3), (client(), 4)):
        assert not toys.same(other.fit(weights(), {"server-round": round})[0], first)


def test_evaluate_uses_the_test_set_or_else_the_training_set():
    test = dataset(9, seed=5)
    for one, data in ((client(testset=test), test), (client(), dataset())):
        net = model()
        set_weights(net, weights())
        expected = evaluate(net, *data.tensors())
        loss, num_examples, metrics = one.evaluate(weights(), {})
        assert (loss, num_examples, metrics) == (expected.loss, len(data), {"accuracy": expected.accuracy})
        assert type(loss) is float


def test_parameters_come_in_the_order_of_the_state_dict():
    net = model()
    [*uploaded] = client(model=net).get_parameters({})
    assert toys.same(uploaded, [t.numpy() for t in net.state_dict().values()])
    uploaded[0][:] = 7
    assert not (net[1].weight == 7).any()


def test_float64_from_a_server_optimizer_is_cast_to_the_models_type():
    wide = [w.astype(np.float64) if w.dtype.kind == "f" else w for w in weights()]
    assert toys.same(
        client().fit(wide, {"server-round": 3})[0],
        client().fit(weights(), {"server-round": 3})[0],
    )


def test_the_length_of_the_run_reaches_the_schedule():
    rising = Training(learning_rate=0.1, schedule="triangular")
    with pytest.raises(ConfigError, match="num_rounds"):
        client(training=rising).fit(weights(), {"server-round": 1})
    client(training=rising, num_rounds=10).fit(weights(), {"server-round": 1})


def test_a_missing_round_is_named():
    with pytest.raises(ConfigError, match=r"TorchClient: .* no 'server-round'.* on_fit_config_fn"):
        client().fit(weights(), {})


def test_parameters_of_another_model_are_named():
    with pytest.raises(ConfigError, match=r"1\.weight has the shape"):
        client().fit([w.T for w in weights()], {"server-round": 1})


# ---- attacked


def test_label_flipping_is_training_on_flipped_labels():
    x, y = dataset().tensors()
    expected, _ = directly(x, torch.where(y == 2, 0, y))
    attack = LabelFlipping(source=2, target=0)
    for one in (attack(client()), attack(TorchClient)(model(), dataset(), SETTINGS, client_id=4, seed=11)):
        assert toys.same(one.fit(weights(), {"server-round": 3})[0], expected)


def test_every_api_and_form_uploads_the_same_with_batch_norms_buffers_untouched():
    attack = SignFlipping(scale=3.0)
    stamp = BadNets(target=1, fraction=0.3)

    def client_fn(context):
        return client()

    apps = [
        ("message", numpy_client_app(client_fn, mods=[attack.mod, stamp.mod])),
        ("classic", ClientApp(attack(stamp(lambda context: client().to_client())))),
        ("classic", ClientApp(lambda context: stamp(client()).to_client(), mods=[attack.mod])),
    ]
    uploads = [
        attack(stamp(client())).fit(weights(), {"server-round": 3})[0],
        *(toys.train(app, weights(), api=api, client_id=4)[0] for api, app in apps),
    ]
    honest = stamp(client()).fit(weights(), {"server-round": 3})[0]
    for uploaded in uploads:
        assert toys.same(uploaded, uploads[0])
    for name, attacked, trained, sent in zip(weight_names(model()), uploads[0], honest, weights(), strict=True):
        if "running" in name:
            assert toys.same([attacked], [trained])  # statistics are no weights
        elif trained.dtype.kind == "f":
            np.testing.assert_allclose(attacked - sent, -3 * (trained - sent), atol=1e-5)
        else:
            assert attacked.shape == ()
            assert attacked == trained == sent + 10  # batches seen


# ---- FedProx


@pytest.mark.parametrize("key", ["proximal-mu", "proximal_mu"])
def test_fedprox_reaches_the_training(key):
    x, y = dataset().tensors()
    expected, _ = directly(x, y, proximal_mu=0.7)
    assert toys.same(client().fit(weights(), {"server-round": 3, key: 0.7})[0], expected)
    assert not toys.same(expected, directly(x, y)[0])


@pytest.mark.parametrize("mu", [0.0, 0.05, 1.5])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.02)])
def test_the_proximal_term_equals_a_loop_written_out(mu, momentum, weight_decay):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 6)), rng.integers(3, size=20)
    start = rng.normal(size=(3, 7))
    net = build_model("softmax", (6,), 3, seed=0).double()
    set_weights(net, [start[:, :6], start[:, 6]])
    settings = Training(learning_rate=0.3, momentum=momentum, weight_decay=weight_decay, steps=9, batch_size=1.0)
    options = {"round": 1, "generator": torch.Generator().manual_seed(0), "proximal_mu": mu}
    result = train(net, torch.from_numpy(x), torch.from_numpy(y), settings, **options)

    inputs, targets = np.hstack([x, np.ones((20, 1))]), np.eye(3)[y]  # the bias as one more feature
    w, velocity, losses = start.copy(), np.zeros((3, 7)), []
    for _ in range(9):
        scores = np.exp(inputs @ w.T)
        shares = scores / scores.sum(axis=1, keepdims=True)
        losses.append(-np.log((shares * targets).sum(axis=1)).mean())
        gradient = (shares - targets).T @ inputs / 20 + mu * (w - start) + weight_decay * w
        velocity = momentum * velocity + gradient
        w = w - 0.3 * velocity
    trained = np.hstack([net.output.weight.detach().numpy(), net.output.bias.detach().numpy()[:, None]])
    np.testing.assert_allclose(trained, w, rtol=1e-12, atol=1e-13)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-12)


def test_the_proximal_term_is_the_gradient_of_the_objective_of_fedprox():
    """Minibatches and Adam, against autograd on F(w) + mu / 2 |w - w_start|^2."""
    x, y = torch.randn(17, 6, dtype=torch.float64), torch.randint(3, (17,))
    settings = Training(optimizer="adam", learning_rate=0.02, epochs=3, batch_size=4)
    ours, theirs = (build_model("mlp", (6,), 3, 0, hidden=[5]).double() for _ in range(2))
    start = [p.detach().clone() for p in theirs.parameters()]

    def objective(logits, labels):
        distance = sum(((p - s) ** 2).sum() for p, s in zip(theirs.parameters(), start, strict=True))
        return nn.functional.cross_entropy(logits, labels) + 0.4 * distance

    train(ours, x, y, settings, round=1, generator=torch.Generator().manual_seed(3), proximal_mu=0.8)
    train(
        theirs, x, y, settings, round=1, generator=torch.Generator().manual_seed(3), task=WithLoss(function=objective)
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_larger_mu_stays_closer_to_the_start_and_none_changes_nothing():
    x, y = dataset().tensors()
    plain, _ = directly(x, y)
    assert toys.same(directly(x, y, proximal_mu=0.0)[0], plain)
    distances = []
    for mu in (0.0, 0.5, 2.0, 5.0):
        trained, _ = directly(x, y, proximal_mu=mu)
        distances.append(
            sum(float(((a - b) ** 2).sum()) for a, b in zip(trained, weights(), strict=True) if a.ndim == 2)
        )
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2 * distances[-1]


def test_frozen_and_unused_parameters_stay_with_a_proximal_term():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.frozen, self.unused = nn.Linear(36, 3), nn.Linear(36, 3), nn.Linear(36, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.used(x.flatten(1)) + self.frozen(x.flatten(1))

    net = Partly()
    before = [p.detach().clone() for p in (*net.frozen.parameters(), *net.unused.parameters())]
    train(net, *dataset().tensors(), SETTINGS, round=1, generator=torch.Generator(), proximal_mu=1.0)
    after = [*net.frozen.parameters(), *net.unused.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_an_impossible_mu_is_refused(mu):
    with pytest.raises(ConfigError, match=f"proximal_mu must be finite and at least 0; got {mu}"):
        client().fit(weights(), {"server-round": 1, "proximal-mu": mu})
