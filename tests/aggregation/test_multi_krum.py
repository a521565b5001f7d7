import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import krum, krum_scores, multi_krum, multi_krum_selection
from tests.aggregation import brute_force
from tests.aggregation.brute_force import honest


@given(seed=st.integers(0, 10**6), f=st.integers(0, 3), extra=st.integers(0, 4), part=st.floats(0, 1))
@settings(deadline=None)
def test_is_the_mean_of_the_m_lowest_scores(seed, f, extra, part):
    n = 2 * f + 3 + extra
    m = 1 + round(part * (n - f - 1))
    u = honest(seed, n, 4)
    scores = brute_force.krum_scores(u, f)
    selected = multi_krum_selection(u, f, m).tolist()
    assert selected == sorted(set(selected))
    assert len(selected) == m
    left = [scores[i] for i in range(n) if i not in selected]
    assert max(scores[i] for i in selected) <= min(left, default=torch.inf) * (1 + 1e-12)
    torch.testing.assert_close(multi_krum(u, f, m), sum(u[i] for i in selected) / m)  # divided: a mean, not a sum


def test_one_selected_is_krum():
    u = honest(1, 9, 4)
    assert torch.equal(multi_krum(u, 2, 1), krum(u, 2))


def test_default_keeps_n_minus_f():
    u = honest(1, 9, 4)
    assert len(multi_krum_selection(u, 2)) == 7
    assert torch.equal(multi_krum(u, 2), multi_krum(u, 2, 7))


def test_ties_go_to_the_first_rows():
    assert multi_krum_selection(torch.ones(7, 2), 1, 3).tolist() == [0, 1, 2]
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # all scores equal
    assert multi_krum_selection(square, 0, 2).tolist() == [0, 1]


def test_drops_the_far_rows_and_only_those():
    u = honest(2, 10, 4)
    u[[1, 4]] *= 1e12
    assert multi_krum_selection(u, 2).tolist() == [0, 2, 3, 5, 6, 7, 8, 9]
    torch.testing.assert_close(multi_krum(u, 2), u[[0, 2, 3, 5, 6, 7, 8, 9]].mean(dim=0))


def test_small_cohorts_give_numbers():
    assert multi_krum(torch.tensor([[1.0], [2.0], [4.0]]), 0).item() == pytest.approx(7 / 3)


@pytest.mark.parametrize("num_selected", [0, -1, 9, 2.5])
def test_m_out_of_range(num_selected):
    with pytest.raises(
        ConfigError, match=rf"1 <= num_selected <= n - num_byzantine = 8; got num_selected={num_selected}"
    ):
        multi_krum(torch.zeros(9, 2), 1, num_selected)


def test_too_few_clients():
    with pytest.raises(ConfigError, match=r"multi_krum needs .*got num_byzantine=2, n=6"):
        multi_krum(torch.zeros(6, 2), 2)


@given(seed=st.integers(0, 10**6), f=st.integers(0, 3), extra=st.integers(0, 4), neighbours=st.integers(1, 20))
@settings(deadline=None)
def test_neighbours_can_be_counted_otherwise(seed, f, extra, neighbours):
    n = 2 * f + 3 + extra
    u = honest(seed, n, 4)
    scores = brute_force.krum_scores(u, f, neighbours=min(neighbours, n - 1))
    torch.testing.assert_close(
        krum_scores(u, f, num_neighbors=neighbours), torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert torch.equal(krum(u, f, num_neighbors=neighbours), u[scores.index(min(scores))])
    lowest = sorted(sorted(range(n), key=lambda i: scores[i])[: n - f])
    assert multi_krum_selection(u, f, num_neighbors=neighbours).tolist() == lowest


@pytest.mark.parametrize("neighbours", [None, 2])
@pytest.mark.parametrize("seed", range(5))
def test_iterative_selection_asks_krum_again_and_again(seed, neighbours):
    u, f, m = honest(seed, 11, 4), 2, 6
    left, picked = list(range(11)), []
    for _ in range(m):
        counted = min(len(left) - 1, max(1, len(left) - f - 2) if neighbours is None else neighbours)
        scores = brute_force.krum_scores(u[left], f, neighbours=counted)
        picked.append(left.pop(scores.index(min(scores))))
    assert multi_krum_selection(u, f, m, num_neighbors=neighbours, selection="iterative").tolist() == sorted(picked)
    mean = multi_krum(u, f, m, num_neighbors=neighbours, selection="iterative")
    torch.testing.assert_close(mean, u[sorted(picked)].mean(dim=0))


def test_iterative_selection_differs_where_a_pair_of_attackers_agrees():
    """Of few rows that are left, one neighbour counts, and two that are alike have the lowest score."""
    u = honest(3, 9, 4)
    u[[7, 8]] = u[7] * 0 + 50.0
    assert {7, 8}.isdisjoint(multi_krum_selection(u, 2).tolist())
    assert {7, 8} & set(multi_krum_selection(u, 2, selection="iterative").tolist())


@pytest.mark.parametrize("wrong", [{"num_neighbors": 0}, {"num_neighbors": 1.5}, {"selection": "twice"}])
def test_other_readings_are_checked(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        multi_krum(torch.zeros(9, 2), 1, **wrong)
