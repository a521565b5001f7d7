"""Backdoors that a trigger opens, in short runs on digits, and what each attacker trains on."""

import numpy as np
import pytest
import torch

from flsec.attacks import Adversaries
from flsec.client_apps import (
    A3FL,
    DBA,
    BadNets,
    BlendedBackdoor,
    Chameleon,
    Neurotoxin,
    SinusoidalBackdoor,
    TorchClient,
)
from flsec.client_apps.base import AttackContext
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.training import Training, get_weights


def run(tmp_path, *attacks, rounds=10, **settings):
    config = {
        "name": "backdoor",
        "data": {"name": "digits", "subset": 700},
        "model": {"name": "mlp", "hidden": [32]},
        "training": {"learning_rate": 0.2, "batch_size": 16, "epochs": 3},
        "attacks": list(attacks),
        "adversaries": {"count": 4},
        "simulation": {"engine": "inprocess", "num_clients": 10, "num_rounds": rounds},
        "output": {"folder": str(tmp_path), "plots": False, "evaluate_every": rounds},
        **settings,
    }
    return engine.run(make_config(config)).rounds()


@pytest.mark.parametrize(
    "attack",
    [
        {"name": "dba", "fraction": 0.5, "target": 3},
        {"name": "blended_backdoor", "fraction": 0.3, "target": 3, "alpha": 0.4},
        {"name": "sinusoidal_backdoor", "fraction": 0.3, "target": 3, "amplitude": 0.4, "frequency": 2.0},
        {"name": "chameleon", "fraction": 0.3, "target": 3, "contrastive_epochs": 4},
        {"name": "a3fl", "fraction": 0.3, "target": 3, "num_auxiliary": 64},
    ],
    ids=lambda attack: attack["name"],
)
def test_the_backdoor_is_planted_and_the_task_learned(attack, tmp_path):
    first, *_, last = run(tmp_path, attack)
    assert (first["attack"]["attack_success"] or 0.0) < 0.3
    assert last["attack"]["attack_success"] > 0.7
    assert last["accuracy"] > 0.85


def held(attack, client_id, round=1):
    x = np.zeros((1, 1, 28, 28))
    stamped, _ = attack.poisoned_dataset((x, np.array([1])), AttackContext(round, client_id))
    return set(map(tuple, np.argwhere(stamped[0, 0]).tolist()))


def test_attackers_of_a_round_hold_the_parts_together():
    who = Adversaries(num_clients=20, count=5, redraw="every_round", seed=3)
    attack = DBA(fraction=1.0, adversaries=who)
    whole = set(map(tuple, np.argwhere(attack.trigger.apply_to_each(np.zeros((1, 1, 28, 28)))[0, 0]).tolist()))
    for round in (1, 2, 3):
        parts = [held(attack, client, round) for client in sorted(who.active(round))]
        assert set().union(*parts) == whole
        assert {len(part) for part in parts} == {4}


def test_two_attackers_share_four_parts_and_camps_count_for_themselves():
    both = DBA(fraction=1.0, adversaries=Adversaries(num_clients=9, ids=[2, 7]))
    assert {len(held(both, 2)), len(held(both, 7))} == {8}
    assert not held(both, 2) & held(both, 7)
    camps = Adversaries(num_clients=20, count=8, camps={"a": 0.5, "b": 0.5}, seed=1)
    attack = DBA(fraction=1.0, adversaries=camps, camp="a")
    members = [client for client in camps.active(1) if camps.camp(client, 1) == "a"]
    assert len(set().union(*(held(attack, client) for client in members))) == 16


def test_features_are_dealt_out_with_their_values():
    attack = DBA(fraction=1.0, parts=2, features=[4, 1, 3], value=[4.0, 1.0, 3.0])
    rows = [attack.poisoned_dataset((np.zeros((1, 5)), np.array([1])), AttackContext(1, c))[0][0] for c in (0, 1)]
    assert rows[0].tolist() == [0, 0, 0, 3, 4]
    assert rows[1].tolist() == [0, 1, 0, 0, 0]
    with pytest.raises(ConfigError, match="at least as many as parts=4"):
        DBA(features=[1, 2])


def test_an_attacker_that_does_not_know_its_id_is_told_so():
    with pytest.raises(ConfigError, match="does not say which it is"):
        held(DBA(fraction=1.0), -1)


def test_white_of_other_data_is_asked_for():
    for attack in (DBA(), BlendedBackdoor(), SinusoidalBackdoor(), BadNets()):
        with pytest.raises(ConfigError, match=f"{type(attack).__name__}: value is in the units"):
            attack.check_scale(255)


# --- Neurotoxin -------------------------------------------------------------------------------------------------


def network():
    return build_model("mlp", (1, 4, 4), 3, seed=3, hidden=[8])


def client(client_id=2):
    random = torch.Generator().manual_seed(client_id)
    x, y = torch.rand(24, 1, 4, 4, generator=random), torch.arange(24) % 3
    training = Training(learning_rate=0.3, epochs=3, batch_size=8, momentum=0.9, weight_decay=0.01)
    return TorchClient(network(), ArrayDataset(x.numpy(), y.numpy()), training, client_id=client_id, seed=5)


def moved(weights, seed):
    random = np.random.default_rng(seed)
    return [array + 0.1 * random.standard_normal(array.shape).astype(array.dtype) for array in weights]


@pytest.mark.parametrize("project", ["update", "gradient"])
def test_only_weights_that_hardly_moved_are_changed(project):
    attacked = Neurotoxin(ratio=0.6, project=project)(client())
    first = get_weights(network())
    second = moved(first, 1)
    own, _, _ = client().fit(first, {"server-round": 1})
    sent, _, _ = attacked.fit(first, {"server-round": 1})
    steps = np.concatenate([np.abs(a - b).ravel() for a, b in zip(own, first, strict=True)])
    changed = np.concatenate([(a != b).ravel() for a, b in zip(sent, first, strict=True)])
    assert steps[changed].max() < np.sort(steps)[int(0.6 * len(steps))]  # nothing else is known yet
    assert changed.mean() > 0.4  # some weights do not move at all
    sent, _, _ = attacked.fit(second, {"server-round": 2})
    steps = np.concatenate([np.abs(a - b).ravel() for a, b in zip(second, first, strict=True)])
    changed = np.concatenate([(a != b).ravel() for a, b in zip(sent, second, strict=True)])
    assert changed.mean() > 0.5
    assert steps[changed].max() < np.sort(steps)[int(0.6 * len(steps))]


def test_masked_training_finds_better_weights_than_what_is_put_back_afterwards():
    def loss(project):
        attacked = Neurotoxin(ratio=0.3, project=project)(client())
        first = get_weights(network())
        attacked.fit(first, {"server-round": 1})
        sent, _, _ = attacked.fit(moved(first, 1), {"server-round": 2})
        return client().evaluate(sent, {})[0]

    assert loss("gradient") < loss("update")


def test_masked_training_takes_a_client_with_step_hooks():
    attacked = Neurotoxin(project="gradient")(client())
    attacked.fit(get_weights(network()), {"server-round": 1})
    del attacked.step_hooks
    with pytest.raises(ConfigError, match="Neurotoxin acts on each step of local training"):
        attacked.fit(moved(get_weights(network()), 1), {"server-round": 2})


def test_it_plants_a_backdoor_that_is_stacked_inside(tmp_path):
    attacks = [{"name": "badnets", "fraction": 0.3, "target": 3}, {"name": "neurotoxin", "ratio": 0.9}]
    *_, last = run(tmp_path, *attacks)
    assert last["attack"]["attack_success"] > 0.5
    assert last["accuracy"] > 0.85


# --- A3FL and Chameleon -----------------------------------------------------------------------------------------


def test_a3fl_without_training_does_less_than_with_it(tmp_path):
    """A patch fitted to a model that nobody has poisoned is no backdoor."""
    attack = {"name": "a3fl", "fraction": 0.3, "target": 3, "num_auxiliary": 64}
    *_, clean = run(tmp_path / "never", attack, rounds=5, adversaries={"count": 0})
    *_, last = run(tmp_path / "all", attack, rounds=5)
    assert last["attack"]["attack_success"] > clean["attack"]["attack_success"]


def test_all_attackers_of_a_round_have_one_trigger_whatever_their_data():
    x, y = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    attack = A3FL(auxiliary_data=(x, y), model_factory=network, size=2, seed=4)
    weights = get_weights(network())
    one, other = (attack.trigger_for(weights, 3) for _ in range(2))
    assert np.array_equal(one.values, other.values)
    assert not np.array_equal(one.values, attack.trigger_for(moved(weights, 1), 3).values)


def test_before_the_first_round_there_is_no_trigger_to_measure(tmp_path):
    first, *_ = run(tmp_path, {"name": "a3fl", "num_auxiliary": 16}, rounds=1)
    assert first["attack"] == {"attack_success": None}


def test_chameleon_refuses_a_model_without_features_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"attacks\[0\].*chameleon trains the features"):
        run(tmp_path, {"name": "chameleon"}, model={"name": "softmax"})


def test_chameleon_stays_in_its_ball():
    training = Training(learning_rate=0.3, batch_size=8)
    attack = Chameleon(model_factory=network, training=training, max_norm=0.5, target=1, size=1)
    start = get_weights(network())
    sent, _, _ = attack(client()).fit(start, {"server-round": 1})
    length = np.sqrt(sum(((a - b).astype(float) ** 2).sum() for a, b in zip(sent, start, strict=True)))
    assert length == pytest.approx(0.5, rel=1e-5)
