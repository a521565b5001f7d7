import math

import numpy as np
import pytest
import torch

from flsec.aggregation.align_ins import align_ins, align_ins_filter
from flsec.errors import ConfigError
from tests.support.claims import HONEST, HOSTILE, attacked, honest


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sign(x):
    return (x > 0) - (x < 0)


def z_scores(values):
    return [abs(v - np.median(values)) / np.std(values) for v in values]


def by_hand(rows, model, radii, share):
    """Both measures, who is kept and the clipped mean, in loops over float64."""
    d = len(model)
    directions = [
        sum(a * b for a, b in zip(row, model, strict=True)) / math.hypot(*row) / math.hypot(*model) for row in rows
    ]
    principal = [sign(sum(sign(row[j]) for row in rows)) for j in range(d)]
    count = max(1, math.floor(share * d))
    largest = [sorted(range(d), key=lambda j: -abs(row[j]))[:count] for row in rows]
    signs = [sum(sign(row[j]) == principal[j] for j in top) / count for row, top in zip(rows, largest, strict=True)]
    pairs = zip(z_scores(directions), z_scores(signs), strict=True)
    kept = [i for i, (a, b) in enumerate(pairs) if a <= radii[0] and b <= radii[1]]
    norms = [math.hypot(*row) for row in rows]
    bound = np.median([norms[i] for i in kept]) if kept else 0
    means = {}
    for name, most in (("kept", bound), ("smaller", min(bound, np.median(norms)))):
        shares = {i: min(1, most / norms[i]) / len(kept) for i in kept}
        means[name] = [sum(shares[i] * rows[i][j] for i in kept) for j in range(d)]
    return directions, signs, kept, means


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_the_definition_in_loops(seed):
    n, d = 4 + seed, 5 + 3 * seed
    rows = draw(seed, n, d) * torch.linspace(0.2, 4, n, dtype=torch.float64)[:, None]
    model, radii, share = draw(50 + seed, 1, d)[0], (0.8 + 0.1 * seed, 1.9 - 0.1 * seed), 0.2 + 0.05 * seed
    directions, signs, kept, means = by_hand(rows.tolist(), model.tolist(), radii, share)
    found = align_ins_filter(rows, model, *radii, share, "kept")
    assert found.directions.tolist() == pytest.approx(directions)
    assert found.signs.tolist() == pytest.approx(signs)
    assert found.filtered.kept.nonzero().flatten().tolist() == kept
    for bound, mean in means.items():
        result = align_ins(rows, model, *radii, share, bound)
        torch.testing.assert_close(result, torch.tensor(mean, dtype=torch.float64))


def test_equally_large_entries_share_the_places_that_are_left():
    rows = torch.tensor([[9.0, 1.0, -1.0, 1.0], [9.0, 1.0, 1.0, 1.0], [9.0, 1.0, 1.0, 1.0]])
    found = align_ins_filter(rows, torch.zeros(4), 1.0, 1.0, 0.5, "kept")  # two places: the 9, and a third of each 1
    assert found.signs.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1, 1])


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_are_dropped_and_many_honest_rows_are_kept(attack):
    kept = 0
    for seed in range(6):
        model = 2 * honest(seed, 1, common=1.0)[0]
        found = align_ins_filter(attacked(seed, attack), model, 1.0, 1.0, 0.3, "smaller").filtered
        assert not found.kept[HONEST:].any()
        kept += int(found.kept.sum())
    assert kept > 0.5 * 6 * HONEST


def test_where_nobody_attacks_radii_of_one_drop_many_and_wide_ones_nobody():
    n = HONEST + HOSTILE
    rows = [honest(seed, n) for seed in range(8)]
    kept = [
        [int(align_ins_filter(u, honest(99, 1)[0], radius, radius, 0.3, "kept").filtered.kept.sum()) for u in rows]
        for radius in (1.0, 5.0)
    ]
    assert 0.25 * n < np.mean(kept[0]) < 0.8 * n  # as the docstring says
    assert kept[1] == [n] * 8


def test_measures_that_do_not_vary_drop_nobody():
    """0 / 0 in a z-score is no verdict: rows of one direction are all kept, whatever their lengths."""
    row, lengths = draw(1, 1, 40)[0], torch.linspace(1, 3, 7, dtype=torch.float64)[:, None]
    for dtype in (torch.float32, torch.float64):
        rows = (lengths * row).to(dtype)
        assert align_ins_filter(rows, draw(2, 1, 40)[0].to(dtype), 1.0, 1.0, 0.3, "kept").filtered.kept.all()
        torch.testing.assert_close(align_ins(rows, row.to(dtype)), ((1 + 4 / 3 + 5 / 3 + 4 * 2) / 7 * row).to(dtype))


def test_a_model_of_zeros_has_no_direction():
    rows = draw(3, 9, 30)
    found = align_ins_filter(rows, torch.zeros(30, dtype=torch.float64), 1.0, 1.0, 0.3, "kept")
    assert not found.directions.any()
    signs = torch.tensor(z_scores(found.signs.tolist()))
    assert torch.equal(found.filtered.kept, signs <= 1)


def test_hostile_rows_that_are_half_of_those_kept_set_the_papers_bound_but_not_the_smaller_one():
    rows = honest(1, 11, d=300).double()
    hostile = torch.cat([rows, 1e12 * rows[:4]])
    wide = {"direction_radius": 9.0, "sign_radius": 9.0}
    usual = float(rows.norm(dim=1).max())
    assert float(align_ins(hostile, rows[0], **wide).norm()) <= usual
    few = torch.cat([rows[:2], 1e12 * rows[:2]])
    assert float(align_ins(few, rows[0], bound="kept", **wide).norm()) > 1e6 * usual


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows, model = honest(7, d=200), honest(8, 1, d=200)[0]
    hostile = torch.cat([rows, torch.full((3, 200), value)])
    torch.testing.assert_close(align_ins(hostile, model), align_ins(rows, model))
    assert not align_ins(hostile[-3:], model).any()


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_rows_all_count(n):
    """Two are always one standard deviation from their median, but for rounding."""
    for seed in range(20):
        rows = torch.nn.functional.normalize(draw(seed, n, 9))
        torch.testing.assert_close(align_ins(rows, torch.ones(9).double()), rows.mean(dim=0))


def test_refuses_settings_out_of_range():
    rows = honest(0, 4, d=9)
    with pytest.raises(ConfigError, match=r"model, the global parameters, of shape \(9,\); got \(3,\)"):
        align_ins(rows, torch.ones(3))
    with pytest.raises(ConfigError, match=r"share=1\.5"):
        align_ins(rows, torch.ones(9), share=1.5)
    with pytest.raises(ConfigError, match="bound 'smaller' or 'kept'; got 'all'"):
        align_ins(rows, torch.ones(9), bound="all")
