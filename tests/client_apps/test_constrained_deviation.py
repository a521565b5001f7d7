"""Attackers who stay within what a rule takes for honest: the constraint held, and what it does to real defenses."""

import pytest
import torch

from flsec import aggregation
from flsec.attacks import CohortView, Rehearsal
from flsec.client_apps import ConstrainedDeviation
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.simulations import engine
from flsec.simulations.config import make_config


def rows(n, d=40, seed=0, mean=0.3):
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosines(a, b):
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)


def view(attack, own, others, rehearse=None, **settings):
    return CohortView(
        **{
            "own": own,
            "own_ids": tuple(range(len(own))),
            "clients_per_round": len(own) + len(others),
            "round": 3,
            "global_parameters": torch.zeros(own.shape[1]),
            "others": others if attack.knowledge == "all" else None,
            "rehearse": rehearse,
            **settings,
        }
    )


def sent_by(attack, own, others, **settings):
    seen = view(attack, own, others, **settings)
    uploads = attack.poison_cohort(seen)
    assert uploads.isfinite().all()
    return uploads, seen.notes


def test_diversefl_accepts_it_and_is_moved_back():
    own, others = rows(4), rows(9, seed=1)
    attack = ConstrainedDeviation(min_cosine=0.2, min_ratio=0.6, max_ratio=1.5)
    sent, notes = sent_by(attack, own, others)
    assert (cosines(sent, own) >= 0.2 - 1e-6).all()
    ratio = sent.norm(dim=1) / own.norm(dim=1)
    assert (ratio >= 0.6 - 1e-6).all()
    assert (ratio <= 1.5 + 1e-6).all()
    assert notes["cosine"] == pytest.approx(float(cosines(sent, own).mean()), abs=1e-6)
    assert (sent @ others.mean(dim=0) < own @ others.mean(dim=0)).all()


def test_fltrust_counts_it_and_is_moved_farther_than_by_other_angles():
    own, others = rows(4, mean=0.6), rows(9, seed=1, mean=0.6)
    sent, notes = sent_by(ConstrainedDeviation(against="fltrust"), own, others)
    mean, way = others.mean(dim=0), -others.mean(dim=0).sign()

    def moved(crafted):
        every = torch.cat([crafted.repeat(4, 1), others])
        return float(aggregation.fltrust(every, mean) @ way)

    assert 0 < notes["cosine"] < 1
    assert float(cosines(sent[0], mean)) == pytest.approx(notes["cosine"], abs=1e-6)
    assert moved(sent[0]) > moved(mean)
    assert moved(sent[0]) > moved(-mean)  # which is not trusted at all


def deployed(limit):
    """A defense that drops who is farther than an angle from what it was honestly."""

    def make(own):
        def rehearse(uploads):
            return Rehearsal(uploads.mean(dim=0), cosines(uploads, own) >= limit)

        return rehearse

    return make


@pytest.mark.parametrize("limit", [0.3, 0.8, 0.99])
def test_the_angle_is_tuned_on_the_deployed_defense(limit):
    own, others = rows(4), rows(9, seed=1)
    attack = ConstrainedDeviation(against="fedinv", num_trials=12)
    sent, _ = sent_by(attack, own, others, rehearse=deployed(limit)(own))
    assert (cosines(sent, own) >= limit - 1e-6).all()
    assert float(cosines(sent, own).min()) < limit + 0.02
    torch.testing.assert_close(sent.norm(dim=1), own.norm(dim=1))
    flame = ConstrainedDeviation(against="flame", num_trials=12)
    sent, _ = sent_by(flame, own, others, rehearse=deployed(limit)(own))
    assert limit - 1e-6 <= float(cosines(sent, own).min()) < limit + 0.02
    torch.testing.assert_close(sent.norm(dim=1), others.norm(dim=1).median().repeat(4))
    honest, notes = sent_by(attack, own, others, rehearse=deployed(1.1)(own))
    torch.testing.assert_close(honest, own, rtol=1e-4, atol=1e-5)  # nothing passes
    assert notes["cosine"] == pytest.approx(1.0)


def network():
    return build_model("mlp", (1, 2, 2), 3, seed=3, hidden=[4])


def test_an_update_that_raises_no_alarm_keeps_the_accuracy():
    from flsec.training import Training, evaluate, get_weights, set_weights, train

    x = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = x.flatten(1)[:, :3].argmax(dim=1)
    start = torch.cat([torch.from_numpy(a).flatten() for a in get_weights(network())])
    own = []
    for seed in range(3):
        model = network()
        random = torch.Generator().manual_seed(seed)
        train(model, x, y, Training(learning_rate=0.5, epochs=40, batch_size=10), round=1, generator=random)
        own.append(torch.cat([torch.from_numpy(a).flatten() for a in get_weights(model)]) - start)
    own = torch.stack(own)

    def accuracy(update):
        model, moved = network(), start + update
        shapes = [a.shape for a in get_weights(model)]
        parts = moved.split([int(torch.Size(s).numel()) for s in shapes])
        set_weights(model, [p.reshape(s).numpy() for p, s in zip(parts, shapes, strict=True)])
        return evaluate(model, x, y).accuracy

    for drop in (0.0, 0.1, 1.0):
        attack = ConstrainedDeviation(
            against="siren", auxiliary_data=(x, y), model_factory=network, max_accuracy_drop=drop, num_trials=6
        )
        sent, notes = sent_by(attack, own, own, global_parameters=start)
        for v, u in zip(sent, own, strict=True):
            assert accuracy(v) >= accuracy(u) - drop - 1e-9
        assert notes["cosine"] < 1
    assert notes["cosine"] == pytest.approx(0.1, abs=1e-3)  # every drop is allowed: as far as the angle goes


def test_odd_rounds_and_refusals():
    rounds = [(rows(1), rows(0)), (rows(3), rows(0)), (0 * rows(2), 0 * rows(5)), (1e37 * rows(2), rows(3))]
    for against in ("diversefl", "fltrust", "flame", "fedinv"):
        for own, others in rounds:
            sent, _ = sent_by(ConstrainedDeviation(against=against), own, others, rehearse=deployed(0.5)(own))
            assert sent.shape == own.shape
    with pytest.raises(ConfigError, match="against='siren' needs auxiliary_data and model_factory"):
        ConstrainedDeviation(against="siren")
    with pytest.raises(ConfigError, match="min_ratio must be at most max_ratio"):
        ConstrainedDeviation(max_ratio=0.5)
    with pytest.raises(ConfigError, match=r"ConstrainedDeviation needs view\.rehearse"):
        sent_by(ConstrainedDeviation(against="fedinv"), rows(2), rows(5))


def run(tmp_path, defense, *attacks):
    config = {
        "name": "adaptive",
        "data": {"name": "digits", "root_samples": 50, "client_sample_share": 0.1},
        "model": {"name": "softmax"},
        "training": {"learning_rate": 0.1, "batch_size": 16},
        "defenses": [defense],
        "attacks": list(attacks),
        "adversaries": {"count": 3} if attacks else None,
        "simulation": {"engine": "inprocess", "num_clients": 10, "num_rounds": 5},
        "output": {"folder": str(tmp_path), "plots": False, "evaluate_every": 5},
    }
    return engine.run(make_config(config)).rounds()


@pytest.mark.parametrize("name", ["diversefl", "fltrust", "flame", "siren"])
def test_the_defense_lets_more_through_than_of_a_crude_attack_and_ends_worse_than_clean(name, tmp_path):
    crude, adaptive, clean = (
        run(tmp_path / str(i), {"name": name}, *attacks)
        for i, attacks in enumerate(
            ([{"name": "sign_flipping", "scale": 4.0}], [{"name": "constrained_deviation", "against": name}], [])
        )
    )

    def let_through(records):
        return sum(
            (record["defenses"][0]["weights"] or {}).get(str(client), 1.0) > 0
            for record in records[1:]
            for client in record["adversaries"]
            if client in record["defenses"][0]["kept"]
        )

    assert let_through(adaptive) > let_through(crude) or let_through(adaptive) == 15
    assert let_through(adaptive) >= 10
    assert adaptive[-1]["loss"] > clean[-1]["loss"]
