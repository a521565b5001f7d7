import math

import numpy as np
import pytest
import torch

from flsec.aggregation.fl_detector import fl_detector_change, fl_detector_suspects
from flsec.errors import ConfigError
from flsec.randomness import generator


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bfgs(s, y, v):
    """The direct recursion B <- B - B s s^T B / s^T B s + y y^T / y^T s, with (d, d) matrices."""
    s, y = s.numpy(), y.numpy()
    b = np.eye(s.shape[1]) * (y[-1] @ s[-1]) / (s[-1] @ s[-1])
    for step, change in zip(s, y, strict=True):
        b = b - np.outer(b @ step, b @ step) / (step @ b @ step) + np.outer(change, change) / (change @ step)
    return torch.from_numpy(b @ v.numpy())


@pytest.mark.parametrize("sign", [1.0, -1.0])  # gradients, or steps of descent
@pytest.mark.parametrize("m", [1, 2, 5, 10])
def test_agrees_with_the_recursion_of_bfgs(sign, m):
    d = 12
    root = draw(m, d, d)
    hessian = sign * (root @ root.T + torch.eye(d, dtype=torch.float64))
    s, v = draw(20 + m, m, d), draw(40 + m, d)
    y = s @ hessian
    torch.testing.assert_close(fl_detector_change(s, y, v), bfgs(s, y, v), rtol=1e-6, atol=1e-6)


def test_the_last_step_is_answered_by_the_last_change():
    s, y = draw(1, 4, 30), draw(2, 4, 30)
    y = s + 0.1 * y
    torch.testing.assert_close(fl_detector_change(s, y, s[-1]), y[-1])  # the secant equation
    torch.testing.assert_close(fl_detector_change(s, y, 3 * s[-1]), 3 * y[-1])


def test_pairs_that_tell_nothing_are_left_out():
    s, v = draw(3, 4, 9), draw(4, 9)
    y = -2 * s
    s[1], y[2] = 0, math.nan
    torch.testing.assert_close(fl_detector_change(s, y, v), -2 * v)
    assert not fl_detector_change(s[1:2], y[1:2], v).any()
    assert not fl_detector_change(s[:0], y[:0], v).any()
    twice = fl_detector_change(torch.cat([s[:1], s[:1]]), torch.cat([y[:1], y[:1]]), v)  # a singular system
    torch.testing.assert_close(twice, -2 * v)
    huge = torch.full((2, 9), 3e38)
    assert fl_detector_change(torch.ones(2, 9), huge, torch.full((9,), 10.0)).tolist() == [0.0] * 9


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"shapes \(m, d\), \(m, d\) and \(d,\); got"):
        fl_detector_change(torch.ones(2, 3), torch.ones(2, 3), torch.ones(4))


def variation(values, k):
    """The least sum of squares with k centres, over all ways to cut the line."""
    ordered = sorted(values)
    groups = [[ordered]] if k == 1 else [[ordered[:i], ordered[i:]] for i in range(1, len(ordered))]
    return min(sum(sum((x - np.mean(g)) ** 2 for x in g) for g in cut) for cut in groups)


def brute_force(scores, references, seed, round):
    low, high = min(scores), max(scores)
    values = [(x - low) / (high - low) for x in scores]
    drawn = torch.rand(
        references, len(scores), generator=generator(seed, round, purpose="fl_detector"), dtype=torch.float64
    ).tolist()
    logs = {k: [math.log(variation(row, k)) for row in drawn] for k in (1, 2)}
    gap = {k: np.mean(logs[k]) - math.log(max(variation(values, k), 1e-12)) for k in (1, 2)}
    if gap[1] - gap[2] + math.sqrt(1 + 1 / references) * np.std(logs[2]) >= 0:
        return [False] * len(scores)
    ordered = sorted(values)
    cuts = range(1, len(ordered))
    cut = min(cuts, key=lambda i: variation(ordered[:i], 1) + variation(ordered[i:], 1))
    suspects = [x > ordered[cut - 1] for x in values]
    return suspects if 2 * sum(suspects) < len(scores) else [False] * len(scores)


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_the_gap_statistic_in_loops(apart, seed):
    scores = draw(seed, 5 + seed) * 0.3
    scores[: 1 + seed // 3] += apart
    expected = brute_force(scores.tolist(), 10, seed, 3)
    assert fl_detector_suspects(scores, 10, seed, 3).tolist() == expected
    assert fl_detector_suspects(7 * scores + 3, 10, seed, 3).tolist() == expected
    assert fl_detector_suspects(scores.flip(0), 10, seed, 3).flip(0).tolist() == expected


def test_finds_the_higher_of_two_clusters_and_nobody_in_one():
    found = alarms = 0
    for seed in range(30):
        scores = 1 + 0.1 * draw(seed, 20)
        alarms += int(fl_detector_suspects(scores, round=seed).any())
        scores[16:] += 2
        found += int(fl_detector_suspects(scores, round=seed).tolist() == [False] * 16 + [True] * 4)
    assert found == 30
    assert alarms <= 2


def test_few_equal_and_mostly_high_scores_have_no_suspects():
    for scores in ([1.0], [1.0, 9.0], [3.0] * 8, [0.0, 0.0, 0.1, 9.0, 9.0, 9.1], []):
        assert not fl_detector_suspects(torch.tensor(scores)).any()
    with pytest.raises(ConfigError, match="vector of finite numbers"):
        fl_detector_suspects(torch.tensor([1.0, math.nan]))
