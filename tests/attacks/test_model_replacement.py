import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from flsec.attacks import model_replacement, replacement_boost
from flsec.errors import ConfigError


def models(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 2)), rng.normal(size=4)], [rng.normal(size=(3, 2)), rng.normal(size=4)]


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1000))
def test_the_update_is_boost_times_the_backdoored_one(seed, boost):
    global_params, local_params = models(seed)
    uploaded = model_replacement(global_params, local_params, boost=boost)
    for w_g, w_l, sent in zip(global_params, local_params, uploaded, strict=True):
        assert_allclose(sent - w_g, boost * (w_l - w_g), rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.sampled_from([1.0, 0.5, 0.1]))
def test_the_plain_mean_of_one_attacker_and_idle_others_is_the_attackers_model(seed, n, server_rate):
    global_params, local_params = models(seed)
    uploaded = model_replacement(global_params, local_params, boost=n / server_rate)
    for w_g, w_l, sent in zip(global_params, local_params, uploaded, strict=True):
        mean_update = (sent - w_g + (n - 1) * np.zeros_like(w_g)) / n
        assert_allclose(w_g + server_rate * mean_update, w_l, rtol=1e-9, atol=1e-9)


def test_a_boost_of_1_is_an_honest_upload():
    global_params, local_params = models(0)
    for sent, w_l in zip(model_replacement(global_params, local_params, boost=1.0), local_params, strict=True):
        assert_allclose(sent, w_l, rtol=1e-12, atol=1e-12)


def test_a_boost_that_is_computed():
    name = "SomeAttack needs scale"
    assert replacement_boost(None, 20, 1.0, name=name) == 20
    assert replacement_boost(None, 20, 0.1, name=name) == pytest.approx(200)
    assert replacement_boost(4.0, 20, 0.1, name=name) == 4  # what is told goes first
    with pytest.raises(ConfigError, match="SomeAttack needs scale, or clients_per_round to compute it from"):
        replacement_boost(None, None, 1.0, name=name)
