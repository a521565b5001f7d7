import numpy as np
import pytest
import torch
from torch import nn

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import AttackContext, BackGradient, ModelReplacement, TorchClient
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, evaluate, get_weights, set_weights
from tests.client_apps.toys import arrays, context, message, message_app, same

SHAPE, CLASSES = (1, 4, 4), 3
TRAINING = Training(learning_rate=0.5, steps=5, batch_size=1.0)
CONFIG = {"server-round": 3}


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[8])


def make(**settings):
    given = {"model_factory": network, "training": TRAINING, "iterations": 8, "seed": 5}
    return BackGradient(**{**given, **settings})


def examples(seed, n=40):
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    x = 0.5 * torch.rand(n, *SHAPE, generator=random)
    x[torch.arange(n), 0, y] += 0.5
    return x, y


class Client(TorchClient):
    """Remembers what it trained on."""

    def fit(self, parameters, config):
        self.seen = self.trainset.tensors()
        return super().fit(parameters, config)


def client(client_id=2, n=40):
    x, y = examples(client_id, n)
    return Client(network(), ArrayDataset(x.numpy(), y.numpy()), TRAINING, client_id=client_id, seed=5)


def attacked(attack, worker=None, config=CONFIG):
    worker = worker or client()
    sent = attack(worker).fit(get_weights(network()), config)[0]
    return sent, worker.seen


def loss_of(parameters):
    model = network()
    set_weights(model, parameters)
    return evaluate(model, *examples(99, 300)).loss


def test_it_trains_on_its_own_data_and_a_share_of_poison_within_their_range():
    worker = client()
    own = worker.trainset
    _, (x, y) = attacked(make(fraction=0.2), worker)
    clean_x, clean_y = own.tensors()
    assert torch.equal(x[:40], clean_x)
    assert torch.equal(y[:40], clean_y)
    assert len(y) == 50
    assert float(x.min()) >= float(clean_x.min())
    assert float(x.max()) <= float(clean_x.max())
    assert worker.trainset is own
    assert torch.equal(clean_x, client().trainset.tensors()[0])


def test_poison_is_moved_copies_of_its_own_under_wrong_labels():
    """With steps too small to see, the added samples are the client's own, and no label is the true one."""
    _, (x, y) = attacked(make(step_size=1e-9))
    for one, label in zip(x[40:], y[40:], strict=True):
        gaps = (x[:40] - one).abs().flatten(1).amax(dim=1)
        source = int(gaps.argmin())
        assert float(gaps[source]) < 1e-5
        assert label != y[source]
    _, (moved, labels) = attacked(make())
    assert torch.equal(labels, y)
    assert not torch.allclose(moved, x)


def test_optimised_samples_do_more_harm_than_wrong_labels():
    honest = loss_of(client().fit(get_weights(network()), CONFIG)[0])
    harm = {}
    for name, settings in {"labels": {"step_size": 1e-9}, "optimised": {"iterations": 15}}.items():
        losses = [loss_of(attacked(make(fraction=0.4, seed=seed, num_samples=40, **settings))[0]) for seed in range(3)]
        harm[name] = sum(losses) / 3 - honest
    assert harm["optimised"] > 1.3 * harm["labels"] > 0


def test_the_poison_is_made_for_the_model_that_the_server_sent():
    first = attacked(make())[1][0]
    worker = client()
    make()(worker).fit([3 * w for w in get_weights(network())], CONFIG)
    assert not torch.equal(worker.seen[0], first)
    assert torch.equal(attacked(make())[1][0], first)
    assert not torch.equal(attacked(make(seed=6))[1][0], first)


def test_honest_rounds_and_stacking():
    attack = make(adversaries=Adversaries(num_clients=5, ids=[2], first_round=3))
    early = {"server-round": 2}
    assert same(attacked(attack, config=early)[0], client().fit(get_weights(network()), early)[0])
    start = flat(get_weights(network()))
    update = flat(attacked(make())[0]) - start
    boosted = flat(attacked(lambda c: ModelReplacement(scale=4.0)(make()(c)))[0]) - start
    np.testing.assert_allclose(boosted, 4 * update, rtol=1e-3, atol=1e-5)


def flat(parameters):
    return np.concatenate([array.astype(float).ravel() for array in parameters])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_clients_with_few_samples(n):
    _, (x, y) = attacked(make(), client(n=n))
    assert len(y) == n + 1
    assert bool(x.isfinite().all())


def test_a_client_that_holds_one_class_only_labels_with_the_models_other_classes():
    worker = client()
    x, _ = examples(2)
    worker.trainset = ArrayDataset(x.numpy(), np.zeros(40, int))
    labels = attacked(make(fraction=0.5), worker)[1][1][40:]
    assert set(labels.tolist()) <= {1, 2}


def test_without_the_global_model_it_shows_what_the_search_starts_from():
    """As a check of settings does, before any training."""
    x, y = make().poisoned_dataset(client().trainset, AttackContext(1, 2)).tensors()
    assert len(y) == 50
    assert {int(label) for label in y} <= {0, 1, 2}
    gaps = torch.stack([(x[:40] - one).abs().flatten(1).amax(dim=1).min() for one in x[40:]])
    assert float(gaps.max()) == 0


def test_tokens_cannot_be_moved_and_functions_cannot_be_reached():
    worker = client()
    worker.trainset = (torch.zeros(6, 4, dtype=torch.int64), torch.arange(6) % 3)
    with pytest.raises(ConfigError, match=r"takes floating ones; got torch.int64.*label_flipping"):
        make()(worker).fit(get_weights(network()), CONFIG)
    with pytest.raises(ConfigError, match="goes around a client's fit"):
        message_app([make().mod])(message("train", arrays(), CONFIG), context())
    assert isinstance(network(), nn.Module)
