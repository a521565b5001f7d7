import numpy as np
import pytest
from scipy import stats

from flsec import ConfigError
from flsec.attacks import random_attack

LAWS = {
    "uniform": lambda scale: stats.uniform(-scale, 2 * scale),
    "gaussian": lambda scale: stats.norm(0, scale),
}


@pytest.mark.parametrize("distribution", LAWS)
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_weights_follow_the_law_and_owe_nothing_to_the_models(distribution, scale):
    below = 0
    for seed in range(10):
        [drawn] = random_attack(
            [np.full(5000, 100.0)],
            [np.full(5000, -7.0, dtype=np.float32)],
            scale=scale,
            distribution=distribution,
            generator=np.random.default_rng(seed),
        )
        below += stats.kstest(drawn, LAWS[distribution](scale).cdf).pvalue < 0.01
        wrong = LAWS[distribution](1.2 * scale)
        assert stats.kstest(drawn, wrong.cdf).pvalue < 1e-6  # the test can fail
    assert below <= 2


def test_uniform_on_minus_one_to_one_is_the_default():
    [drawn] = random_attack([np.zeros(10**5)], [np.zeros(10**5)], generator=np.random.default_rng(0))
    assert -1 <= drawn.min() < -0.999
    assert 0.999 < drawn.max() <= 1


def test_arrays_are_independent_and_the_generator_decides():
    model = [np.zeros(50), np.array(3), np.zeros(50)]
    draws = [random_attack(model, model, generator=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    assert not np.array_equal(draws[0][0], draws[2][0])
    assert not np.array_equal(draws[0][0], draws[0][2])


def test_an_unknown_distribution():
    with pytest.raises(ConfigError, match="distribution must be 'uniform' or 'gaussian'; got 'cauchy'"):
        random_attack([], [], distribution="cauchy", generator=np.random.default_rng(0))
