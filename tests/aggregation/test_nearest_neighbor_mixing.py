import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import _gram, krum, mean, median, nearest_neighbor_mixing
from flsec.aggregation._device import computing_on
from flsec.aggregation._gram import distances_of_means, mixed_rows, squared_distances
from flsec.aggregation.nearest_neighbor_mixing import mixing_weights
from tests.aggregation import brute_force
from tests.aggregation.brute_force import displacement, honest, with_hostile

seeds = st.integers(0, 10**6)
quick = settings(max_examples=20, deadline=None)


def mixed_one_by_one(updates, f):
    """Algorithm 2, row by row."""
    rows, means = updates.double(), []
    for row in rows:
        near = sorted(range(len(rows)), key=lambda j: float(((rows[j] - row) ** 2).sum()))
        means.append(rows[near[: len(rows) - f]].mean(dim=0))
    return torch.stack(means)


@given(seed=seeds, f=st.integers(0, 4), extra=st.integers(0, 6), d=st.integers(1, 40))
@quick
def test_is_the_mean_of_the_nearest_rows_on_random_shapes(seed, f, extra, d):
    u = honest(seed, 2 * f + 1 + extra, d)
    torch.testing.assert_close(nearest_neighbor_mixing(u, f), mixed_one_by_one(u, f))
    single = u.float()
    torch.testing.assert_close(
        nearest_neighbor_mixing(single, f).double(), mixed_one_by_one(single, f), rtol=1e-6, atol=1e-6
    )


@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
@quick
def test_follows_order_shift_scale_and_rotation(seed, shift, scale):
    u = honest(seed, 11, 6)
    mixed = nearest_neighbor_mixing(u, 3)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(honest(seed + 1, 6, 6)).Q
    torch.testing.assert_close(nearest_neighbor_mixing(u[order], 3), mixed[order])
    torch.testing.assert_close(nearest_neighbor_mixing(scale * u + shift, 3), scale * mixed + shift, rtol=0, atol=1e-6)
    torch.testing.assert_close(nearest_neighbor_mixing(u @ turn, 3), mixed @ turn)


@pytest.mark.parametrize("size", [1e2, 1e6, 1e12, 1e30])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("rule", [median, lambda u: krum(u, num_byzantine=3)], ids=["median", "krum"])
def test_f_outliers_do_not_move_the_rule_after_it(rule, together, size):
    for seed in range(5):
        u = with_hostile(honest(seed, 11, 6).float(), size, 3, seed, together)
        mixed = nearest_neighbor_mixing(u, 3)
        torch.testing.assert_close(mixed[3:].double(), u[3:].double().mean(dim=0).expand(8, 6), rtol=1e-6, atol=1e-6)
        assert displacement(rule(mixed), u[3:]) <= 0.1  # the honest mean, as nobody far away is mixed in


def test_it_is_no_defense_by_itself():
    u = with_hostile(honest(0, 11, 6), 1e4, 3)
    assert displacement(mean(nearest_neighbor_mixing(u, 3)), u[3:]) > 2.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_touch_no_other(bad):
    u = honest(0, 11, 6)
    u[[2, 7], 3] = bad
    mixed = nearest_neighbor_mixing(u, 3)
    sound = [i for i in range(11) if i not in (2, 7)]
    assert mixed[[2, 7]].isnan().all()
    torch.testing.assert_close(mixed[sound], mixed_one_by_one(u[sound], 1))  # n - 2 with f - 2
    assert nearest_neighbor_mixing(u, 0).isnan().all()  # more than f: they are in every mean
    assert nearest_neighbor_mixing(torch.full((3, 2), bad), 1).isnan().all()


def test_each_row_is_its_own_nearest_also_among_copies():
    u = honest(0, 1, 6).repeat(7, 1)
    assert torch.equal(mixing_weights(squared_distances(u), 3).diagonal(), torch.full((7,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(nearest_neighbor_mixing(u, 3), u)
    assert torch.equal(nearest_neighbor_mixing(torch.ones(1, 3), 0), torch.ones(1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_stays_nothing_is_modified_and_blocks_do_not_matter(dtype, monkeypatch):
    u = honest(0, 9, 50).to(dtype)
    before = u.clone()
    mixed = nearest_neighbor_mixing(u.requires_grad_(), 2)
    assert mixed.dtype == dtype
    assert not mixed.requires_grad
    assert torch.equal(u.detach(), before)
    monkeypatch.setitem(_gram._BLOCK, "cpu", 45)
    torch.testing.assert_close(nearest_neighbor_mixing(u, 2), mixed)


@pytest.mark.parametrize(("n", "f"), [(6, 3), (2, 1), (5, -1), (5, 1.5), (5, None)])
def test_f_must_be_a_minority(n, f):
    with pytest.raises(ConfigError, match=r"nearest_neighbor_mixing needs .* n >= 2 \* num_byzantine \+ 1; got"):
        nearest_neighbor_mixing(torch.zeros(n, 2), f)


@given(seed=seeds, f=st.integers(0, 5), size=st.sampled_from([0.0, 1e2, 1e8, 1e15]))
@quick
def test_distances_of_means_follow_from_those_of_the_rows(seed, f, size):
    u = honest(seed, 13, 30)
    if size:
        u = with_hostile(u, size, f, seed, together=False)
    distances = squared_distances(u)
    weights = mixing_weights(distances, f)
    known = distances_of_means(distances, weights)
    assert known is not None
    expected = brute_force.squared_distances(weights @ u)
    scale = expected.clamp(min=1e-6)  # equal means are at 0, and one rounding apart by brute force
    assert float(((known - expected).abs() / scale)[f:, f:].max()) < 1e-8
    torch.testing.assert_close(known[:f], expected[:f], rtol=1e-8, atol=1e-6)
    assert float(known.min()) >= 0
    assert torch.equal(known, known.T)


def test_distances_without_enough_digits_are_not_guessed():
    u = honest(0, 9, 20)
    u[:2] *= 1e9
    weights = torch.full((9, 9), 1 / 9, dtype=torch.float64)
    weights[0, 5] += 1e-3
    weights[0, 6] -= 1e-3
    assert distances_of_means(squared_distances(u), weights) is None
    assert distances_of_means(squared_distances(u), torch.eye(9, dtype=torch.float64)) is not None


def test_mixed_rows_read_no_row_of_weight_zero():
    u = honest(0, 4, 20)
    u[0] = torch.nan
    weights = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(mixed_rows(u, weights), torch.stack([u[1:3].mean(dim=0), u[3]]))


def test_blocks_sent_to_another_device_give_the_same_rows():
    u = honest(0, 9, 50).float()
    u[4] = torch.nan
    expected = nearest_neighbor_mixing(u, 2)
    with computing_on(torch.device("cpu")):
        torch.testing.assert_close(nearest_neighbor_mixing(u, 2), expected, equal_nan=True)
