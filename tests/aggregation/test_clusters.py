import numpy as np
import pytest

from flsec.aggregation._clusters import gap_clusters


def blobs(seed, counts, apart=20.0, p=2):
    rng = np.random.default_rng(seed)
    centres = apart * rng.permutation(np.array([[i, (i * 7) % 5] for i in range(len(counts))], float))[:, :p]
    return np.concatenate([c + rng.standard_normal((m, p)) for c, m in zip(centres, counts, strict=True)])


@pytest.mark.parametrize("counts", [(20,), (16, 4), (12, 5, 6)])
def test_finds_groups_that_lie_apart(counts):
    expected = [set(block) for block in np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])]
    for seed in range(4):
        labels = gap_clusters(blobs(seed, counts), 9, 5, np.random.default_rng(seed))
        assert [set(np.flatnonzero(labels == labels[min(group)])) for group in expected] == expected


def test_neither_order_nor_mirror_image_nor_scale_matters():
    points = blobs(1, (9, 3, 4), apart=4.0)
    labels = gap_clusters(points, 6, 5, np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(points))
    for other in (points[order], -points[order], points[order] * [1, -1], 1e20 * points[order] + 7):
        moved = gap_clusters(other, 6, 5, np.random.default_rng(3))
        same = labels[order][:, None] == labels[order][None, :]
        assert np.array_equal(moved[:, None] == moved[None, :], same)


def test_equal_points_and_two_points_are_one_group():
    assert not gap_clusters(np.ones((5, 2)), 9, 5, np.random.default_rng(0)).any()
    assert len(gap_clusters(np.array([[0.0, 0.0], [1.0, 0.0]]), 9, 5, np.random.default_rng(0))) == 2
