import itertools
import math

import numpy as np
import pytest
import torch

from flsec.aggregation.clipped_clustering import clipped_clustering, clipped_clustering_filter
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, attacked, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(a, b):
    return 1 - sum(map(math.prod, zip(a, b, strict=True))) / math.hypot(*a) / math.hypot(*b)


def brute_force(u, history):
    """Merge the two clusters of the least mean distance until two are left, in loops."""
    rows = u.tolist()
    clusters = [[i] for i in range(len(rows))]
    while len(clusters) > 2:
        pairs = itertools.combinations(range(len(clusters)), 2)

        def apart(pair):
            return np.mean([distance(rows[i], rows[j]) for i in clusters[pair[0]] for j in clusters[pair[1]]])

        first, second = min(pairs, key=apart)
        clusters[first] += clusters.pop(second)
    norms = [math.hypot(*row) for row in rows]
    kept = max(clusters, key=lambda cluster: (len(cluster), -np.mean([norms[i] for i in cluster])))
    bound = np.median(norms + history)
    mean = sum(np.array(rows[i]) * min(1, bound / norms[i]) for i in kept) / len(kept)
    scores = [np.mean([distance(row, rows[i]) if rows[i] is not row else 0 for i in kept]) for row in rows]
    return sorted(kept), mean, scores


@pytest.mark.parametrize("history", [[], [0.5], [0.1, 2.0, 30.0, 1.5, 1.4]])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_algorithm_in_loops(history, seed):
    u = draw(seed, 3 + seed, 6) * torch.linspace(0.2, 4, 3 + seed, dtype=torch.float64)[:, None]
    kept, mean, scores = brute_force(u, history)
    known = torch.tensor(history, dtype=torch.float64)
    found = clipped_clustering_filter(u, known)
    assert found.kept.nonzero().flatten().tolist() == kept
    torch.testing.assert_close(found.scores, torch.tensor(scores, dtype=torch.float64))
    torch.testing.assert_close(clipped_clustering(u, known), torch.as_tensor(mean))
    if not history:
        assert torch.equal(clipped_clustering(u), clipped_clustering(u, known))


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_are_dropped_and_honest_rows_are_kept(attack):
    for seed in range(6):
        found = clipped_clustering_filter(attacked(seed, attack), None)
        assert found.kept.tolist() == [True] * HONEST + [False] * HOSTILE
        assert found.scores[HONEST:].min() > found.scores[:HONEST].max()


def test_where_nobody_attacks_most_are_kept():
    n = HONEST + HOSTILE
    kept = [int(clipped_clustering_filter(honest(seed, n), None).kept.sum()) for seed in range(10)]
    assert min(kept) >= n / 2
    assert sum(kept) >= 0.8 * 10 * n


def test_of_halves_the_shorter_one_is_kept_in_any_order():
    rows = torch.cat([honest(0, 4), -2 * honest(0, 4)])
    for order in (torch.arange(8), torch.arange(8).flip(0)):
        kept = clipped_clustering_filter(rows[order], None).kept
        assert set(order[kept].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_rows_zero_rows_and_few_rows(n):
    row = honest(1, 1, d=30)
    torch.testing.assert_close(clipped_clustering(row.repeat(n, 1)), row[0])
    assert clipped_clustering_filter(row * torch.arange(1, n + 1)[:, None], None).kept.all()
    assert not clipped_clustering(torch.zeros(n, 30)).any()
    if n > 3:
        one = torch.zeros(n, 30)
        one[0] = row
        assert clipped_clustering(one).isfinite().all()


def test_two_rows_are_both_kept_whatever_they_are():
    rows = honest(2, 2, d=20) * torch.tensor([[1.0], [-5.0]])
    assert clipped_clustering_filter(rows, None).kept.all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows = honest(5)
    hostile = torch.cat([rows, torch.full((3, rows.shape[1]), value)])
    torch.testing.assert_close(clipped_clustering(hostile), clipped_clustering(rows))
    assert not clipped_clustering(hostile[-3:]).any()


@pytest.mark.parametrize("history", [torch.ones(2, 2), torch.tensor([1.0, -1.0]), torch.tensor([torch.nan]), [1.0]])
def test_refuses_a_history_that_is_none(history):
    with pytest.raises(ConfigError, match="history as a vector of finite norms"):
        clipped_clustering(honest(0, 4), history)
