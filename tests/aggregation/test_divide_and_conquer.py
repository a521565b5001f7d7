import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import caf, divide_and_conquer
from flsec.aggregation.divide_and_conquer import rows_kept
from flsec.randomness import generator
from tests.aggregation.brute_force import displacement, honest, with_hostile


def literal(u, dropped, num_iterations=1, subsample=10_000, seed=0, round=1):
    """The paper's algorithm with a singular value decomposition; which rows stay in each iteration."""
    source, kept = generator(seed, round, purpose="divide_and_conquer"), set(range(len(u)))
    for _ in range(num_iterations):
        columns = torch.randperm(u.shape[1], generator=source)[:subsample]
        rows = u[:, columns].double().numpy()
        centred = rows - rows.mean(axis=0)
        scores = (centred @ np.linalg.svd(centred)[2][0]) ** 2
        kept &= set(np.argsort(scores, kind="stable")[: len(u) - dropped].tolist())
    return sorted(kept)


@given(seed=st.integers(0, 10**6), f=st.integers(0, 4), extra=st.integers(2, 5), d=st.integers(2, 9))
@settings(deadline=None, max_examples=60)
def test_is_the_papers_algorithm(seed, f, extra, d):
    u = honest(seed, 2 * f + extra, d)
    torch.testing.assert_close(divide_and_conquer(u, f), u[literal(u, f)].mean(dim=0))


@given(seed=st.integers(0, 10**6), times=st.integers(1, 3), round=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_rows_that_any_iteration_drops_are_out(seed, times, round):
    u = honest(seed, 15, 40)
    kept = literal(u, 4, times, 6, seed, round)
    result = divide_and_conquer(u, 3, times, 6, filter_fraction=1.1, seed=seed, round=round)
    torch.testing.assert_close(result, u[kept].mean(dim=0))


def test_coordinates_differ_between_seeds_and_rounds_and_are_repeated():
    u = honest(0, 15, 500)

    def kept(**given):
        return rows_kept(
            u, **{"dropped": 3, "num_iterations": 1, "subsample": 5, "seed": 0, "round": 1, **given}
        ).tolist()

    assert kept() == kept()
    assert len({tuple(kept(seed=seed)) for seed in range(10)}) > 1
    assert len({tuple(kept(round=round)) for round in range(10)}) > 1


def test_where_every_row_is_dropped_once_the_least_dropped_stay():
    u = honest(0, 7, 200)
    assert literal(u, 3, 40, 5) == []
    rows = rows_kept(u, 3, 40, 5, 0, 1)
    assert 0 < len(rows) < 7
    assert bool(divide_and_conquer(u, 3, 40, 5).isfinite().all())


@pytest.mark.parametrize("size", [1e2, 1e8, 1e30, 1e150])
def test_rows_along_one_line_are_dropped(size):
    for seed in range(5):
        u = with_hostile(honest(seed, 11, 5), size, 3, seed)
        u[1] *= -1
        assert rows_kept(u, 3, 1, 10_000, 0, 1).tolist() == list(range(3, 11))
        assert displacement(divide_and_conquer(u, 3), u[3:]) <= 1


def test_rows_that_are_not_finite_outside_the_sample_are_out_as_well():
    u = honest(0, 9, 1000)
    u[2, 500], u[4, 501], u[6] = torch.nan, -torch.inf, 1e200
    for seed in range(5):
        assert not {2, 4, 6} & set(rows_kept(u, 3, 1, 5, seed, 1).tolist())
        assert not {2, 4, 6} & set(rows_kept(u, 1, 1, 5, seed, 1).tolist())  # more of them than f
    assert rows_kept(u * torch.nan, 1, 1, 5, 0, 1).tolist() == list(range(9))


@pytest.mark.parametrize(
    "given",
    [
        {"num_byzantine": 5},
        {"num_byzantine": -1},
        {"num_byzantine": 0.5},
        {"num_byzantine": 3, "filter_fraction": 0.0},
        {"num_byzantine": 3, "filter_fraction": 3.0},
        {"num_byzantine": 3, "filter_fraction": float("nan")},
        {"num_byzantine": 3, "num_iterations": 0},
        {"num_byzantine": 3, "subsample": 0},
        {"num_byzantine": 3, "subsample": 2.5},
    ],
)
def test_settings_that_cannot_work(given):
    with pytest.raises(ConfigError, match="divide_and_conquer needs"):
        divide_and_conquer(torch.zeros(9, 2), **given)


def test_rows_far_out_in_several_directions_cover_for_each_other():
    """What the docstring says of one iteration; CAF, which looks again after each step, drops all three."""
    u = honest(0, 11, 5)
    u[:3] = 0
    u[0, 0], u[1, 1], u[2, 2] = 1e30, 1e6, -1e3
    assert displacement(divide_and_conquer(u, 3), u[3:]) > 2
    assert displacement(caf(u, 3), u[3:]) <= 1
