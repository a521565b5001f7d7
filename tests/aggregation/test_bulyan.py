import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import _gram, _threads, bulyan, bulyan_second_phase, bulyan_selection, mean, multi_krum_selection
from tests.aggregation import brute_force
from tests.aggregation.brute_force import displacement, honest, with_hostile


def literal_selection(u, f):
    """Run Krum again from the start on what is left, theta times."""
    left, picked = list(range(len(u))), []
    while len(picked) < len(u) - 2 * f:
        scores = brute_force.krum_scores(u[left], f, neighbours=max(1, len(left) - f - 2))
        picked.append(left.pop(min(range(len(left)), key=scores.__getitem__)))
    return sorted(picked)


def literal_second_phase(selected, f):
    """Take the n - 4 f values closest to the median, of equally close ones the lower."""
    result = []
    for column in selected.double().T.tolist():
        ordered = sorted(column)
        middle = (ordered[(len(column) - 1) // 2] + ordered[len(column) // 2]) / 2
        nearest = sorted(ordered, key=lambda value: (abs(value - middle), value))[: len(column) - 2 * f]
        result.append(sum(nearest) / len(nearest))
    return torch.tensor(result, dtype=torch.float64)


cohorts = {"seed": st.integers(0, 10**6), "f": st.integers(0, 4), "extra": st.integers(0, 3), "d": st.integers(1, 6)}


@given(**cohorts)
@settings(deadline=None, max_examples=60)
def test_selection_is_krum_run_again_on_the_shrinking_set(seed, f, extra, d):
    u = honest(seed, 4 * f + 3 + extra, d)
    assert bulyan_selection(u, f).tolist() == literal_selection(u, f)


@given(**cohorts)
@settings(deadline=None, max_examples=60)
def test_is_the_mean_of_the_values_closest_to_the_median(seed, f, extra, d):
    u = honest(seed, 4 * f + 3 + extra, d)
    expected = literal_second_phase(u[literal_selection(u, f)], f)
    torch.testing.assert_close(bulyan(u, f), expected)
    torch.testing.assert_close(bulyan_second_phase(u[bulyan_selection(u, f)], f), expected)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_second_phase_with_ties(data):
    f = data.draw(st.integers(0, 3))
    theta = 2 * f + data.draw(st.integers(1, 5))
    values = data.draw(st.lists(st.integers(-3, 3), min_size=theta, max_size=theta))
    selected = torch.tensor(values, dtype=torch.float32)[:, None]
    torch.testing.assert_close(bulyan_second_phase(selected, f).double(), literal_second_phase(selected, f))


@given(seed=st.integers(0, 10**6), f=st.integers(0, 4), extra=st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_trimmed_mean_variant(seed, f, extra):
    u = honest(seed, 4 * f + 3 + extra, 4)
    ordered = u[literal_selection(u, f)].sort(dim=0).values
    expected = ordered[f : len(ordered) - f].mean(dim=0)
    torch.testing.assert_close(bulyan(u, f, second_phase="trimmed_mean"), expected)


def test_one_shot_selection_would_differ():
    differ = 0
    for seed in range(200):
        u = honest(seed, 15, 4)
        selected = bulyan_selection(u, 3).tolist()
        assert len(set(selected)) == 15 - 2 * 3  # indices of the whole cohort: no row twice
        differ += selected != multi_krum_selection(u, 3, 9).tolist()
    assert differ > 100


def test_has_a_second_phase():
    u = honest(0, 15, 4)
    selected = u[bulyan_selection(u, 3)]
    assert not torch.allclose(bulyan(u, 3), mean(selected))
    assert not torch.allclose(bulyan(u, 3), bulyan(u, 3, second_phase="trimmed_mean"))
    assert bulyan(u, 3).std() > 0  # a vector, not one number for all coordinates


def test_without_hostile_rows_it_is_the_mean():
    u = honest(0, 6, 4)
    torch.testing.assert_close(bulyan(u, 0), mean(u))


def test_selected_rows_that_are_far_off_in_one_coordinate_do_no_harm():
    # f rows that Krum would have let pass
    for size in (1e3, 1e12, 1e30):
        selected = honest(1, 9, 5)
        selected[:3, 2] = torch.tensor([size, size, -size], dtype=torch.float64)
        result = bulyan_second_phase(selected, 3)
        torch.testing.assert_close(result, literal_second_phase(selected, 3))
        assert displacement(result, selected[3:]) < 2.0
        assert displacement(mean(selected), selected[3:]) > 2.0


def test_copies_selected_at_the_end_do_no_harm():
    # f identical rows tie for the best score when few rows are left, and are picked
    u = with_hostile(honest(0, 15, 5), 1e12, 3)
    assert displacement(bulyan(u, 3), u[3:]) < 2.0
    assert displacement(mean(u), u[3:]) > 2.0


def test_rows_that_are_not_finite_are_not_selected():
    u = honest(0, 15, 5)
    u[[3, 8], 1], u[11] = torch.nan, -torch.inf
    assert not {3, 8, 11} & set(bulyan_selection(u, 3).tolist())


@pytest.mark.parametrize("block", [9, 40])
def test_blocks_and_threads_change_nothing(monkeypatch, block):
    u = honest(0, 15, 33).float().requires_grad_()
    expected = bulyan(u, 3)
    monkeypatch.setitem(_gram._BLOCK, "cpu", block)
    monkeypatch.setattr(_threads, "_FEW", block)
    monkeypatch.setattr(_threads, "_ELEMENTS_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(bulyan(u, 3), expected)
    assert not expected.requires_grad


@pytest.mark.parametrize(("n", "f"), [(6, 1), (10, 2), (2, 0), (15, 4), (15, -1)])
def test_too_few_clients(n, f):
    for rule in (bulyan, bulyan_selection):
        with pytest.raises(ConfigError, match=rf"bulyan needs .*4 \* num_byzantine \+ 3; got num_byzantine={f}, n={n}"):
            rule(torch.zeros(n, 2), f)


def test_wrong_settings_of_the_second_phase():
    with pytest.raises(ConfigError, match="second_phase 'mean' or 'trimmed_mean'; got 'median'"):
        bulyan(torch.zeros(7, 2), 1, second_phase="median")
    with pytest.raises(ConfigError, match=r"num_byzantine=2, 4 rows"):
        bulyan_second_phase(torch.zeros(4, 2), 2)
