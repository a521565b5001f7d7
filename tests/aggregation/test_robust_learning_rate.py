import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec.aggregation.robust_learning_rate import robust_learning_rate
from flsec.errors import ConfigError

seeds = st.integers(0, 2**31)


def draw(seed, n, d, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(u, threshold, weights=None):
    """The definition, one coordinate at a time, in float64."""
    n, d = u.shape
    weights = [1.0] * n if weights is None else weights.tolist()
    result = []
    for j in range(d):
        column = u[:, j].double().tolist()
        votes = sum((x > 0) - (x < 0) for x in column)
        mean = sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights)
        result.append(mean if abs(votes) >= threshold else -mean)
    return torch.tensor(result, dtype=torch.float64)


@given(
    seed=seeds, n=st.integers(1, 40), d=st.integers(1, 20), ties=st.booleans(), weighted=st.booleans(), data=st.data()
)
@settings(max_examples=100, deadline=None)
def test_agrees_with_the_definition_in_float64(seed, n, d, ties, weighted, data):
    threshold = data.draw(st.one_of(st.integers(0, n), st.floats(0, n)))
    u = draw(seed, n, d)
    u = u.round() if ties else u  # entries that are exactly 0 cast no vote
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed)) + 0.01 if weighted else None
    result = robust_learning_rate(u, threshold, weights)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), brute_force(u, threshold, weights), rtol=1e-5, atol=1e-7)


def test_agrees_with_the_definition_across_blocks():
    u = draw(7, 40_000, 60)  # three blocks
    torch.testing.assert_close(robust_learning_rate(u, 150).double(), brute_force(u, 150), rtol=1e-5, atol=1e-10)


def test_a_disputed_coordinate_is_flipped_not_zeroed():
    u = torch.tensor([[1.0, 3.0], [1.0, -1.0], [1.0, -1.0], [1.0, 3.0]])
    torch.testing.assert_close(robust_learning_rate(u, 4), torch.tensor([1.0, -1.0]))


def test_as_many_votes_as_the_threshold_are_enough():
    u = torch.tensor([[1.0], [1.0], [-0.5]])  # one vote net
    assert robust_learning_rate(u, 1).item() == pytest.approx(0.5)
    assert robust_learning_rate(u, 1.5).item() == pytest.approx(-0.5)


def test_the_threshold_is_not_rounded():
    u = torch.tensor([[1.0], [1.0], [-0.5], [0.0]])
    assert robust_learning_rate(u, 1 + 1e-12).item() == pytest.approx(-0.375)  # float32 has no 1 + 1e-12
    assert robust_learning_rate(u, 1 - 1e-12).item() == pytest.approx(0.375)


def test_agreement_on_a_negative_sign_counts_as_much():
    assert robust_learning_rate(torch.full((5, 1), -2.0), 5).item() == -2.0


def test_zeros_cast_no_vote():
    u = torch.tensor([[0.0], [0.0], [3.0]])
    assert robust_learning_rate(u, 1).item() == 1.0
    assert robust_learning_rate(u, 2).item() == -1.0


def test_threshold_zero_is_the_mean():
    u = draw(1, 9, 30)
    torch.testing.assert_close(robust_learning_rate(u, 0), u.mean(dim=0))


def test_weights_count_in_the_mean_and_not_in_the_vote():
    u = torch.tensor([[1.0], [1.0], [-1.0]])
    weights = torch.tensor([1.0, 1.0, 8.0])
    assert robust_learning_rate(u, 1, weights).item() == pytest.approx(-0.6)  # a weighted vote is 6, this one 1
    assert robust_learning_rate(u, 2, weights).item() == pytest.approx(0.6)


def test_weights_of_any_scale_and_type_and_zero_weights():
    u = draw(2, 4, 10)
    weights = torch.tensor([10, 0, 30, 60])
    result = robust_learning_rate(u, 2, weights)
    torch.testing.assert_close(result, robust_learning_rate(u, 2, weights / 7))
    torch.testing.assert_close(result.abs(), (0.1 * u[0] + 0.3 * u[2] + 0.6 * u[3]).abs())
    torch.testing.assert_close(robust_learning_rate(u, 2, torch.full((4,), 3.0)), robust_learning_rate(u, 2))


def test_the_step_stays_as_long_as_the_mean_update_and_parameters_are_never_negated():
    # On parameters near 5 all signs agree: the vote would see nothing, and a flip would negate the model.
    parameters, u = torch.full((20,), 5.0), 0.01 * draw(3, 8, 20)
    result = robust_learning_rate(u, 6)
    torch.testing.assert_close(result.abs(), u.mean(dim=0).abs())
    flipped = result * u.mean(dim=0) < 0
    assert flipped.any()
    assert not flipped.all()
    on_parameters = robust_learning_rate(parameters + u, 6)
    torch.testing.assert_close(on_parameters, (parameters + u).mean(dim=0))


def test_a_backdoor_coordinate_is_pushed_back_and_the_mean_is_not():
    honest = torch.tensor([[-0.1, 1.0]]).repeat(7, 1)
    backdoor = torch.tensor([[3.0, 1.0]]).repeat(3, 1)  # wins the mean of the first coordinate
    u = torch.cat([honest, backdoor])
    assert u.mean(dim=0)[0] > 0
    result = robust_learning_rate(u, 5)  # |3 - 7| < 5
    assert result[0] < 0
    assert result[1] == pytest.approx(1.0)


@given(seed=seeds, threshold=st.integers(0, 9), scale=st.sampled_from([-16.0, -1.0, 0.5, 256.0]))
@settings(max_examples=40, deadline=None)
def test_ignores_row_order_and_follows_scale(seed, threshold, scale):
    u = draw(seed, 9, 7, torch.float64)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    result = robust_learning_rate(u, threshold)
    torch.testing.assert_close(robust_learning_rate(u[order], threshold), result)
    torch.testing.assert_close(robust_learning_rate(scale * u, threshold), scale * result)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("weighted", [False, True])
def test_entries_that_are_no_numbers_abstain(value, weighted):
    honest = draw(5, 6, 12)
    weights = torch.arange(1.0, 9.0) if weighted else None
    u = torch.cat([honest, torch.full((2, 12), value)])
    result = robust_learning_rate(u, 4, weights)
    expected = robust_learning_rate(honest, 4, weights[:6] if weighted else None)
    torch.testing.assert_close(result, expected)
    assert not u.mean(dim=0).isfinite().any()  # the plain mean must not pass


def test_a_coordinate_without_a_number_stays_where_it_is():
    u = torch.tensor([[torch.nan, 1.0], [torch.inf, 3.0]])
    assert robust_learning_rate(u, 1).tolist() == [0.0, 2.0]


def test_the_mean_is_taken_in_float64():
    u = torch.tensor([[1e8], [1.0], [1.0], [-1e8]])
    assert robust_learning_rate(u, 0).item() == 0.5


@pytest.mark.parametrize("view", [lambda u: u, lambda u: u.T, lambda u: u[::2, 1::3]])
def test_leaves_its_input_alone_whatever_the_strides(view):
    u = view(draw(2, 12, 15))
    u[0, 0] = torch.nan
    before = u.clone()
    weights = torch.ones(len(u))
    result = robust_learning_rate(u, 3, weights)
    torch.testing.assert_close(u, before, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(result, robust_learning_rate(before.contiguous(), 3))
    assert torch.equal(weights, torch.ones(len(u)))


def test_float64_stays_float64():
    assert robust_learning_rate(draw(2, 5, 4, torch.float64), 1).dtype == torch.float64


@pytest.mark.parametrize("threshold", [-1, 4, float("nan")])
def test_refuses_a_threshold_that_always_flips_or_is_none(threshold):
    complaint = rf"0 <= threshold <= n.*got threshold={threshold}, n=3\. .*lower threshold"
    with pytest.raises(ConfigError, match=complaint):
        robust_learning_rate(torch.ones(3, 2), threshold)


@pytest.mark.parametrize(
    "weights", [torch.ones(2), torch.ones(3, 1), torch.zeros(3), -torch.ones(3), torch.tensor([1.0, 1.0, torch.nan])]
)
def test_refuses_weights_that_do_not_fit(weights):
    with pytest.raises(ConfigError, match=r"weights of shape \(n,\), finite, at least 0 and not all 0; got shape"):
        robust_learning_rate(torch.ones(3, 2), 1, weights)


def test_refuses_what_is_no_matrix():
    with pytest.raises(ConfigError, match=r"robust_learning_rate needs updates of shape \(n, d\)"):
        robust_learning_rate(torch.ones(4), 1)
