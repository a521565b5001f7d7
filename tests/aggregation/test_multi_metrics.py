import math

import numpy as np
import pytest
import torch

from flsec.aggregation.multi_metrics import lowest_share, multi_metrics_scores
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, attacked


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(u, model):
    measures = []
    for row in u.tolist():
        local = [x + w for x, w in zip(row, model, strict=True)]
        cosine = sum(map(math.prod, zip(local, model, strict=True))) / math.hypot(*local) / math.hypot(*model)
        measures.append([sum(map(abs, row)), math.hypot(*row), cosine])
    sums = [[sum(abs(a[k] - b[k]) for b in measures) for k in range(3)] for a in measures]
    inverse = np.linalg.inv(np.cov(np.array(sums).T))
    return [math.sqrt(np.array(x) @ inverse @ np.array(x)) for x in sums]


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_definition_in_loops(seed):
    u, model = draw(seed, 5 + seed, 7), draw(30 + seed, 1, 7)[0]
    expected = torch.tensor(brute_force(u, model.tolist()), dtype=torch.float64)
    torch.testing.assert_close(multi_metrics_scores(u, model), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(multi_metrics_scores(1e3 * u, 1e3 * model), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_no_colluder_is_among_the_lowest_scores(attack):
    for seed in range(6):
        model = 5 * draw(seed, 1, 1500)[0]
        kept = lowest_share(multi_metrics_scores(attacked(seed, attack), model), 0.3)
        assert int(kept.sum()) == int(0.3 * (HONEST + HOSTILE))
        assert not kept[HONEST:].any()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_rows_zero_rows_and_few_rows(n):
    model = draw(9, 1, 30)[0]
    for rows in (draw(2, 1, 30).repeat(n, 1), torch.zeros(n, 30), draw(3, n, 30), -model.repeat(n, 1)):
        for around in (model, None, torch.zeros(30)):
            scores = multi_metrics_scores(rows, around)
            assert scores.isfinite().all()
            assert int(lowest_share(scores, 0.3).sum()) == max(1, int(0.3 * n))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows, model = draw(4, 9, 20), draw(5, 1, 20)[0]
    scores = multi_metrics_scores(torch.cat([rows, torch.full((3, 20), value, dtype=torch.float64)]), model)
    torch.testing.assert_close(scores[:9], multi_metrics_scores(rows, model))
    assert scores[9:].tolist() == [math.inf] * 3
    assert not lowest_share(scores[9:], 0.3).any()


def test_refuses_a_model_of_another_size():
    with pytest.raises(ConfigError, match=r"model of shape \(3,\); got \(4,\)"):
        multi_metrics_scores(draw(5, 4, 3), torch.ones(4))
