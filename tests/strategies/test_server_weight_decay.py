"""The penalty's step on the server: Eq. 4 of DiverseFL in float64, in both APIs."""

import numpy as np
import pytest

from flsec.strategies import Median, ServerWeightDecay
from flsec.training import Training
from tests.support.federation import CLIENTS, SERVERS, START, Federation, flat, flower, gradient

DECAY = 0.3
both_apis = pytest.mark.parametrize("api", SERVERS)


def decay(api, training, name="FedAvg"):
    return ServerWeightDecay(flower(api, name), weight_decay=DECAY, training=training)


@both_apis
@pytest.mark.parametrize(("combined", "around"), [(np.mean, lambda s: s), (np.median, Median)])
def test_is_the_gradient_step_of_the_penalised_loss_at_the_rate_of_the_round(api, combined, around):
    schedule = {"learning_rate": 0.5, "steps": 1, "batch_size": 1.0, "schedule": "inverse_sqrt"}
    federation = Federation(api, around(decay(api, Training(**schedule))), **schedule)
    theta = flat(START.values()) + 0.0
    for number in (1, 2, 3, 4):
        rate = 0.5 / np.sqrt(number)
        steps = [-rate * gradient(theta, i) for i in CLIENTS]
        theta = theta + combined(steps, axis=0) - rate * DECAY * theta
        np.testing.assert_allclose(federation.play([number]).model, theta, rtol=1e-4, atol=1e-6)


@both_apis
def test_the_optimum_is_that_of_the_penalised_loss(api):
    training = Training(learning_rate=0.5, steps=1, batch_size=1.0)
    model = Federation(api, decay(api, training), steps=1).play(range(1, 200)).model
    slope = np.mean([gradient(model, i) for i in CLIENTS], axis=0) + DECAY * model
    assert np.linalg.norm(slope) < 1e-3
    assert np.linalg.norm(model) > 0.1


@both_apis
def test_no_decay_is_the_strategy_inside(api):
    training = Training(learning_rate=0.5, steps=3, batch_size=1.0)
    without = ServerWeightDecay(flower(api), weight_decay=0.0, training=training)
    plain = Federation(api, Median(flower(api))).play([1, 2]).model
    np.testing.assert_array_equal(Federation(api, Median(without)).play([1, 2]).model, plain)
