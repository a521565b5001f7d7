from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.aggregation import geometric_median, rfa, rfa_weights
from flsec.aggregation._gram import expand_squares, robust_gram
from flsec.aggregation.geometric_median import _medoid
from tests.aggregation import brute_force
from tests.aggregation.brute_force import displacement, honest, with_hostile


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), d=st.integers(2, 6), steps=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_the_papers_start_is_the_mean(seed, n, d, steps):
    u = honest(seed, n, d)
    expected = brute_force.weiszfeld(u, u.mean(dim=0), steps, smoothing=1e-9)
    result = rfa(u, max_iterations=steps, tolerance=0.0, start_from="mean")
    # Where it runs into a row, inner products do not tell distances below 1e-8 apart.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-7)


def near_the_medoid(u):
    """The default's start by its definition, on the vectors themselves."""
    distances = torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist")
    row = int(distances.sum(dim=1).argmin())
    smoothing = float(distances.sort(dim=1).values[:, (len(u) - 1) // 2].min())  # the lower median, itself included
    return brute_force.weiszfeld(u, u[row], 1, smoothing)


@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), d=st.integers(2, 6), steps=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_the_default_start_is_near_the_medoid(seed, n, d, steps):
    u = honest(seed, n, d)
    expected = brute_force.weiszfeld(u, near_the_medoid(u), steps, smoothing=1e-9)
    torch.testing.assert_close(rfa(u, max_iterations=steps, tolerance=0.0), expected, rtol=0, atol=1e-7)


def test_the_default_budget_is_four_steps():
    u = with_hostile(honest(0, 12, 4), 1e2, 3)
    torch.testing.assert_close(rfa(u), brute_force.weiszfeld(u, near_the_medoid(u), 4, smoothing=1e-9))


@pytest.mark.parametrize("start_from", ["medoid", "mean"])
def test_the_given_weights_are_kept(start_from):
    u = honest(3, 5, 3)
    counts = [3, 1, 1, 4, 2]
    repeated = torch.cat([u[i : i + 1].expand(count, -1) for i, count in enumerate(counts)])
    result = rfa(u, weights=torch.tensor(counts), start_from=start_from)
    torch.testing.assert_close(result, rfa(repeated, start_from=start_from), rtol=0, atol=1e-9)


def test_a_large_budget_gives_the_geometric_median():
    u = with_hostile(honest(0, 12, 4), 1e2, 3)
    torch.testing.assert_close(rfa(u, max_iterations=1000, tolerance=1e-12), geometric_median(u))


def test_stops_at_its_tolerance():
    u = honest(0, 12, 4)
    assert torch.equal(rfa(u, max_iterations=50, tolerance=1e9), rfa(u, max_iterations=1))


def bound(share, radius):
    """What the docstring promises, with the default smoothing."""
    return (4 - 2 * share + 1e-3) / (1 - 2 * share) * radius


@st.composite
def attacked(draw):
    """(honest rows, all rows, weights, hostile share below 1/2): outliers of all sizes in all kinds of places."""
    seed, d = draw(st.integers(0, 10**6)), draw(st.integers(1, 8))
    n = draw(st.integers(1, 15))
    hostile = draw(st.integers(0, (n - 1) // 2))
    gen = torch.Generator().manual_seed(seed)
    rows = honest(seed, n - hostile, d)
    directions = torch.randn(hostile, d, generator=gen, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True).clamp(min=1e-3)
    sizes = 10.0 ** torch.tensor(draw(st.lists(st.integers(-3, 30), min_size=hostile, max_size=hostile)))
    match draw(st.sampled_from(["each alone", "one place", "opposite", "beside an honest row"])):
        case "one place":
            outliers = (directions * sizes[:, None])[[0] * hostile]
        case "opposite":
            signs = torch.tensor([(-1.0) ** i for i in range(hostile)])
            outliers = (directions * sizes[:, None])[[0] * hostile] * signs[:, None]
        case "beside an honest row":
            outliers = rows[:1] + directions * sizes.clamp(max=1e-6)[:, None]
        case _:
            outliers = directions * sizes[:, None]
    weights = None
    share = hostile / n
    if draw(st.booleans()):
        weights = 0.1 + torch.rand(n, generator=gen, dtype=torch.float64)
        share = float(weights[:hostile].sum() / weights.sum())
        if share > 0.49:
            weights, share = None, hostile / n
    return rows, torch.cat([outliers.double(), rows]), weights, share


@given(attacked(), st.integers(1, 8), st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None, max_examples=300)
def test_outliers_of_any_size_move_it_within_its_bound(cohort, steps, dtype):
    rows, u, weights, share = cohort
    result = rfa(u.to(dtype), weights=weights, max_iterations=steps)
    center = rows.mean(dim=0)
    radius = float((rows - center).norm(dim=1).max())
    assert float((result.double() - center).norm()) <= bound(share, radius) + 1e-5


@given(attacked(), st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None, max_examples=200)
def test_the_exact_rule_stays_within_its_own_smaller_bound(cohort, dtype):
    # sum of distances at the centre <= (1 - e) r + what the others have: 2 (1 - e) / (1 - 2 e) r
    rows, u, weights, share = cohort
    result = geometric_median(u.to(dtype), weights=weights)
    center = rows.mean(dim=0)
    radius = float((rows - center).norm(dim=1).max())
    assert float((result.double() - center).norm()) <= (2 - 2 * share + 1e-3) / (1 - 2 * share) * radius + 1e-5


@given(cohort=attacked(), shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=60)
def test_follows_shift_and_scale_under_attack(cohort, shift, scale):
    _, u, weights, _ = cohort
    # an outlier of 1e30 swallows a shift of 1: what is shifted are rows that have the digits
    u = u.clamp(-1e6, 1e6)
    torch.testing.assert_close(rfa(scale * u, weights) / scale, rfa(u, weights), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rfa(u + shift, weights) - shift, rfa(u, weights), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", [rfa, geometric_median])
@pytest.mark.parametrize("size", [1e6, 1e9, 1e12, 1e30])
def test_two_colluders_who_cancel_each_other_out(rule, size):
    # their mean is among the honest rows, but its inner products with them have no digits left
    for seed in range(10):
        u = honest(seed, 14, 20)
        u[0] = size * u[0] / u[0].norm()
        u[1] = -u[0]
        start = u[2:].mean(dim=0)
        expected = brute_force.weiszfeld(u, start, steps=300, smoothing=1e-9)
        slack = 1e-8 if rule is geometric_median else 1e-2
        torch.testing.assert_close(rule(u), expected, rtol=0, atol=slack)


@pytest.mark.parametrize("size", [1e2, 1e6, 1e12, 1e30])
def test_the_medoid_is_the_row_of_the_least_sum_whatever_the_outliers(size):
    for seed in range(20):
        u = with_hostile(honest(seed, 9, 3), size, 4, seed, together=False)
        exact = [[Fraction(value) for value in row] for row in u.tolist()]
        sums = [excess_over_first(exact, i) for i in range(9)]
        products, _ = robust_gram(u)
        alpha = torch.full((9,), 1 / 9, dtype=torch.float64)
        assert _medoid(products, expand_squares(products).sqrt(), alpha) == min(range(9), key=sums.__getitem__)


def excess_over_first(rows, i):
    """Return the sum of distances to row i less the one to row 8, with 60 digits."""
    with localcontext() as context:
        context.prec = 100

        def distance(a, b):
            square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
            return (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()

        return sum(distance(row, rows[i]) for row in rows) - sum(distance(row, rows[8]) for row in rows)


@pytest.mark.parametrize(("n", "hostile", "steps"), [(12, 1, 4), (12, 3, 4), (15, 5, 2), (15, 5, 8)])
def test_from_the_mean_outliers_have_what_the_docstring_says(n, hostile, steps):
    size = 1e12
    u = with_hostile(honest(0, n, 6), size, hostile)
    share = hostile / n
    odds = (share / (1 - share)) ** (steps + 1)
    result = rfa(u, max_iterations=steps, start_from="mean")
    expected = size * odds / (1 + odds)
    assert float(result.norm()) == pytest.approx(expected, rel=1e-3 if expected > 1e6 else 0.05)
    assert displacement(rfa(u, max_iterations=steps), u[hostile:]) < 1


@pytest.mark.parametrize(("n", "d"), [(12, 50), (12, 10_000), (100, 1000)])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_without_outliers_the_start_matters_little(n, d, spread):
    for seed in range(3):
        gen = torch.Generator().manual_seed(seed)
        u = torch.randn(n, d, generator=gen, dtype=torch.float64) + 0.3 * torch.randn(d, generator=gen)
        u *= torch.exp(spread * torch.randn(n, 1, generator=gen, dtype=torch.float64))
        medoid, start, median = rfa(u), rfa(u, start_from="mean"), geometric_median(u)
        assert float((medoid - start).norm()) < 2e-3 * float(start.norm())
        assert float((medoid - median).norm()) < 2e-3 * float(start.norm())


def test_rows_that_are_not_finite_count_as_absent():
    u = honest(0, 9, 4)
    bad = torch.cat([torch.full((1, 4), torch.nan), u, torch.full((1, 4), torch.inf)])
    torch.testing.assert_close(rfa(bad), rfa(u))
    assert rfa_weights(bad)[[0, 10]].tolist() == [0, 0]


def test_identical_rows_with_half_of_the_weight():
    u = torch.cat([honest(0, 4, 3), honest(1, 1, 3).expand(5, -1)])
    torch.testing.assert_close(rfa(u), u[-1])


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"rfa needs .*max_iterations >= 1"):
        rfa(torch.zeros(3, 2), max_iterations=0)


def test_an_unknown_start():
    with pytest.raises(ConfigError, match="rfa needs start_from 'medoid' or 'mean'; got 'zero'"):
        rfa(torch.zeros(3, 2), start_from="zero")
