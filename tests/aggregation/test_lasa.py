import math

import numpy as np
import pytest
import torch

from flsec.aggregation.lasa import lasa, lasa_layers
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def z_scores(values):
    spread = np.std(values)
    return [abs(v - np.median(values)) / spread if spread else 0 for v in values]


def by_hand(rows, layers, radii, sparsity):
    """Who counts in which layer, and the mean, in loops over float64."""
    n, d = rows.shape
    norms = [math.hypot(*row) for row in rows]
    bound = np.median(norms)
    clipped = np.array([row * min(1, bound / norm) for row, norm in zip(rows, norms, strict=True)])
    for row in clipped:
        for j in sorted(range(d), key=lambda j: abs(row[j]))[: math.floor(sparsity * d)]:
            row[j] = 0.0
    kept, mean, start = [], [], 0
    for size in layers:
        part = clipped[:, start : start + size]
        sizes = [math.sqrt(sum(x * x for x in row)) for row in part]
        purities = []
        for row in part:
            positive, negative = sum(x > 0 for x in row), sum(x < 0 for x in row)
            both = positive + negative
            purities.append(0.5 * (1 + (positive - negative) / both) if both else 0.5)
        pairs = list(zip(z_scores(sizes), z_scores(purities), strict=True))
        kept.append([i for i in range(n) if pairs[i][0] <= radii[0] and pairs[i][1] <= radii[1]])
        mean.append(part[kept[-1]].mean(axis=0) if kept[-1] else np.zeros(size))
        start += size
    return kept, np.concatenate(mean)


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_the_definition_in_loops(seed):
    n, layers = 3 + seed, [4, 1, 7, 2 + seed]
    rows = draw(seed, n, sum(layers)) * torch.linspace(0.2, 4, n, dtype=torch.float64)[:, None]
    radii, sparsity = (0.6 + 0.15 * seed, 2.0 - 0.1 * seed), 0.07 * seed
    kept, mean = by_hand(rows.numpy(), layers, radii, sparsity)
    found = lasa_layers(rows, layers, *radii, sparsity)
    assert [column.nonzero().flatten().tolist() for column in found.kept.T] == kept
    torch.testing.assert_close(lasa(rows, layers, *radii, sparsity), torch.from_numpy(mean))


@pytest.mark.parametrize("attack", [lambda own: -4 * own, lambda own: own - 2, lambda own: 9 * own.abs()])
def test_colluders_are_left_out_of_layers_that_most_honest_rows_count_in(attack):
    """Honest steps have more positive entries than negative; reversed, shifted or of one sign, they have others."""
    kept = []
    for seed in range(6):
        rows = honest(seed, HONEST + HOSTILE) + 0.5
        rows[HONEST:] = attack(rows[HONEST:])
        found = lasa_layers(rows, [700, 800], 2.0, 1.0, 0.3)
        assert not found.kept[HONEST:].any()
        kept.append(float(found.kept[:HONEST].double().mean()))
    assert np.mean(kept) > 0.9


def test_where_nobody_attacks_most_count():
    found = [lasa_layers(honest(seed, HONEST + HOSTILE), [500, 1000], 2.0, 1.0, 0.3).kept for seed in range(6)]
    assert torch.stack(found).double().mean() > 0.5


def test_a_row_without_entries_in_a_layer_does_not_switch_its_filter_off():
    """Its purity would be 0 / 0, and with it everybody's z-score; then all rows, also hostile ones, were averaged."""
    rows = honest(1, 12, d=40).double().abs()
    rows[:3] *= -5
    rows[3, :20] = 0
    kept = lasa_layers(rows, [20, 20], 2.0, 1.0, 0.3).kept
    assert not kept[:3].any()
    assert kept[4:].double().mean() > 0.5


def test_a_layer_in_which_nobody_counts_stays_as_it_was():
    rows = torch.tensor([[1.0, 5.0], [-1.0, 5.0], [2.0, 5.0], [-2.0, 5.0]], dtype=torch.float64)
    kept = lasa_layers(rows, [1, 1], 9.0, 0.01, 0.0).kept
    assert kept.any(dim=0).tolist() == [False, True]
    result = lasa(rows, [1, 1], 9.0, 0.01, 0.0)
    assert result[0] == 0
    assert result[1] > 4


def test_layers_that_are_the_same_for_all_keep_all_and_empty_ones_do_no_harm():
    row = draw(2, 1, 9)[0]
    torch.testing.assert_close(lasa(row.repeat(5, 1), [4, 0, 5], sparsity=0.0), row)
    assert not lasa(torch.zeros(5, 9), [9]).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows = honest(7, d=200)
    hostile = torch.cat([rows, torch.full((3, 200), value)])
    torch.testing.assert_close(lasa(hostile, [50, 150]), lasa(rows, [50, 150]))
    assert not lasa(hostile[-3:], [50, 150]).any()


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_rows_all_count(n):
    """Two are always one standard deviation from their median, but for rounding."""
    for seed in range(20):
        rows = torch.nn.functional.normalize(draw(seed, n, 9))
        torch.testing.assert_close(lasa(rows, [4, 5], sparsity=0.0), rows.mean(dim=0))


def test_refuses_settings_out_of_range():
    with pytest.raises(ConfigError, match="layers as whole numbers that are 1500 in all; got"):
        lasa(honest(0, 4), [1499])
    with pytest.raises(ConfigError, match=r"sparsity=1\.0"):
        lasa(honest(0, 4), [1500], sparsity=1.0)
