import math

import numpy as np
import pytest
import torch

from flsec.aggregation.flame import flame, flame_filter, products_of_models
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, attacked, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(a, b):
    return 1 - sum(map(math.prod, zip(a, b, strict=True))) / math.hypot(*a) / math.hypot(*b)


def joined(distances, start, most):
    """Who is reached from one row by steps of at most so much."""
    reached, todo = {start}, [start]
    while todo:
        row = distances[todo.pop()]
        new = {j for j, apart in enumerate(row) if apart <= most} - reached
        reached |= new
        todo += new
    return reached


def densest_majority(rows):
    """The first group of more than half that single linkage makes, in loops."""
    n = len(rows)
    distances = [[distance(a, b) if a is not b else 0 for b in rows] for a in rows]
    for most in sorted({apart for row in distances for apart in row}):
        groups = [joined(distances, start, most + 1e-12) for start in range(n)]
        if len(largest := max(groups, key=len)) >= n // 2 + 1:
            return sorted(largest), distances
    raise AssertionError("all rows are joined in the end")


@pytest.mark.parametrize("around", [None, 3.0])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_the_algorithm_in_loops(around, seed):
    n = 3 + seed
    u = draw(seed, n, 5) * torch.linspace(0.2, 4, n, dtype=torch.float64)[:, None]
    model = None if around is None else around * draw(50 + seed, 1, 5)[0]
    kept, distances = densest_majority((u if model is None else model + u).tolist())
    norms = [math.hypot(*row) for row in u.tolist()]
    middle = np.median(norms)
    mean = sum(np.array(u[i]) * min(1, middle / norms[i]) for i in kept) / len(kept)
    found = flame_filter(u, model)
    assert found.kept.nonzero().flatten().tolist() == kept
    assert found.max_norm == pytest.approx(middle)  # of all, not of those kept
    scores = torch.tensor(distances, dtype=torch.float64)[:, kept].mean(dim=1)
    torch.testing.assert_close(found.scores, scores)
    torch.testing.assert_close(flame(u, noise=0.0, model=model), torch.as_tensor(mean))


def test_products_of_models_are_those_of_the_sums():
    u, model = draw(1, 7, 40), 1e3 * draw(2, 1, 40)[0]
    torch.testing.assert_close(products_of_models(u, model, u @ u.T), (u + model) @ (u + model).T)


def test_copies_and_ties_are_one_group():
    u = draw(3, 9, 4).sign()
    u[:5] = u[0]
    kept, _ = densest_majority(u.tolist())
    assert flame_filter(u, None).kept.nonzero().flatten().tolist() == kept


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_are_dropped_and_a_majority_of_honest_rows_is_kept(attack):
    model = 2 * honest(9, 1)[0]
    for seed in range(6):
        for around in (None, model):
            kept = flame_filter(attacked(seed, attack), around).kept
            assert not kept[HONEST:].any()
            assert int(kept.sum()) > (HONEST + HOSTILE) / 2


def test_where_nobody_attacks_hardly_more_than_half_are_kept():
    n = HONEST + HOSTILE
    kept = [int(flame_filter(honest(seed, n), None).kept.sum()) for seed in range(10)]
    assert min(kept) > n / 2
    assert sum(kept) < 0.75 * 10 * n  # as its docstring says


def test_noise_has_the_size_of_the_median_norm_and_is_the_same_for_every_dtype():
    rows = honest(4, 9, d=20_000)
    silent = flame(rows, noise=0.0)
    for noise in (0.001, 0.01):
        added = flame(rows, noise=noise, seed=1) - silent
        expected = noise * float(rows.norm(dim=1).median())
        assert float(added.std()) == pytest.approx(expected, rel=0.05)
        assert abs(float(added.mean())) < expected / 20
    again = flame(rows.double(), seed=1, round=2)
    torch.testing.assert_close(flame(rows, seed=1, round=2).double(), again, rtol=1e-4, atol=1e-5)
    assert not torch.equal(flame(rows, seed=1, round=2), flame(rows, seed=1, round=3))
    assert not torch.equal(flame(rows, seed=1), flame(rows, seed=2))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_rows_zero_rows_and_few_rows(n):
    row = honest(5, 1, d=30)
    torch.testing.assert_close(flame(row.repeat(n, 1), noise=0.0), row[0])
    assert flame_filter(row.repeat(n, 1), None).kept.all()
    assert not flame(torch.zeros(n, 30)).any()  # no noise either: it follows the norm
    assert flame_filter(honest(6, 2, d=30), None).kept.all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows = honest(7)
    hostile = torch.cat([rows, torch.full((3, rows.shape[1]), value)])
    torch.testing.assert_close(flame(hostile), flame(rows))
    assert not flame(hostile[-3:]).any()


def test_refuses_settings_out_of_range():
    with pytest.raises(ConfigError, match="0 <= noise < inf; got noise=-1"):
        flame(honest(0, 4), noise=-1.0)
    with pytest.raises(ConfigError, match=r"model as a tensor of shape \(1500,\); got \(3,\)"):
        flame(honest(0, 4), model=torch.ones(3))
