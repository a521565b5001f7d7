import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import adaptive_robust_clipping, krum, mean, median
from flsec.aggregation.adaptive_robust_clipping import robust_bound
from tests.aggregation.brute_force import displacement, honest, with_hostile

seeds = st.integers(0, 10**6)
quick = settings(max_examples=20, deadline=None)


def clipped_one_by_one(updates, f):
    """The paper's steps, on Python's numbers."""
    rows = updates.double()
    n = len(rows)
    norms = [math.sqrt(sum(value * value for value in row.tolist())) for row in rows]
    k = math.floor(2 * f * (n - f) / n + 1e-12)
    bound = sorted(norms, reverse=True)[k]
    factors = [1.0 if norm <= bound else bound / norm for norm in norms]
    return torch.stack([factor * row for factor, row in zip(factors, rows, strict=True)])


@given(seed=seeds, f=st.integers(0, 5), extra=st.integers(0, 7), d=st.integers(1, 40))
@quick
def test_clips_the_longest_to_the_next_one_on_random_shapes(seed, f, extra, d):
    u = honest(seed, 2 * f + 1 + extra, d)
    torch.testing.assert_close(adaptive_robust_clipping(u, f), clipped_one_by_one(u, f))
    single = adaptive_robust_clipping(u.float(), f)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), clipped_one_by_one(u.float(), f), rtol=1e-6, atol=1e-6)


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@quick
def test_follows_order_scale_and_rotation_but_not_shift(seed, scale):
    u = honest(seed, 11, 6)
    clipped = adaptive_robust_clipping(u, 3)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(honest(seed + 1, 6, 6)).Q
    torch.testing.assert_close(adaptive_robust_clipping(u[order], 3), clipped[order])
    torch.testing.assert_close(adaptive_robust_clipping(scale * u, 3), scale * clipped)
    torch.testing.assert_close(adaptive_robust_clipping(u @ turn, 3), clipped @ turn)
    assert not torch.allclose(adaptive_robust_clipping(u + 10, 3), clipped + 10)  # so: updates, never weights


def test_without_hostile_rows_nothing_is_clipped_and_copies_stay():
    u = honest(0, 9, 5)
    assert torch.equal(adaptive_robust_clipping(u, 0), u)
    copies = u[:1].repeat(9, 1)
    assert torch.equal(adaptive_robust_clipping(copies, 4), copies)
    zeros = torch.zeros(9, 5)
    zeros[0] = 3.0
    assert torch.equal(adaptive_robust_clipping(zeros, 2), torch.zeros(9, 5))  # the bound is 0


@pytest.mark.parametrize("size", [1e2, 1e12, 1e30])
@pytest.mark.parametrize("rule", [mean, median, lambda u: krum(u, num_byzantine=3)], ids=["mean", "median", "krum"])
def test_bounds_what_f_outliers_do_to_a_rule(rule, size):
    for seed in range(5):
        u = with_hostile(honest(seed, 11, 6).float(), size, 3, seed)
        clipped = adaptive_robust_clipping(u, 3)
        assert float(clipped.norm(dim=1).max()) <= float(u[3:].norm(dim=1).max()) * (1 + 1e-6)
        assert displacement(rule(clipped), u[3:]) <= 2.0
    assert displacement(mean(u), u[3:]) > 2.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_count_as_the_longest_and_touch_no_other(bad):
    u = honest(0, 11, 6)
    far = u.clone()
    u[[2, 7], 3], far[[2, 7]] = bad, 1e30
    clipped = adaptive_robust_clipping(u, 3)
    sound = [i for i in range(11) if i not in (2, 7)]
    assert not bool(clipped[[2, 7]].isfinite().all(dim=1).any())
    assert torch.equal(clipped[sound], adaptive_robust_clipping(far, 3)[sound])


def test_more_hostile_rows_than_replies_allow_still_give_a_bound():
    """As a round without enough replies runs it that was told to go on."""
    norms = torch.arange(1.0, 8.0, dtype=torch.float64)
    for f in range(20):
        assert 1.0 <= robust_bound(norms, f) <= 7.0
    assert robust_bound(norms[:1], 3) == 1.0


@pytest.mark.parametrize(("n", "f"), [(6, 3), (2, 1), (5, -1), (5, 1.5), (5, None)])
def test_f_must_be_a_minority(n, f):
    with pytest.raises(ConfigError, match=r"adaptive_robust_clipping needs .* n >= 2 \* num_byzantine \+ 1; got"):
        adaptive_robust_clipping(torch.zeros(n, 2), f)
