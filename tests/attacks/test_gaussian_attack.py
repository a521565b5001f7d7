import numpy as np
import pytest
from scipy import stats

from flsec.attacks import gaussian_attack


@pytest.mark.parametrize("std", [1.0, 0.1])
def test_the_update_is_noise_of_the_given_width(std):
    below = 0
    for seed in range(10):
        w_g = np.random.default_rng(100 + seed).normal(0, 20, size=(50, 100))
        [sent] = gaussian_attack([w_g], [w_g + 3], std=std, generator=np.random.default_rng(seed))
        update = (sent - w_g).ravel()
        below += stats.kstest(update, stats.norm(0, std).cdf).pvalue < 0.01
        assert stats.kstest(update, stats.norm(0, 1.2 * std).cdf).pvalue < 1e-6  # the test can fail
        assert abs(np.corrcoef(update, w_g.ravel())[0, 1]) < 5 / 5000**0.5
    assert below <= 2


def test_unit_variance_is_the_default():
    [sent] = gaussian_attack([np.zeros(10**5)], [np.zeros(10**5)], generator=np.random.default_rng(0))
    assert sent.std() == pytest.approx(1, abs=0.02)


def test_the_local_model_does_not_matter_and_the_generator_does():
    w_g = np.arange(9.0)
    sent = [
        gaussian_attack([w_g], [local], generator=np.random.default_rng(seed))[0]
        for local, seed in ((w_g, 1), (w_g + 5, 1), (w_g, 2))
    ]
    np.testing.assert_array_equal(sent[0], sent[1])
    assert not np.array_equal(sent[0], sent[2])
