"""What all rules built on inner products of rows promise: invariances, breakdown, hostile values, clean manners."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import (
    bulyan,
    caf,
    centered_clipping,
    divide_and_conquer,
    geometric_median,
    krum,
    mean,
    mean_around_median,
    median_of_means,
    minimum_diameter_averaging,
    monna,
    multi_krum,
    norm_clipping,
    rfa,
    smea,
)
from tests.aggregation.brute_force import displacement, honest, with_hostile

N, F, D = 15, 3, 6  # n >= 4 f + 3; f = 3: Bulyan's last picks have two neighbours, so that ties are no matter

RULES = {
    "krum": lambda u: krum(u, num_byzantine=F),
    "multi_krum": lambda u: multi_krum(u, num_byzantine=F),
    "m_krum": lambda u: multi_krum(u, num_byzantine=F, num_selected=5),
    "bulyan": lambda u: bulyan(u, num_byzantine=F),
    "bulyan_trimmed": lambda u: bulyan(u, num_byzantine=F, second_phase="trimmed_mean"),
    "geometric_median": lambda u: geometric_median(u),
    "rfa": lambda u: rfa(u),
    "rfa_from_mean": lambda u: rfa(u, start_from="mean"),
    "minimum_diameter_averaging": lambda u: minimum_diameter_averaging(u, num_byzantine=F),
    "mean_around_median": lambda u: mean_around_median(u, num_byzantine=F),
    "monna": lambda u: monna(u, num_byzantine=F),
    "caf": lambda u: caf(u, num_byzantine=F),
    "smea": lambda u: smea(u, num_byzantine=F),
    "median_of_means": lambda u: median_of_means(u, num_byzantine=F),
    "divide_and_conquer": lambda u: divide_and_conquer(u, num_byzantine=F),
    "mean": lambda u: mean(u),
}
ROBUST = [name for name in RULES if name not in ("mean", "rfa_from_mean")]  # the paper's start: see test_rfa
PER_COORDINATE = ("bulyan", "bulyan_trimmed", "mean_around_median")
TURNABLE = [name for name in RULES if name not in PER_COORDINATE]
UNORDERED = [name for name in RULES if name != "median_of_means"]  # which groups rows

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
each_robust_rule = pytest.mark.parametrize("rule", [RULES[name] for name in ROBUST], ids=ROBUST)
seeds = st.integers(0, 10**6)
quick = settings(max_examples=15, deadline=None)


def close(got, expected, scale=1.0):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7 * scale)


@pytest.mark.parametrize("rule", [RULES[name] for name in UNORDERED], ids=UNORDERED)
@given(seed=seeds)
@quick
def test_ignores_client_order(rule, seed):
    u = honest(seed, N, D)
    close(rule(u[torch.randperm(N, generator=torch.Generator().manual_seed(seed))]), rule(u))


@each_rule
@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
@quick
def test_follows_shift_and_scale(rule, seed, shift, scale):
    u = honest(seed, N, D)
    close(rule(u + shift), rule(u) + shift)
    close(rule(u * scale), rule(u) * scale, scale)
    close(rule(-u), -rule(u))


@pytest.mark.parametrize("name", TURNABLE)
@given(seed=seeds)
@quick
def test_follows_a_rotation(name, seed):
    u = honest(seed, N, D)
    turn = torch.linalg.qr(honest(seed + 1, D, D)).Q
    close(RULES[name](u @ turn), RULES[name](u) @ turn)


@each_rule
def test_equal_rows_give_that_row(rule):
    row = honest(0, 1, D).float()
    torch.testing.assert_close(rule(row.expand(N, D)), row[0], rtol=1e-7, atol=0)


@each_robust_rule
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("size", [1e1, 1e4, 1e8, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_f_outliers_move_it_only_so_far(rule, size, together, dtype):
    for seed in range(5):
        u = with_hostile(honest(seed, N, D).to(dtype), size, F, seed, together)
        assert displacement(rule(u), u[F:]) <= 2.0


@each_robust_rule
@pytest.mark.parametrize("size", [0.5, 1.0, 2.0, 4.0])
def test_f_colluders_who_stay_close_move_it_less_than_they_could(rule, size):
    """Copies of one row at a few honest spreads from the honest mean: the result stays within that spread."""
    for seed in range(5):
        u = honest(seed, N, D)
        middle = u[F:].mean(dim=0)
        spread = (u[F:] - middle).norm(dim=1).max()
        direction = honest(seed + 100, 1, D)[0]
        u[:F] = middle + size * spread * direction / direction.norm()
        assert displacement(rule(u), u[F:]) <= 1.0


@pytest.mark.parametrize("size", [1e2, 1e4, 1e12])
def test_the_mean_fails_the_outlier_test(size):
    u = with_hostile(honest(0, N, D), size, F)
    assert displacement(mean(u), u[F:]) > 2.0


@each_robust_rule
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("count", [1, F])
def test_rows_that_are_not_finite_neither_win_nor_poison(rule, bad, count):
    for seed in range(3):
        u = honest(seed, N, D).float()
        u[:count, seed] = bad
        u[0] = bad
        assert displacement(rule(u), u[count:]) <= 2.0


def test_the_mean_fails_the_test_of_values_that_are_not_finite():
    u = honest(0, N, D)
    u[0] = torch.nan
    assert not bool(mean(u).isfinite().any())


@each_robust_rule
def test_every_row_hostile_raises_nothing(rule):
    for bad in (torch.nan, torch.inf, 3e38):
        assert rule(torch.full((N, D), bad)).shape == (D,)


@each_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_type_and_input_and_needs_no_gradient(rule, dtype):
    u = honest(0, N, D).to(dtype).requires_grad_()
    before = u.detach().clone()
    result = rule(u)
    assert result.dtype == dtype
    assert result.shape == (D,)
    assert not result.requires_grad
    result += 1  # no view of the input either
    assert torch.equal(u.detach(), before)


@each_rule
def test_same_input_same_result(rule):
    u = honest(3, N, 500).float()
    assert torch.equal(rule(u), rule(u.clone()))


@each_rule
def test_large_common_offset_in_float32(rule):
    # an update of 1e-3 around weights of 100: what a rule sees that is given weights by mistake
    u = (100 + 1e-3 * honest(1, N, D)).float()
    exact = rule(u.double())
    torch.testing.assert_close(rule(u).double(), exact, rtol=1e-7, atol=0)


@each_rule
@pytest.mark.parametrize("updates", [torch.zeros(4), torch.zeros(N, D, dtype=torch.int32), torch.zeros(0, D), None])
def test_what_is_no_matrix_is_refused(rule, updates):
    with pytest.raises(ConfigError, match="needs"):
        rule(updates)


@pytest.mark.parametrize(
    "rule",
    [
        mean,
        geometric_median,
        rfa,
        lambda u: norm_clipping(u, max_norm=100.0)[0],
        lambda u: centered_clipping(u, torch.zeros(3), radius=100.0),
    ],
)
def test_one_client_is_enough_where_the_rule_allows_it(rule):
    torch.testing.assert_close(rule(torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([1.0, 2.0, 3.0]))
