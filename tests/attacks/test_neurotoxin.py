import numpy as np
import pytest

from flsec.attacks import neurotoxin, rarely_used
from flsec.errors import ConfigError


def model(seed, scale=1.0):
    random = np.random.default_rng(seed)
    shapes = [(4, 3), (4,), (), (2, 2)]
    return [*(scale * random.standard_normal(shape) for shape in shapes), np.array([3, 4])]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_allowed_weights_are_those_of_the_smallest_steps(ratio, seed):
    now, before = model(seed), model(seed + 10)
    allowed = rarely_used(now, before, ratio=ratio)
    steps = np.concatenate([np.abs(a - b).ravel() for a, b in zip(now[:-1], before[:-1], strict=True)])
    flat = np.concatenate([mask.ravel() for mask in allowed[:-1]])
    assert flat.sum() == int(ratio * len(steps))
    assert steps[flat].max(initial=0) <= steps[~flat].min()
    assert not allowed[-1].any()
    assert [mask.shape for mask in allowed] == [array.shape for array in now]


def test_state_takes_no_place_among_the_weights():
    now, before = model(1), model(2)
    now[1] = now[1] + 1e6  # a running variance moves a lot
    allowed = rarely_used(now, before, ratio=0.5, state={1})
    others = [array for place, array in enumerate(now) if place != 1]
    expected = rarely_used(others, [array for place, array in enumerate(before) if place != 1], ratio=0.5)
    assert not allowed[1].any()
    for mask, same in zip([m for place, m in enumerate(allowed) if place != 1], expected, strict=True):
        assert np.array_equal(mask, same)


def test_everything_else_is_put_back():
    now, before, local = model(1), model(2), model(3)
    allowed = rarely_used(now, before, ratio=0.6)
    sent = neurotoxin(now, local, allowed)
    for uploaded, start, trained, mask in zip(sent[:-1], now, local, allowed, strict=False):
        assert np.array_equal(uploaded, np.where(mask, trained, start))
    assert np.array_equal(sent[-1], local[-1])


def test_equal_steps_are_counted_in_order_and_exactly():
    allowed = rarely_used([np.ones(10)], [np.zeros(10)], ratio=0.3)
    assert allowed[0].tolist() == [True] * 3 + [False] * 7


def test_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="ratio"):
        rarely_used(model(1), model(2), ratio=1.0)
    with pytest.raises(ConfigError, match="same shapes"):
        rarely_used(model(1), model(2)[:-1], ratio=0.5)
    with pytest.raises(ConfigError, match="rarely_used"):
        neurotoxin(model(1), model(2), [np.zeros(3, bool)])
