import math

import numpy as np
import pytest
import torch

from flsec.aggregation.sign_guard import sign_guard, sign_guard_filter, sign_shares
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator
from tests.support.claims import HONEST, HOSTILE, attacked, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def found(u, similarity="none", previous=None, seed=0, round=1):
    return sign_guard_filter(u, similarity, previous, 0.1, 3.0, 0.1, 0.5, seed, round)


def mean_shift(points, quantile=0.5):
    """Labels of a flat mean shift from every point, in loops."""
    n = len(points)
    nearest = [sorted(math.dist(p, q) for q in points) for p in points]
    width = max(sum(line[max(1, int(n * quantile)) - 1] for line in nearest) / n, 1e-6)
    centres = {}
    for start in points:
        centre = start
        for _ in range(300):
            inside = [p for p in points if math.dist(p, centre) <= width]
            moved = tuple(np.mean(inside, axis=0))
            step, centre = math.dist(moved, centre), moved
            if step <= 1e-3 * width:
                break
        centres[centre] = len(inside)
    kept = []
    for centre in sorted(centres, key=lambda c: (centres[c], c), reverse=True):
        if all(math.dist(centre, other) > width for other in kept):
            kept.append(centre)
    return [min(range(len(kept)), key=lambda k: math.dist(p, kept[k])) for p in points]


def brute_force(u, similarity, previous, round):
    rows = u.tolist()
    norms = [math.hypot(*row) for row in rows]
    middle = float(np.median(norms))
    columns = numpy_generator(0, round, purpose="sign_guard").choice(u.shape[1], math.ceil(u.shape[1] / 10), False)
    points = []
    for row, norm in zip(rows, norms, strict=True):
        signs = [np.sign(row[c]) for c in columns]
        point = [signs.count(s) / len(signs) for s in (1, 0, -1)]
        if similarity == "cosine":
            point.append(sum(map(math.prod, zip(row, previous, strict=True))) / norm / math.hypot(*previous))
        if similarity == "distance":
            point.append(math.dist(row, previous) / float(np.median([math.dist(r, previous) for r in rows])))
        points.append(tuple(point))
    labels = mean_shift(points)

    def rank(k):
        return labels.count(k), -np.mean([m for m, x in zip(norms, labels, strict=True) if x == k])

    largest = max(set(labels), key=rank)
    kept = [x == largest and 0.1 * middle <= m <= 3 * middle for m, x in zip(norms, labels, strict=True)]
    total = sum(np.array(row) * min(1, middle / m) for row, m, k in zip(rows, norms, kept, strict=True) if k)
    return kept, total / max(1, sum(kept))


@pytest.mark.parametrize("similarity", ["none", "cosine", "distance"])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_algorithm_in_loops(similarity, seed):
    u = draw(seed, 6 + seed, 200) * torch.linspace(0.05, 4, 6 + seed, dtype=torch.float64)[:, None] ** 1.2
    u[:, ::7] = 0
    previous = draw(100 + seed, 1, 200)[0]
    kept, mean = brute_force(u, similarity, previous.tolist(), round=seed)
    assert found(u, similarity, previous, round=seed).kept.tolist() == kept
    result = sign_guard(u, similarity, previous, round=seed)
    torch.testing.assert_close(result, torch.as_tensor(mean, dtype=torch.float64))


def test_the_shares_are_those_of_positive_zero_and_negative_values():
    shares = sign_shares(torch.tensor([[1.0, 2.0, 0.0, -3.0], [-0.0, 0.0, 0.0, 1e-30]]))
    assert shares.tolist() == [[0.5, 0.25, 0.25], [0.25, 0.75, 0.0]]


@pytest.mark.parametrize("similarity", ["none", "cosine", "distance"])
@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_are_dropped_and_honest_rows_are_kept(similarity, attack):
    kept_honest = 0
    for seed in range(4):
        rows = attacked(seed, attack)
        kept = found(rows, similarity, previous=honest(seed).mean(dim=0)).kept
        assert not kept[HONEST:].any()
        kept_honest += int(kept[:HONEST].sum())
    assert kept_honest >= 0.9 * 4 * HONEST


def test_where_nobody_attacks_most_are_kept():
    kept = sum(int(found(honest(seed, HONEST + HOSTILE)).kept.sum()) for seed in range(10))
    assert kept > 10 * (HONEST + HOSTILE) / 2


def test_long_and_short_rows_are_dropped_whatever_their_signs():
    rows = honest(1, 1).repeat(9, 1) * torch.tensor([1.0] * 5 + [0.09, 0.11, 2.9, 3.1])[:, None]
    assert found(rows).kept.tolist() == [True] * 5 + [False, True, True, False]
    torch.testing.assert_close(found(rows).scores, torch.tensor([1.0] * 5 + [0.09, 0.11, 2.9, 3.1]).double())
    torch.testing.assert_close(sign_guard(rows), rows[0] * (6 + 0.11) / 7)


def test_other_coordinates_are_looked_at_in_another_round():
    rows = honest(2, 12, d=60, common=0.0)
    chosen = {tuple(found(rows, round=number).kept.tolist()) for number in range(1, 9)}
    assert len(chosen) > 1
    assert found(rows, seed=3).kept.tolist() == found(rows, seed=3).kept.tolist()


def test_without_a_previous_aggregate_the_variants_are_the_plain_rule():
    rows = attacked(3, "shift")
    for previous in (None, torch.zeros(rows.shape[1])):
        for similarity in ("cosine", "distance"):
            assert torch.equal(sign_guard(rows, similarity, previous), sign_guard(rows))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_rows_zero_rows_and_few_rows(n):
    row = honest(4, 1, d=30)
    torch.testing.assert_close(sign_guard(row.repeat(n, 1)), row[0])
    assert not sign_guard(torch.zeros(n, 30)).any()
    assert found(torch.zeros(n, 30)).kept.all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows = honest(5)
    hostile = torch.cat([rows, torch.full((3, rows.shape[1]), value)])
    assert torch.equal(sign_guard(hostile), sign_guard(rows))
    assert not sign_guard(hostile[-3:]).any()


@pytest.mark.parametrize(
    "setting",
    [{"lower": 0.0}, {"lower": 1.0}, {"upper": 1.0}, {"fraction": 1.5}, {"quantile": 0}, {"similarity": "L1"}],
)
def test_refuses_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        sign_guard(honest(0, 4), **setting)
