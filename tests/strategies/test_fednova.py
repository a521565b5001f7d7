"""FedNova in both APIs: the paper's formulas in float64, and what a hostile number of steps can do."""

from dataclasses import replace

import numpy as np
import pytest

from flsec.client_apps import fednova_client
from flsec.errors import ConfigError
from flsec.strategies import FedNova, Krum, Median, MultiKrum, NormClipping
from flsec.training import Training
from tests.support.federation import CLIENTS, SERVERS, SIZES, START, Federation, flat, flower, gradient

RATE = 0.5
STEPS = dict(zip(CLIENTS, (1, 2, 3, 5, 8), strict=True))
HALF = fednova_client()
both_apis = pytest.mark.parametrize("api", SERVERS)


def trained(start, i, momentum=0.0, mu=0.0):
    w, velocity = start.copy(), 0.0
    for _ in range(STEPS[i]):
        velocity = momentum * velocity + gradient(w, i) + mu * (w - start)
        w = w - RATE * velocity
    return w - start


def worth(i, momentum, mu):
    """|a_i|_1: how far the same steps go along a gradient of 1, over the learning rate."""
    gone = velocity = 0.0
    for _ in range(STEPS[i]):
        velocity = momentum * velocity + 1 - RATE * mu * gone
        gone += velocity
    return gone


@both_apis
@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.1)])
def test_three_rounds_are_equation_6(api, momentum, mu):
    inner = flower(api, "FedProx" if mu else "FedAvg")  # which sends 0.1
    federation = Federation(api, FedNova(inner), HALF, STEPS, momentum=momentum)
    x, shares = flat(START.values()), np.array(SIZES) / sum(SIZES)
    for number in (1, 2, 3):
        federation.play([number])
        tau = {i: worth(i, momentum, mu) for i in CLIENTS}
        effective = sum(p * tau[i] for p, i in zip(shares, CLIENTS, strict=True))
        x = x + effective * sum(p * trained(x, i, momentum, mu) / tau[i] for p, i in zip(shares, CLIENTS, strict=True))
        np.testing.assert_allclose(federation.model, x, rtol=1e-5, atol=1e-6)


@both_apis
@pytest.mark.parametrize("name", ["FedAvg", "FedAdam"])
def test_with_equal_steps_it_changes_nothing(api, name):
    plain = Federation(api, flower(api, name), HALF).play([1, 2, 3]).model
    ours = Federation(api, FedNova(flower(api, name)), HALF).play([1, 2, 3]).model
    if name == "FedAvg":
        assert np.array_equal(ours, plain)
    np.testing.assert_allclose(ours, plain, rtol=1e-5)  # Flower's FedAdam makes float64 of float32, which flsec undoes


@both_apis
def test_a_rule_inside_judges_the_normalised_rows(api):
    federation = Federation(api, FedNova(Median(flower(api)), weighting="uniform"), HALF, STEPS).play([1])
    x, effective = flat(START.values()), np.mean(list(STEPS.values()))
    rows = [effective / STEPS[i] * trained(x, i) for i in CLIENTS]
    np.testing.assert_allclose(federation.model, x + np.median(rows, axis=0), rtol=1e-5, atol=1e-6)


@both_apis
def test_without_reports_the_training_says_how_many_steps(api):
    """Batches of 3 in one epoch: 2, 3, 4, 5 and 6 steps."""
    training = {"steps": None, "epochs": 1, "batch_size": 3}
    reported = Federation(api, FedNova(flower(api)), HALF, **training).play([1, 2])
    told = FedNova(flower(api), training=Training(learning_rate=RATE, epochs=1, batch_size=3))
    computed = Federation(api, told, **training).play([1, 2])
    assert np.array_equal(reported.model, computed.model)
    assert not np.array_equal(reported.model, Federation(api, flower(api), **training).play([1, 2]).model)


@both_apis
def test_where_nobody_knows_the_steps_the_model_is_kept_and_the_reason_said(api):
    federation = Federation(api, FedNova(flower(api))).play([1])
    assert np.array_equal(federation.model, flat(START.values()))
    assert "Put flsec.client_apps.fednova_client around" in federation.server.strategy.last_report.kept_previous_model


CLAIMS = [1e-9, 1e9, 1e300, 0, -3.0, float("nan"), [1.0]]


@both_apis
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_hostile_number_of_steps_moves_the_model_within_the_bound(api, claim):
    def change(client_id, reply):
        return replace(reply, metrics={**reply.metrics, "fednova-steps": claim}) if client_id == 5 else reply

    x = flat(START.values())
    honest = Federation(api, FedNova(Median(flower(api))), HALF, STEPS).play([1]).model
    attacked = Federation(api, FedNova(Median(flower(api))), HALF, STEPS, change).play([1])
    report = attacked.server.strategy.last_report
    assert report.quarantined == ()  # metrics cost nobody its place
    assert report.kept_previous_model is None
    assert np.linalg.norm(attacked.model - x) < 10 * np.linalg.norm(honest - x)


@both_apis
def test_texts_and_missing_steps_count_as_the_median(api):
    def without(client_id, reply):
        kept = {key: value for key, value in reply.metrics.items() if key != "fednova-steps"}
        return replace(reply, metrics=kept) if client_id == 1 else reply

    def median(client_id, reply):
        middle = np.median([STEPS[i] for i in CLIENTS[1:]])
        return replace(reply, metrics={**reply.metrics, "fednova-steps": middle}) if client_id == 1 else reply

    one, other = (Federation(api, FedNova(flower(api)), HALF, STEPS, c).play([1]) for c in (without, median))
    assert np.array_equal(one.model, other.model)
    assert one.server.strategy.last_report.verdicts[0].notes == {"median_steps": 4.0, "unknown_steps": 1}


def test_it_goes_outside_of_defenses():
    for wrong in (Median, lambda s: Krum(s, num_byzantine=1), lambda s: NormClipping(s, max_norm=1.0)):
        with pytest.raises(ConfigError, match=r"Put it outside: FedNova\("):
            wrong(FedNova(flower("classic")))
    nested = FedNova(NormClipping(MultiKrum(flower("classic"), num_byzantine=1, num_selected=2), max_norm=1.0))
    assert [type(w).__name__ for w in nested.chain()] == ["FedNova", "NormClipping", "MultiKrum"]


def test_refuses():
    with pytest.raises(ConfigError, match=r"trains? with adam"):
        FedNova(flower("classic"), training=Training(learning_rate=0.1, optimizer="adam"))
    with pytest.raises(ConfigError, match="max_ratio"):
        FedNova(flower("classic"), max_ratio=0.5)
