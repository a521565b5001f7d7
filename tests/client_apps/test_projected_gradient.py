import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flsec.aggregation import sparsefed_init, sparsefed_step
from flsec.attacks import projected_gradient, wrong_labels
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import AdaptiveTopK, AttackContext, ProjectedGradient, TorchClient
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.randomness import generator
from flsec.training import Training, get_weights, set_weights

CLASSES, SHAPE = 4, (1, 3, 3)
TRAINING = Training(learning_rate=0.2, schedule="triangular", peak_at=0.5, steps=1)


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[6])


def pool(n=40):
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(n) % CLASSES


def make(kind=ProjectedGradient, **settings):
    given = {"auxiliary_data": pool(), "model_factory": network, "num_auxiliary": 12, "max_norm": 0.5}
    return kind(**{**given, "training": TRAINING, "num_rounds": 4, "seed": 5, **settings})


def client(client_id, samples=5):
    rng = np.random.default_rng(client_id)
    data = ArrayDataset(rng.random((samples, *SHAPE), np.float32), np.full(samples, client_id % CLASSES))
    return TorchClient(network(), data, TRAINING, client_id=client_id, num_rounds=4, seed=5)


def upload(attack, client_id=0, round_=2, samples=5):
    return attack(client(client_id, samples)).fit(get_weights(network()), {"server-round": round_})[0]


def flat(arrays):
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays])).double()


def update(arrays):
    return flat(arrays) - flat(get_weights(network()))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# --- collusion --------------------------------------------------------------------------------------------------


def test_all_colluders_upload_the_same_whoever_and_whatever_they_are():
    first = upload(make(), client_id=0)
    for client_id, samples in ((1, 5), (17, 5), (399, 3), (0, 9)):
        assert same(upload(make(), client_id, samples=samples), first)
    assert not same(upload(make(), round_=3), first)
    assert not same(upload(make(seed=6)), first)
    honest = client(0).fit(get_weights(network()), {"server-round": 2})[0]
    assert not same(honest, client(1).fit(get_weights(network()), {"server-round": 2})[0])  # who do not collude


ELSEWHERE = """
import hashlib, sys, torch
torch.set_num_threads(1)
from tests.client_apps.test_projected_gradient import make, upload
for i in sys.argv[1:]:
    print(hashlib.sha256(b"".join(a.tobytes() for a in upload(make(), int(i)))).hexdigest())
"""


def test_colluders_in_other_processes_upload_the_same():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = hashlib.sha256(b"".join(a.tobytes() for a in upload(make(), 2))).hexdigest()
    finally:
        torch.set_num_threads(threads)
    elsewhere = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, "0", "7", "3"], capture_output=True, text=True, check=True, timeout=120
    )
    assert elsewhere.stdout.split() == [here] * 3


# --- what is computed -------------------------------------------------------------------------------------------


def test_the_upload_is_the_pure_functions():
    x, y = pool()
    random = generator(5, purpose="auxiliary set")
    chosen = torch.randperm(40, generator=random)[:12]
    wanted = wrong_labels(y[chosen], CLASSES, random)
    model = network()
    expected = projected_gradient(
        model,
        x[chosen],
        wanted,
        max_norm=0.5,
        learning_rate=0.2,
        generator=generator(5, 2, purpose="projected gradient"),
    )
    assert same(upload(make()), expected)  # round 2 of 4 is the peak
    assert not bool((wanted == y[chosen]).any())


def test_the_bound_and_the_rate_follow_the_honest_clients():
    norms = [float(update(upload(make(), round_=r)).norm()) for r in (1, 2, 3, 4)]
    factors = [TRAINING.learning_rate_at(r, 4) / 0.2 for r in (1, 2, 3, 4)]
    assert norms == pytest.approx([0.5 * f for f in factors], rel=1e-4)
    constant = make(adaptive_clipping=False)
    assert [float(update(upload(constant, round_=r)).norm()) for r in (1, 3)] == pytest.approx([0.5, 0.5], rel=1e-4)
    short = {"boost": 1.0, "epochs": 1, "max_norm": 100.0}
    ratio = (
        update(upload(make(**short, batch_size=1.0), round_=1)).norm()
        / update(upload(make(**short, batch_size=1.0), round_=2)).norm()
    )
    assert float(ratio) == pytest.approx(0.5, rel=1e-3)
    own = make(**short, batch_size=1.0, learning_rate=0.2)
    assert float(update(upload(own, round_=1)).norm()) == pytest.approx(
        float(update(upload(own, round_=2)).norm()), rel=1e-3
    )


def test_success_is_the_share_that_is_classified_as_wanted():
    attack = make()
    x, y = pool()
    assert len(attack.wanted_labels) == 12

    def predict(right):
        def of(inputs):
            assert torch.equal(inputs, attack.inputs)
            return torch.where(torch.arange(12) < right, attack.wanted_labels, attack.true_labels)

        return of

    for right in (0, 3, 12):
        assert attack.success(predict(right), x, y, y) == {"attack_accuracy": right / 12}


def test_the_attack_works_on_an_undefended_server():
    """Twenty colluding steps: the auxiliary set is misclassified as wanted, which it was not before."""
    attack = make(max_norm=3.0, learning_rate=0.2, boost=4.0, epochs=20, batch_size=1.0, training=None)
    model, weights = network(), get_weights(network())

    def accuracy():
        set_weights(model, weights)
        return attack.success(lambda inputs: model(inputs).argmax(dim=1), *pool(), pool()[1])["attack_accuracy"]

    before = accuracy()
    for round_ in range(1, 21):
        weights = attack.poison_update(weights, weights, AttackContext(round=round_, client_id=0, seed=5))
    assert accuracy() > max(0.8, before)


def test_honest_rounds_are_untouched():
    attack = make(adversaries=Adversaries(num_clients=400, ids=[7], first_round=2))
    for client_id, round_, hostile in ((7, 1, False), (7, 2, True), (8, 2, False)):
        honest = client(client_id).fit(get_weights(network()), {"server-round": round_})[0]
        assert same(upload(attack, client_id, round_), honest) != hostile


def test_the_pool_is_copied_and_kept_clean():
    x, y = pool()
    before = x.clone(), y.clone()
    attack = make(auxiliary_data=(x, y))
    x.add_(1)
    assert float(attack.inputs.max()) <= 1
    assert torch.equal(y, before[1])
    assert len(make(num_auxiliary=500).inputs) == 40  # all there are
    assert torch.equal(make().wanted_labels, make().wanted_labels)
    assert not torch.equal(make(seed=6).inputs, make().inputs)


def test_refuses_what_cannot_work():
    with pytest.raises(ConfigError, match="needs learning_rate, or training"):
        make(training=None)
    make(training=None, learning_rate=0.1)
    x, y = pool()
    with pytest.raises(ConfigError, match="at least two classes; got 40 samples and 40 labels of 1 classes"):
        make(auxiliary_data=(x, torch.zeros_like(y)))
    with pytest.raises(ConfigError, match="got 39 samples and 40 labels"):
        make(auxiliary_data=(x[1:], y))
    with pytest.raises(ConfigError, match="Do server and client build the same model"):
        upload(make(model_factory=lambda: build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[7])))


# --- Algorithm 12 -----------------------------------------------------------------------------------------------


def test_only_the_coordinates_that_are_known_change():
    places = torch.tensor([30, 80, 84, 87])
    asked = []

    def coordinates(round_):
        asked.append(round_)
        return places

    moved = update(upload(make(AdaptiveTopK, k=4, coordinates=coordinates)))
    assert moved.nonzero().squeeze(1).tolist() == places.tolist()
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)
    assert asked == [2]


def test_with_the_servers_next_top_k_the_whole_update_passes():
    """What the attackers send with that knowledge survives SparseFed's step; what they send without it does not."""
    d = len(flat(get_weights(network())))
    honest = torch.zeros(d).double()
    honest[::10] = 1.0
    state = sparsefed_init(d, dtype=torch.float64)
    true_top_k = sparsefed_step(state, honest, k=len(honest[::10]))[0].nonzero().squeeze(1)

    def passes(attack):
        sent = update(upload(attack)) * 1e-3
        delta, _ = sparsefed_step(state, honest + sent, k=len(true_top_k))
        return float((delta - sparsefed_step(state, honest, k=len(true_top_k))[0]).norm() / sent.norm())

    assert passes(make(AdaptiveTopK, k=1.0, coordinates=lambda round_: true_top_k)) == pytest.approx(1.0)
    assert passes(make()) < 0.6


def test_the_guess_is_the_largest_entries_of_the_honest_gradient():
    attack = make(AdaptiveTopK, k=6)
    model = network()
    loss = nn.functional.cross_entropy(model(attack.inputs), attack.true_labels)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    expected = sorted(gradient.abs().topk(6).indices.tolist())
    moved = update(upload(attack))
    assert set(moved.nonzero().squeeze(1).tolist()) <= set(expected)
    assert attack.coordinates_of(network(), AttackContext(round=2, client_id=0)).tolist() == expected
    assert len(make(AdaptiveTopK, k=0.1).coordinates_of(network(), AttackContext(round=2, client_id=0))) == round(
        0.1 * len(gradient)
    )


def test_the_guess_counts_weights_alone():
    def with_buffers():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, CLASSES))

    attack = make(AdaptiveTopK, k=1.0, model_factory=with_buffers)
    model = with_buffers()
    places = attack.coordinates_of(model, AttackContext(round=2, client_id=0)).tolist()
    assert places == list(range(sum(p.numel() for p in model.parameters())))
