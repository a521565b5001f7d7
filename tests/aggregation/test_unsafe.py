"""Rules outside their guarantee: what ``unsafe=True`` computes where n is too small, against the definitions."""

import pytest
import torch

from flsec import ConfigError
from flsec.aggregation import (
    bulyan,
    bulyan_second_phase,
    bulyan_selection,
    krum,
    krum_scores,
    multi_krum,
    multi_krum_selection,
    slsgd,
    trimmed_mean,
)
from flsec.aggregation.bulyan import second_phase_of_rows, selection_from_distances
from flsec.aggregation.krum import scores_from_distances
from tests.aggregation import brute_force
from tests.aggregation.brute_force import honest

SIZES = range(1, 9)
GRID = [(n, f) for n in SIZES for f in range(n + 2)]  # f beyond n as well
each_size = pytest.mark.parametrize(("n", "f"), GRID)


def rows(n, f, d=3):
    return honest(100 * n + f, n, d)


def scores(u, f):
    """Krum's scores by their definition, with as many neighbours as there are, and one at least."""
    return brute_force.krum_scores(u, f, neighbours=max(1, len(u) - f - 2))


def lowest(values, count):
    """The positions of the lowest values, the first of equal ones (equal to the rounding of a distance)."""
    return sorted(sorted(range(len(values)), key=lambda i: (float(f"{values[i]:.9g}"), i))[:count])


def picks(u, f):
    left, picked = list(range(len(u))), []
    while len(picked) < max(1, len(u) - 2 * f):
        picked.append(left.pop(lowest(scores(u[left], f), 1)[0]))
    return sorted(picked)


def around_the_median(selected, f):
    """Per coordinate the mean of the max(1, theta - 2 f) values nearest to the median."""
    result = []
    for column in selected.T.tolist():
        ordered = sorted(column)
        middle = (ordered[(len(column) - 1) // 2] + ordered[len(column) // 2]) / 2
        near = sorted(ordered, key=lambda value: (abs(value - middle), value))[: max(1, len(column) - 2 * f)]
        result.append(sum(near) / len(near))
    return torch.tensor(result, dtype=torch.float64)


def without_the_ends(u, b):
    """Per coordinate the mean without the b lowest and highest values, or the middle one or two where b is too many."""
    ordered = u.sort(dim=0).values
    while b and len(ordered) > 2:
        ordered, b = ordered[1:-1], b - 1
    return ordered.mean(dim=0)


@each_size
def test_krum(n, f):
    u = rows(n, f)
    expected = scores(u, f)
    torch.testing.assert_close(krum_scores(u, f, unsafe=True), torch.tensor(expected, dtype=torch.float64))
    chosen = (u == krum(u, f, unsafe=True)).all(dim=1).nonzero()[0].item()
    assert expected[chosen] <= min(expected) * (1 + 1e-12)


@each_size
@pytest.mark.parametrize("m", [None, 1, 2, 7])
def test_multi_krum(n, f, m):
    u = rows(n, f)
    count = max(1, n - f if m is None else min(m, n - f))
    selected = multi_krum_selection(u, f, m, unsafe=True)
    assert selected.tolist() == lowest(krum_scores(u, f, unsafe=True).tolist(), count)
    torch.testing.assert_close(multi_krum(u, f, m, unsafe=True), u[selected].mean(dim=0))


@each_size
def test_bulyan(n, f):
    u = rows(n, f)
    selected = bulyan_selection(u, f, unsafe=True)
    assert selected.tolist() == picks(u, f)
    torch.testing.assert_close(bulyan(u, f, unsafe=True), around_the_median(u[selected], f))
    torch.testing.assert_close(bulyan_second_phase(u, f, unsafe=True), around_the_median(u, f))
    trimmed = without_the_ends(u[selected], f)
    torch.testing.assert_close(bulyan(u, f, second_phase="trimmed_mean", unsafe=True), trimmed)


@each_size
def test_trimmed_mean_and_slsgd(n, f):
    u = rows(n, f)
    torch.testing.assert_close(trimmed_mean(u, f, unsafe=True), without_the_ends(u, f))
    torch.testing.assert_close(slsgd(u, 0.5, f, unsafe=True), without_the_ends(u, f) / 2)


CALLS = {
    "krum": lambda u, f, **more: krum(u, f, **more),
    "krum_scores": lambda u, f, **more: krum_scores(u, f, **more),
    "multi_krum": lambda u, f, **more: multi_krum(u, f, **more),
    "bulyan": lambda u, f, **more: bulyan(u, f, **more),
    "bulyan_trimmed": lambda u, f, **more: bulyan(u, f, "trimmed_mean", **more),
    "bulyan_selection": lambda u, f, **more: bulyan_selection(u, f, **more),
    "trimmed_mean": lambda u, f, **more: trimmed_mean(u, f, **more),
    "slsgd": lambda u, f, **more: slsgd(u, 0.5, f, **more),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@each_call
def test_where_the_guarantee_holds_nothing_changes(call):
    u = rows(11, 2)
    assert torch.equal(call(u, 2, unsafe=True), call(u, 2))


@each_call
def test_it_is_refused_unless_it_is_asked_for(call):
    with pytest.raises(ConfigError, match="got num_"):
        call(rows(3, 2), 2)
    assert bool(call(rows(3, 2), 2, unsafe=True).isfinite().all())


@each_call
@pytest.mark.parametrize("f", [-1, 0.5])
def test_what_is_no_count_is_refused_all_the_same(call, f):
    with pytest.raises(ConfigError, match="whole num"):
        call(rows(9, 0), f, unsafe=True)


@pytest.mark.parametrize("m", [0, -1, 2.5])
def test_no_number_of_rows_is_refused_all_the_same(m):
    with pytest.raises(ConfigError, match=f"got num_selected={m}"):
        multi_krum(rows(3, 1), 1, m, unsafe=True)


@each_size
def test_what_wrappers_call_after_their_own_check_needs_no_leave(n, f):
    u = rows(n, f)
    distances = brute_force.squared_distances(u)
    torch.testing.assert_close(scores_from_distances(distances, f), krum_scores(u, f, unsafe=True))
    assert selection_from_distances(distances, f).tolist() == bulyan_selection(u, f, unsafe=True).tolist()
    for phase in ("mean", "trimmed_mean"):
        kept = second_phase_of_rows(u, bulyan_selection(u, f, unsafe=True), f, phase)
        assert torch.equal(kept, bulyan(u, f, phase, unsafe=True))


def test_flowers_own_case():
    """Three replies, f = 1: the nearest neighbour alone decides; the first of the two rows that are each other's."""
    u = torch.tensor([[9.0], [0.1], [0.0]])
    assert krum(u, 1, unsafe=True).tolist() == pytest.approx([0.1])
