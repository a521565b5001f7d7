import numpy as np
import pytest
import torch

from flsec.attacks import CohortView, clip_to_range
from flsec.attacks.adversaries import Adversaries
from flsec.attacks.cohort_view import ADVERSARY
from flsec.client_apps import BadNets, MinimizingDistanceBackdoor, TorchClient
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, get_weights, set_weights
from tests.client_apps.toys import same

SHAPE, CLASSES = (1, 6, 6), 3
TRAINING = Training(learning_rate=0.3, epochs=10, batch_size=8)
CONFIG = {"server-round": 3, ADVERSARY: "MinimizingDistanceBackdoor"}


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[8])


def make(**settings):
    return MinimizingDistanceBackdoor(
        **{"model_factory": network, "training": TRAINING, "target": 1, "seed": 5, **settings}
    )


def client(client_id=2):
    random = torch.Generator().manual_seed(client_id)
    y = torch.arange(30) % CLASSES
    x = 0.2 * torch.rand(30, *SHAPE, generator=random)
    x[torch.arange(30), 0, y] += 0.6  # a bright row tells the class
    return TorchClient(network(), ArrayDataset(x.numpy(), y.numpy()), TRAINING, client_id=client_id, seed=5)


def flat(parameters):
    return np.concatenate([array.astype(float).ravel() for array in parameters])


def upload(attack, client_id=2, config=CONFIG):
    return attack(client(client_id)).fit(get_weights(network()), config)[0]


def distance(a, b):
    return float(np.linalg.norm(flat(a) - flat(b)))


def success(parameters, attack):
    model = network()
    set_weights(model, parameters)

    def predict(inputs):
        with torch.no_grad():
            return model(inputs).argmax(dim=1)

    x, y = client(9).trainset.tensors()
    accuracy = float((predict(x) == y).double().mean())
    return attack.success(predict, x, y, predict(x))["attack_success"], accuracy


def test_the_smaller_alpha_the_closer_to_the_own_honest_model():
    honest = upload(lambda c: c)
    reached = [distance(upload(make(alpha=alpha)), honest) for alpha in (1.0, 0.95, 0.8, 0.0)]
    assert reached == sorted(reached, reverse=True)
    assert reached[0] > 1.5 * reached[2] > 0
    assert reached[3] == 0
    towards_global = upload(make(alpha=0.5, anchor="global"))
    assert distance(towards_global, get_weights(network())) < 0.5 * distance(honest, get_weights(network()))


def test_the_backdoor_works_and_the_task_too():
    attack = make(alpha=0.9)
    rate, accuracy = success(upload(attack), attack)
    honest_rate, honest_accuracy = success(upload(lambda c: c), attack)
    assert rate > 0.9
    assert honest_rate < 0.2
    assert accuracy > honest_accuracy - 0.1


def test_the_client_reports_what_it_would_honestly():
    worker = client()
    _, num_examples, metrics = make()(worker).fit(get_weights(network()), CONFIG)
    _, honest_examples, honest_metrics = client().fit(get_weights(network()), CONFIG)
    assert (num_examples, metrics) == (honest_examples, honest_metrics)
    assert torch.equal(worker.trainset.tensors()[1], client().trainset.tensors()[1])


def test_training_starts_at_the_honest_model_on_triggered_data():
    """By hand, with one full-batch step."""
    training = Training(learning_rate=0.3, steps=1, batch_size=1.0)
    attack = make(training=training, alpha=0.4, fraction=1.0)
    worker = client()
    sent = attack(worker).fit(get_weights(network()), CONFIG)[0]
    model, anchor = network(), client().fit(get_weights(network()), CONFIG)[0]
    set_weights(model, anchor)
    x, y = client().trainset.tensors()
    loss = torch.nn.functional.cross_entropy(model(attack.trigger.apply(x)), torch.full_like(y, 1))
    gradients = torch.autograd.grad(loss, list(model.parameters()))  # at the anchor itself the distance has none
    for ours, start, g in zip(sent, anchor, gradients, strict=True):
        np.testing.assert_allclose(ours, start - 0.3 * 0.4 * g.numpy(), rtol=1e-5, atol=1e-7)


def test_honest_rounds_and_seeds():
    who = Adversaries(num_clients=5, ids=[2], first_round=3)
    attack = make(adversaries=who)
    for client_id, round_ in ((2, 2), (1, 3)):
        config = {**CONFIG, "server-round": round_}
        assert same(upload(attack, client_id, config), upload(lambda c: c, client_id, config))
    assert same(upload(attack), upload(make()))
    assert not same(upload(attack), upload(make(seed=6)))


# --- the second half, on the server -----------------------------------------------------------------------------


def view(others=True, attackers=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    return CohortView(
        own=5 * torch.randn(attackers, 20, generator=random),
        own_ids=tuple(range(attackers)),
        clients_per_round=attackers + 8,
        global_parameters=torch.zeros(20),
        round=1,
        others=torch.randn(8, 20, generator=random) if others else None,
    )


@pytest.mark.parametrize("z", [0.5, 1.5])
def test_uploads_are_clipped_into_the_range_of_the_honest(z):
    round_ = view()
    before = round_.own.clone()
    sent = make(z=z).poison_cohort(round_)
    torch.testing.assert_close(sent, clip_to_range(round_.own, round_.others, z=z))
    low = round_.others.mean(0) - z * round_.others.std(0)
    high = round_.others.mean(0) + z * round_.others.std(0)
    assert bool(((sent >= low - 1e-5) & (sent <= high + 1e-5)).all())
    assert 0 < round_.notes["clipped_share"] <= 1
    assert torch.equal(round_.own, before)


def test_what_is_not_known_is_not_used():
    assert torch.equal(make(knowledge="own").poison_cohort(view()), view().own)
    alone = view(others=False, attackers=1)
    assert torch.equal(make(knowledge="colluders").poison_cohort(alone), alone.own)
    together = view(others=False)
    torch.testing.assert_close(
        make(knowledge="colluders", z=0.5).poison_cohort(together), clip_to_range(together.own, together.own, z=0.5)
    )


def test_takes_the_triggers_of_badnets():
    attack = make(target=2, shape="square", size=2, fraction=0.3)
    plain = BadNets(target=2, shape="square", size=2, fraction=0.3)
    assert attack.trigger == plain.trigger
    assert isinstance(attack, BadNets)
    for name, value in {
        "alpha": 1.5,
        "z": -1.0,
        "anchor": "mean",
        "knowledge": "some",
        "size": 0,
        "target": -1,
    }.items():
        with pytest.raises(ConfigError, match=name):
            make(**{name: value})
