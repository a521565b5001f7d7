import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from flsec.aggregation._two_means import two_means
from flsec.aggregation.auror import auror_suspicions
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cuts(column):
    """(variation, members of the lower part) of every place to cut a column."""
    order = sorted(range(len(column)), key=lambda i: column[i])
    for count in range(1, len(column)):
        parts = order[:count], order[count:]
        yield sum(float(np.var(column[part])) * len(part) for part in parts), parts


def by_hand(rows, min_distance, unit):
    suspected, indicative = np.zeros(len(rows)), 0
    for column in rows.T:
        variation, (lower, upper) = min(cuts(column), key=lambda cut: cut[0])
        distance = column[upper].mean() - column[lower].mean()
        if distance < min_distance * (np.sqrt(variation / len(column)) if unit == "spread" else 1):
            continue
        if len(lower) != len(upper):
            indicative += 1
            suspected[min(lower, upper, key=len)] += 1
    return suspected / max(1, indicative), indicative


@pytest.mark.parametrize("unit", ["spread", "parameters"])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_definition_in_loops(seed, unit):
    rows = draw(seed, 4 + seed, 40)
    rows[:2, ::3] += 5
    distance = {"spread": 3.0 + 0.2 * seed, "parameters": 1.5 + 0.3 * seed}[unit]
    expected, indicative = by_hand(rows.numpy(), distance, unit)
    assert 0 < indicative < 40
    assert auror_suspicions(rows, distance, unit).tolist() == pytest.approx(expected.tolist())


def test_the_cut_is_the_best_that_k_means_finds():
    rows = draw(3, 20, 11).sort(dim=1).values
    found = two_means(rows)
    for row, parts, count in zip(rows.numpy(), found.parts, found.lower, strict=True):
        best = KMeans(2, n_init=20, random_state=0).fit(row[:, None])
        assert float(parts) == pytest.approx(best.inertia_)
        assert min(count, 11 - count) == min(np.bincount(best.labels_))


def test_shift_and_a_factor_of_each_coordinate_do_not_matter():
    rows, factors = draw(1, 9, 60), 10 ** draw(2, 1, 60)
    expected = auror_suspicions(rows, 4.0)
    assert expected.any()
    torch.testing.assert_close(auror_suspicions(factors * (rows + 3), 4.0), expected)


def test_a_minority_that_shifts_some_coordinates_is_on_the_smaller_side_and_hardly_anybody_else():
    for seed in range(5):
        rows = honest(seed, HONEST + HOSTILE)
        rows[HONEST:, :100] += 15  # of 1500
        found = auror_suspicions(rows)
        assert (found[HONEST:] > 0.8).all()
        assert (found[:HONEST] < 0.2).all()


def test_groups_of_equal_size_and_values_that_do_not_vary_indicate_nothing():
    assert not auror_suspicions(torch.tensor([[0.0], [0.1], [5.0], [5.1]])).any()
    assert not auror_suspicions(torch.ones(5, 3)).any()
    assert not auror_suspicions(torch.tensor([[0.0], [9.0]])).any()  # two rows have no majority
    assert auror_suspicions(torch.tensor([[0.0], [0.0], [0.0], [1e-6]])).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [1e4, 1e12, 1e30])
def test_huge_rows_are_the_smaller_group_whatever_their_size(size):
    rows = honest(2, 15, d=80)
    rows[11:] = size * draw(4, 1, 80, torch.float32)
    assert auror_suspicions(rows).tolist() == [0] * 11 + [1] * 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_are_suspected_and_change_nothing_for_others(value):
    rows = draw(7, 8, 50)
    hostile = torch.cat([rows, torch.full((3, 50), value, dtype=torch.float64)])
    expected = torch.cat([auror_suspicions(rows, 3.5), torch.ones(3, dtype=torch.float64)])
    torch.testing.assert_close(auror_suspicions(hostile, 3.5), expected)


def test_refuses_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"unit='metres'"):
        auror_suspicions(draw(0, 4, 3), unit="metres")
    with pytest.raises(ConfigError, match="min_distance=0"):
        auror_suspicions(draw(0, 4, 3), min_distance=0)
