import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from flsec.aggregation._clusters import gap_clusters
from flsec.aggregation.rflbat import principal_components, rflbat, rflbat_filter
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator
from tests.support.claims import HONEST, HOSTILE, honest

SETTINGS = {"first_factor": 10.0, "second_factor": 4.0, "num_components": 2, "max_clusters": 9, "num_references": 5}


def draw(seed, n, d, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def kept_rows(rows, **settings):
    return rflbat_filter(rows, **{**SETTINGS, "seed": 0, "round": 1, **settings})[0].nonzero().flatten().tolist()


def usual(points, rows, factor):
    sums = [sum(np.linalg.norm(points[i] - points[j]) for j in rows) for i in rows]
    return [i for i, total in zip(rows, sums, strict=True) if total <= factor * np.median(sums)]


def by_hand(rows, first_factor, second_factor):
    """The three filters, by scikit-learn's PCA and loops."""
    points = PCA(2).fit_transform(rows)
    near = usual(points, range(len(rows)), first_factor)
    labels = gap_clusters(points[near], 9, 5, numpy_generator(0, 1, purpose="rflbat"))
    alike = {}
    for label in set(labels):
        members = [i for i, own in zip(near, labels, strict=True) if own == label]
        if len(members) > 1:
            alike[float(np.median(cosine_similarity(rows[members]).mean(axis=1)))] = members
    return usual(points, alike[min(alike)], second_factor)


def test_principal_components_are_scikit_learns_up_to_sign():
    rows = draw(1, 9, 30) + 5
    mine = principal_components(rows @ rows.T, 3).flip(1).abs()
    torch.testing.assert_close(mine, torch.from_numpy(PCA(3).fit_transform(rows.numpy())).abs())


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_the_algorithm_in_loops(seed):
    n = 6 + seed
    rows = draw(seed, n, 12) * torch.linspace(0.3, 2 + seed, n, dtype=torch.float64)[:, None]
    rows[: n // 3] += 6.0 * draw(100 + seed, 1, 12)
    first, second = 1.3 + 0.1 * seed, 1.2 + 0.05 * seed
    assert kept_rows(rows, first_factor=first, second_factor=second) == by_hand(rows.numpy(), first, second)


def test_clients_with_one_backdoor_in_common_are_dropped_with_many_honest_ones():
    """Two clusters that are long across the line between them are cut up further, and one piece is kept."""
    for seed in range(6):
        rows = honest(seed, HONEST + HOSTILE, common=0.3)
        backdoor = draw(90 + seed, 1, rows.shape[1], rows.dtype)
        rows[HONEST:] = 0.3 * rows[HONEST:] + 3 * backdoor
        kept = kept_rows(rows)
        assert max(kept) < HONEST
        assert len(kept) >= 0.2 * HONEST


def test_where_nobody_attacks_nearly_all_are_kept():
    n = HONEST + HOSTILE
    assert np.mean([len(kept_rows(honest(seed, n))) for seed in range(6)]) >= 0.9 * n


def test_a_far_row_is_dropped_before_it_can_be_a_cluster():
    """Twenty others: its sum of distances is twenty times the usual one."""
    rows = honest(1, 20, d=200).double()
    rows[3] += 1e6
    assert 3 not in kept_rows(rows)
    scores = rflbat_filter(rows, **SETTINGS, seed=0, round=1)[1]
    assert int(scores.argmax()) == 3
    assert float(scores.quantile(0.5)) == pytest.approx(1)


def test_rows_on_both_sides_hide_each_other_as_the_docstring_says():
    rows, far = honest(2, 11, d=50).double(), 1e6 * draw(3, 1, 50)
    assert kept_rows(torch.cat([rows, far, far, -far, -far])) == list(range(15))


def test_the_round_draws_its_own_points():
    def drawn(seed, round):
        return numpy_generator(seed, round, purpose="rflbat").random()

    assert len({drawn(0, 1), drawn(0, 2), drawn(1, 1)}) == 3
    rows = honest(4, 12, d=60)
    torch.testing.assert_close(rflbat(rows, seed=1, round=3), rflbat(rows, seed=1, round=3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_count_as_absent(value):
    rows = honest(7, d=200)
    hostile = torch.cat([rows, torch.full((3, 200), value)])
    torch.testing.assert_close(rflbat(hostile), rflbat(rows))
    assert not rflbat(hostile[-3:]).any()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_equal_rows_zero_rows_and_few_rows(n):
    row = honest(5, 1, d=30)
    torch.testing.assert_close(rflbat(row.repeat(n, 1)), row[0])
    assert kept_rows(torch.zeros(n, 30)) == list(range(n))


def test_refuses_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"second_factor=1\.0"):
        rflbat(honest(0, 4), second_factor=1.0)
