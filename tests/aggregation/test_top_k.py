import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec.aggregation.top_k import _kth_largest, top_k
from flsec.errors import ConfigError

seeds = st.integers(0, 2**31)


def draw(seed, d, dtype=torch.float32):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(vector, k):
    """Sort the indices by falling magnitude, then by index; copy the first k."""
    values = vector.tolist()
    first = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k]
    return torch.tensor([value if i in first else 0.0 for i, value in enumerate(values)], dtype=vector.dtype)


@given(seed=seeds, d=st.integers(1, 200), ties=st.booleans(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_agrees_with_a_full_sort(seed, d, ties, data):
    k = data.draw(st.integers(1, d))
    v = draw(seed, d)
    v = v.round() if ties else v
    assert torch.equal(top_k(v, k), brute_force(v, k))


@given(seed=seeds, k=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_is_the_nearest_vector_with_k_entries(seed, k):
    v = draw(seed, 8, torch.float64)
    error = (v - top_k(v, k)).norm().item()
    for kept in itertools.combinations(range(8), k):
        other = torch.zeros_like(v)
        other[list(kept)] = v[list(kept)]
        assert error <= (v - other).norm().item() * (1 + 1e-12)


def test_keeps_exactly_k_whatever_the_signs():
    v = draw(5, 10_000)
    for k in (1, 17, 5000, 10_000):
        kept = top_k(v, k)
        assert kept.count_nonzero() == k
        assert v[kept == 0].abs().max() <= kept[kept != 0].abs().min() if k < 10_000 else torch.equal(kept, v)
    assert (top_k(v, 5000) < 0).any()  # magnitude, not value


def test_ties_go_to_the_lower_index():
    v = torch.tensor([1.0, -2.0, 2.0, 5.0, -2.0])
    assert top_k(v, 2).tolist() == [0.0, -2.0, 0.0, 5.0, 0.0]
    assert top_k(v, 3).tolist() == [0.0, -2.0, 2.0, 5.0, 0.0]
    same = torch.full((1000,), -3.0)
    assert top_k(same, 400).nonzero().flatten().tolist() == list(range(400))


def test_fewer_non_zero_entries_than_k_are_all_kept():
    v = torch.tensor([0.0, 3.0, -0.0, 0.0, -1.0])
    assert torch.equal(top_k(v, 4), v)
    assert torch.equal(top_k(torch.zeros(5), 3), torch.zeros(5))


@given(seed=seeds, k=st.integers(1, 50), scale=st.sampled_from([-8.0, -1.0, 0.25, 1024.0]))
@settings(max_examples=30, deadline=None)
def test_is_idempotent_and_follows_scale(seed, k, scale):
    v = draw(seed, 50)
    once = top_k(v, k)
    assert torch.equal(top_k(once, k), once)
    assert torch.equal(top_k(scale * v, k), scale * once)


def test_nan_and_infinity_are_never_kept():
    v = torch.tensor([torch.nan, 1.0, torch.inf, -3.0, -torch.inf, 2.0])
    assert top_k(v, 2).tolist() == [0.0, 0.0, 0.0, -3.0, 0.0, 2.0]
    assert top_k(v, 6).tolist() == [0.0, 1.0, 0.0, -3.0, 0.0, 2.0]


def test_huge_and_tiny_magnitudes_are_told_apart():
    v = torch.tensor([1e-30, -1e30, 1e-38, 2e30])
    assert torch.equal(top_k(v, 3), torch.tensor([1e-30, -1e30, 0.0, 2e30]))


def test_leaves_its_input_alone_and_never_shares_its_memory():
    v = draw(0, 30)[::2]
    before = v.clone()
    result = top_k(v, 15)
    assert torch.equal(result, before)
    result.zero_()
    assert torch.equal(v, before)
    assert torch.equal(top_k(v, 4), top_k(before, 4))


def test_both_selections_give_the_same_magnitude():
    v = draw(3, 500).abs()
    for k in (1, 250, 500):
        assert _kth_largest(v, k) == v.topk(k, sorted=False).values.min() == v.sort(descending=True).values[k - 1]


def test_float64_stays_float64():
    assert top_k(draw(0, 5, torch.float64), 2).dtype == torch.float64


@pytest.mark.parametrize("k", [0, -1, 6, 2.5])
def test_refuses_a_k_that_does_not_fit(k):
    with pytest.raises(ConfigError, match=rf"top_k needs a whole number 1 <= k <= d; got k={k}, d=5\. Lower k"):
        top_k(torch.ones(5), k)


@pytest.mark.parametrize("vector", [torch.ones(2, 2), torch.ones(3, dtype=torch.int64), torch.tensor(1.0)])
def test_refuses_what_is_no_float_vector(vector):
    with pytest.raises(ConfigError, match=r"top_k needs a float32 or float64 vector of shape \(d,\); got shape"):
        top_k(vector, 1)
