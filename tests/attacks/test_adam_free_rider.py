from itertools import pairwise

import numpy as np
import pytest

from flsec.attacks import adam_free_rider, moving_squares
from flsec.errors import ConfigError


def models(count, size=2000, shrink=0.5):
    """Global models whose steps shrink from round to round, the second half of the weights ten times as fast."""
    random, out = np.random.default_rng(0), [[np.zeros(size), np.array(0)]]
    sizes = np.where(np.arange(size) < size // 2, 1.0, 0.1)
    for t in range(count):
        out.append([out[-1][0] + shrink**t * sizes * random.standard_normal(size), np.array(t)])
    return out


def test_the_squares_are_adams_second_moment():
    history, v, by_hand = models(6), None, np.zeros(2000)
    for before, now in pairwise(history):
        v = moving_squares(v, now, before, beta_2=0.9)
        by_hand = 0.9 * by_hand + 0.1 * (now[0] - before[0]) ** 2
        np.testing.assert_allclose(v[0], by_hand, rtol=1e-12)
        assert not v[1].any()
    np.testing.assert_allclose(
        moving_squares(None, history[3], history[0], rounds=3)[0], 0.1 * ((history[3][0] - history[0][0]) / 3) ** 2
    )


def test_the_noise_has_the_size_of_recent_steps_weight_by_weight_and_dies_down():
    history, v, spreads = models(8), None, []
    for t in range(1, 9):
        v = moving_squares(v, history[t], history[t - 1], beta_2=0.5)
        sent = adam_free_rider(history[t], history[t], history[t - 1], v, np.random.default_rng(t), count=t, beta_2=0.5)
        noise = sent[0] - (2 * history[t][0] - history[t - 1][0])
        corrected = v[0] / (1 - 0.5**t)
        assert np.square(noise).mean() == pytest.approx(corrected.mean(), rel=0.15)
        assert noise[:1000].std() == pytest.approx(10 * noise[1000:].std(), rel=0.2)
        spreads.append(noise.std())
        assert sent[1] == history[t][1]
    assert all(later < earlier for earlier, later in pairwise(spreads))
    assert spreads[-1] < spreads[0] / 10


def test_refuses_what_does_not_fit():
    a, b = models(1)
    with pytest.raises(ConfigError, match="beta_2"):
        moving_squares(None, b, a, beta_2=1.0)
    with pytest.raises(ConfigError, match="count"):
        adam_free_rider(b, b, a, [np.zeros(2000), np.zeros(())], np.random.default_rng(0), count=0)
    with pytest.raises(ConfigError, match="same shapes"):
        moving_squares(None, b, a[:1])
