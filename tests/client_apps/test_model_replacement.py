import numpy as np
import pytest
import torch

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import BadNets, LabelFlipping, ModelReplacement, TorchClient, numpy_client_app
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, get_weights
from tests.client_apps.toys import Toy, arrays, same, train

SHAPE, CLASSES = (1, 4, 4), 3
CONFIG = {"server-round": 3}


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[8])


def client(client_id=2):
    x = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(client_id)).numpy()
    data = ArrayDataset(x, np.arange(24) % CLASSES)
    return TorchClient(network(), data, Training(learning_rate=0.3, epochs=5), client_id=client_id, seed=5)


def update(attack, config=CONFIG):
    start = get_weights(network())
    sent = attack(client()).fit([array.copy() for array in start], config)[0]
    return np.concatenate([(a.astype(float) - b).ravel() for a, b in zip(sent, start, strict=True)])


def honest_update():
    return update(lambda c: c)


def test_the_boost_is_told_or_n_over_eta():
    honest = honest_update()
    for settings, boost in (
        ({"scale": 4.0}, 4),
        ({"clients_per_round": 20}, 20),
        ({"clients_per_round": 20, "server_learning_rate": 0.1}, 200),
        ({"scale": 4.0, "clients_per_round": 20, "server_learning_rate": 0.5}, 4),
    ):
        np.testing.assert_allclose(update(ModelReplacement(**settings)), boost * honest, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="ModelReplacement needs scale, or clients_per_round to compute it from"):
        ModelReplacement()


def test_it_replaces_the_mean_of_a_server_with_any_learning_rate():
    """One attacker, the others at rest: the new global model is the attacker's."""
    start, honest = get_weights(network()), honest_update()
    for eta in (1.0, 0.25):
        sent = update(ModelReplacement(clients_per_round=10, server_learning_rate=eta))
        np.testing.assert_allclose(eta * sent / 10, honest, rtol=1e-3, atol=1e-5)
    assert start[0].dtype == np.float32


def test_constrain_and_scale_stays_closer_before_the_boost():
    norms = [np.linalg.norm(update(ModelReplacement(scale=1.0, alpha=alpha))) for alpha in (1.0, 0.8, 0.4)]
    assert norms[0] > 1.2 * norms[1] > 1.2 * norms[2]
    np.testing.assert_array_equal(update(ModelReplacement(scale=1.0, alpha=0.0)), 0)
    attack = ModelReplacement(scale=7.0, alpha=0.6)
    np.testing.assert_allclose(update(attack), 7 * update(ModelReplacement(scale=1.0, alpha=0.6)), rtol=1e-3, atol=1e-4)


def test_constrain_and_scale_by_hand():
    """One full-batch step from the global model has no distance to it yet; the second one has."""
    start = [torch.from_numpy(a).double() for a in get_weights(network())]
    x, y = client().trainset.tensors()
    honest = client()
    honest.training = Training(learning_rate=0.3, steps=2, batch_size=1.0)
    sent = ModelReplacement(scale=1.0, alpha=0.7)(honest).fit(get_weights(network()), CONFIG)[0]
    model = network().double()
    for _ in range(2):
        parameters = list(model.parameters())
        g = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x.double()), y), parameters)
        norm = torch.cat([(p - s).flatten() for p, s in zip(parameters, start, strict=True)]).norm()
        with torch.no_grad():
            for p, s, grad in zip(parameters, start, g, strict=True):
                away = (p - s) / norm if norm > 0 else torch.zeros_like(p)
                p -= 0.3 * (0.7 * grad + 0.3 * away)
    for ours, theirs in zip(sent, model.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_alpha_acts_on_the_poisoned_data_of_an_attack_inside():
    """The loss is that of the backdoor: with other poison another update, with the same the same."""
    around = ModelReplacement(scale=2.0, alpha=0.8)
    first = update(lambda c: around(LabelFlipping(source=0, target=1)(c)))
    again = update(lambda c: around(LabelFlipping(source=0, target=1)(c)))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, update(lambda c: around(BadNets(target=1, fraction=0.5)(c))))
    assert not np.allclose(first, update(around))


def test_the_bound_holds_after_the_boost():
    honest = honest_update()
    bound = 2 * np.linalg.norm(honest)
    sent = update(ModelReplacement(scale=10.0, max_norm=bound))
    np.testing.assert_allclose(sent, 2 * honest, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(update(ModelReplacement(scale=1.5, max_norm=bound)), 1.5 * honest, rtol=1e-3, atol=1e-5)


def test_rounds_that_are_not_attacked_are_trained_honestly():
    last = Adversaries(num_clients=5, ids=[2], last_round_only=True, num_rounds=4)
    for settings in ({}, {"alpha": 0.5}, {"max_norm": 0.1}):
        attack = ModelReplacement(scale=10.0, adversaries=last, **settings)
        np.testing.assert_array_equal(update(attack, {"server-round": 3}), update(lambda c: c, {"server-round": 3}))
        assert not np.allclose(update(attack, {"server-round": 4}), update(lambda c: c, {"server-round": 4}))


def test_clients_without_step_hooks_are_told_and_hooks_are_put_back():
    with pytest.raises(ConfigError, match="ModelReplacement acts on each step of local training"):
        ModelReplacement(scale=2.0, alpha=0.5)(Toy()).fit(arrays(), CONFIG)
    worker = client()
    ModelReplacement(scale=2.0, alpha=0.5)(worker).fit(get_weights(network()), CONFIG)
    assert worker.step_hooks == ()


def test_as_a_mod():
    def client_fn(_):
        return client()

    start = get_weights(network())
    for settings in ({}, {"alpha": 0.6}, {"alpha": 0.6, "max_norm": 0.2}):
        attack = ModelReplacement(scale=3.0, **settings)
        sent, _ = train(numpy_client_app(client_fn, mods=[attack.mod]), start, api="message", round=3)
        assert same(sent, attack(client()).fit(start, CONFIG)[0])
    app = numpy_client_app(
        client_fn, mods=[ModelReplacement(scale=3.0, alpha=0.6).mod, LabelFlipping(source=0, target=1).mod]
    )
    sent, _ = train(app, start, api="message", round=3)
    stacked = ModelReplacement(scale=3.0, alpha=0.6)(LabelFlipping(source=0, target=1)(client()))
    assert same(sent, stacked.fit(start, CONFIG)[0])
