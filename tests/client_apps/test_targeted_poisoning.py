import numpy as np
import pytest
import torch

from flsec.client_apps import AttackContext, TargetedPoisoning, TorchClient
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, get_weights, logits_of, set_weights

SHAPE, CLASSES = (1, 3, 3), 4


def pool(n=60):
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(n) % CLASSES


def make(**settings):
    return TargetedPoisoning(**{"auxiliary_data": pool(), "boost": 5.0, "seed": 5, **settings})


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[16])


def client(client_id=1, samples=20):
    x = torch.rand(samples, *SHAPE, generator=torch.Generator().manual_seed(client_id + 50)).numpy()
    settings = Training(learning_rate=0.1, epochs=5, batch_size=10)
    return TorchClient(network(), ArrayDataset(x, np.arange(samples) % CLASSES), settings, client_id=client_id, seed=5)


def seen_by(attack, client_id=1, samples=20):
    honest = client(client_id, samples)
    with attack.data_replaced(honest, AttackContext(2, client_id, seed=5)):
        return honest.trainset.tensors()


def rows_in(inputs, x):
    return [int(((x - one) == 0).flatten(1).all(dim=1).nonzero()[0]) for one in inputs]


class Predict:
    def __init__(self, logits):
        self.table, self.asked = logits, None

    def logits(self, inputs):
        self.asked = inputs
        return self.table

    def __call__(self, inputs):
        return self.logits(inputs).argmax(dim=1)


@pytest.mark.parametrize("r", [1, 4])
def test_attackers_train_on_their_data_and_as_much_on_the_chosen_samples(r):
    attack, (x, y) = make(num_targets=r), pool()
    chosen, wanted = attack.targets
    assert len(chosen) == r
    inputs, labels = seen_by(attack)
    assert torch.equal(inputs[:20], client().trainset.tensors()[0])
    assert torch.equal(labels[:20], client().trainset.tensors()[1])
    want = dict(zip(rows_in(chosen, x), wanted.tolist(), strict=True))
    added = rows_in(inputs[20:], x)
    assert len(added) == 20
    assert set(added) == set(want)
    assert labels[20:].tolist() == [want[i] for i in added]
    assert all(label != int(y[i]) for i, label in want.items())
    assert len(seen_by(make(fraction=0.2))[1]) == 25


def test_all_attackers_want_the_same_whoever_they_are():
    assert torch.equal(make().targets[0], make(num_targets=1).targets[0])
    assert not torch.equal(make(num_targets=3, seed=6).targets[0], make(num_targets=3).targets[0])
    fixed = make(num_targets=3, source=2, target=0)
    assert {int(pool()[1][i]) for i in rows_in(fixed.targets[0], pool()[0])} == {2}
    assert fixed.targets[1].tolist() == [0, 0, 0]


def update_of(attack):
    start = get_weights(network())
    sent = attack(client()).fit(start, {"server-round": 2})[0]
    return [a.astype(float) - b for a, b in zip(sent, start, strict=True)]


def test_the_update_is_boosted_by_n_over_eta():
    plain = update_of(make(boost=1.0))
    for settings, factor in (
        ({"boost": 5.0}, 5),
        ({"boost": None, "clients_per_round": 10}, 10),
        ({"boost": None, "clients_per_round": 10, "server_learning_rate": 0.5}, 20),
        ({"boost": 2.0, "clients_per_round": 10}, 2),  # what is told goes before what is computed
    ):
        for ours, theirs in zip(update_of(make(**settings)), plain, strict=True):
            np.testing.assert_allclose(ours, factor * theirs, rtol=1e-3, atol=1e-5)
    with pytest.raises(ConfigError, match="TargetedPoisoning needs boost, or clients_per_round"):
        make(boost=None)


def test_success_is_the_share_taken_as_wanted_and_the_confidence_in_it():
    attack, (x, y) = make(num_targets=4), pool()
    _, wanted = attack.targets
    table = torch.zeros(4, CLASSES)
    table[0, wanted[0]] = 50.0
    table[1, (wanted[1] + 1) % CLASSES] = 50.0
    table[2, wanted[2]], table[3, (wanted[3] + 1) % CLASSES] = 1e-3, 1e-3
    predict = Predict(table)
    found = attack.success(predict, x, y, y)
    assert found["attack_success"] == 0.5
    assert found["misclassification_confidence"] == pytest.approx((1 + 0 + 0.25 + 0.25) / 4, abs=1e-3)
    assert torch.equal(predict.asked, attack.targets[0])


def test_one_boosted_attacker_turns_the_mean_and_an_unboosted_one_does_not():
    start = get_weights(network())
    success = {}
    for boost in (1.0, 10.0):
        attack, model = make(boost=boost, seed=2), network()
        workers = [attack(client(0)), *(client(i) for i in range(1, 10))]
        sent = [worker.fit(start, {"server-round": 1})[0] for worker in workers]
        set_weights(model, [np.mean(layer, axis=0) for layer in zip(*sent, strict=True)])
        success[boost] = attack.success(_Model(model), *pool(), pool()[1])
    assert success[10.0]["attack_success"] == 1.0
    assert success[1.0]["attack_success"] == 0.0
    assert success[10.0]["misclassification_confidence"] > success[1.0]["misclassification_confidence"] + 0.3


class _Model:
    def __init__(self, model):
        self.model = model

    def logits(self, inputs):
        return logits_of(self.model, inputs)

    def __call__(self, inputs):
        return self.logits(inputs).argmax(dim=1)


def test_clean_data_are_never_touched():
    x, y = pool()
    attack, honest = make(auxiliary_data=(x, y), num_targets=10), client()
    own = honest.trainset
    attack(honest).fit(get_weights(network()), {"server-round": 2})
    attack.success(Predict(torch.zeros(10, CLASSES)), x, y, y)
    seen_by(attack)[0].zero_()
    assert torch.equal(x, pool()[0])
    assert torch.equal(y, pool()[1])
    assert honest.trainset is own


# --- the alternating form ---------------------------------------------------------------------------------------


def alternating(**settings):
    training = Training(learning_rate=0.1, epochs=5, batch_size=10)
    return make(form="alternating", model_factory=network, training=training, **settings)


def uploaded_by(attack, client_id=1):
    start = get_weights(network())
    arrays, num_examples, _ = attack(client(client_id)).fit(start, {"server-round": 2})
    return start, arrays, num_examples


def test_only_the_part_of_the_chosen_samples_is_boosted():
    """By hand, with plain SGD on all samples: in each epoch w + boost (targets' steps), then the own epoch."""
    x, y = (torch.as_tensor(part) for part in (client().trainset.tensors()))
    training = Training(learning_rate=0.1, epochs=2, batch_size=1.0)
    attack = make(form="alternating", model_factory=network, training=training, target_steps=3, num_targets=2)
    model, chosen = network(), attack.targets

    def descend(inputs, labels):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad

    for _ in range(2):
        before = [p.detach().clone() for p in model.parameters()]
        for _ in range(3):
            descend(*chosen)
        with torch.no_grad():
            for p, b in zip(model.parameters(), before, strict=True):
                p.copy_(b + 5.0 * (p - b))
        descend(x, y)
    _, arrays, num_examples = uploaded_by(attack)
    assert num_examples == 20
    for array, expected in zip(arrays, get_weights(model), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


def test_the_upload_looks_better_on_own_data_than_the_joint_form_boosted():
    def loss_of(arrays):
        model = network()
        set_weights(model, arrays)
        x, y = (torch.as_tensor(part) for part in client().trainset.tensors())
        return float(torch.nn.functional.cross_entropy(model(x), y))

    assert loss_of(uploaded_by(alternating(boost=10.0))[1]) < loss_of(uploaded_by(make(boost=10.0))[1])


def test_one_upload_among_ten_gets_the_sample_misclassified_in_both_forms():
    for attack in (alternating(boost=10.0), make(boost=10.0)):
        arrays = [uploaded_by(attack)[1]]
        arrays += [client(i).fit(get_weights(network()), {"server-round": 2})[0] for i in range(2, 11)]
        model = network()
        set_weights(model, [np.mean(rows, axis=0) for rows in zip(*arrays, strict=True)])
        inputs, wanted = attack.targets
        assert logits_of(model, inputs).argmax(dim=1).tolist() == wanted.tolist()


def test_the_alternating_form_needs_what_it_trains_with():
    with pytest.raises(ConfigError, match="model_factory and training"):
        make(form="alternating")


def test_the_alternating_form_is_reproducible_and_differs_between_clients():
    one, again, other = (uploaded_by(alternating(), i)[1] for i in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
