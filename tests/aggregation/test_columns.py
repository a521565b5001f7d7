"""The column machinery: every way to compute a mean of ranks against sorting in float64."""

import itertools
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec.aggregation import _columns, _threads
from flsec.aggregation._columns import check_matrix, column_blocks, mean_of_ranks
from flsec.errors import ConfigError
from tests.support.pretend_gpu import a_gpu


def network(updates, low, high, out):
    _columns._network_means(updates, low, high, out)


def interpreted_kernel(updates, low, high, out):
    _columns._kernel_means(_columns._network_strips, updates, low, high, out)


def compiled_kernel(updates, low, high, out):
    kernel = _columns._compiled_network()
    if kernel is None:
        pytest.skip("numba is not installed")
    _columns._kernel_means(kernel, updates, low, high, out)


def numpy_sort(updates, low, high, out):
    _columns._numpy_sorted_means(updates, low, high, out)


def torch_sort(updates, low, high, out):
    _columns._sorted_means(updates, low, high, out)


WAYS = [network, interpreted_kernel, compiled_kernel, numpy_sort, torch_sort]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def run(way, updates, low, high):
    out = torch.full((updates.shape[1],), torch.nan, dtype=updates.dtype)
    way(updates, low, high, out)
    return out


def brute_force(updates, low, high):
    """The definition, in float64."""
    return np.sort(updates.numpy().astype(np.float64), axis=0)[low:high].mean(axis=0)


def draw(seed, n, d, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def all_ranges(n):
    return itertools.combinations(range(n + 1), 2)


@each_way
@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_every_range_of_ranks_of_every_zero_one_column(way, n):
    # Minimum and maximum commute with thresholds, so what holds for all 0-1 columns holds for all columns.
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n))).T
    for low, high in all_ranges(n):
        np.testing.assert_allclose(run(way, bits, low, high), brute_force(bits, low, high), rtol=1e-6)


@pytest.mark.parametrize("n", [7, 8, 9, 10])
def test_the_network_sorts_every_zero_one_column_of_more_rows(n):
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n))).T
    for low, high in all_ranges(n):
        np.testing.assert_allclose(run(network, bits, low, high), brute_force(bits, low, high), rtol=1e-6)


@pytest.mark.parametrize("way", [network, compiled_kernel, numpy_sort, torch_sort], ids=lambda way: way.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [16, 33, 63, 64, 65, 100, 130])
def test_many_rows_agree_with_float64(way, dtype, n):
    u = draw(n, n, 150, dtype)
    for low, high in [((n - 1) // 2, n // 2 + 1), (n // 10, n - n // 10), (0, n), (0, 1), (n - 1, n), (3, 7)]:
        expected = brute_force(u, low, high)
        np.testing.assert_allclose(run(way, u, low, high), expected, rtol=1e-5, atol=1e-9)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), d=st.integers(1, 30), ties=st.booleans(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_random_shapes_and_ties(seed, n, d, ties, data):
    low = data.draw(st.integers(0, n - 1))
    high = data.draw(st.integers(low + 1, n))
    u = draw(seed, n, d)
    u = u.round() if ties else u
    np.testing.assert_allclose(mean_of_ranks(u, low, high), brute_force(u, low, high), rtol=1e-5, atol=1e-7)


@each_way
def test_the_sum_is_taken_in_float64(way):
    # In float32 1e8 + 1 is 1e8, and the mean of these four would be 0.
    column = torch.tensor([[-1e8], [1.0], [1.0], [1e8]])
    assert run(way, column, 0, 4).item() == 0.5


@each_way
def test_nan_ranks_above_every_number_and_infinities_at_the_ends(way):
    column = torch.tensor([torch.nan, 2.0, -torch.inf, 1.0, torch.inf, 3.0, torch.nan])[:, None]
    # sorted: -inf 1 2 3 inf nan nan
    assert run(way, column, 1, 4).item() == 2.0
    assert run(way, column, 1, 2).item() == 1.0
    assert run(way, column, 3, 4).item() == 3.0
    assert run(way, column, 0, 1).item() == -torch.inf
    assert not run(way, column, 1, 5).isfinite().item()


@each_way
def test_any_strides_and_the_input_stays_as_it_is(way):
    base = draw(0, 14, 300)
    base[3, 5] = torch.nan
    for u in (base, base.T, base[::2], base[:, ::3], base[:, 7:90], base[:1].expand(9, 300)):
        before = u.clone()
        result = run(way, u, 1, len(u) - 1)
        torch.testing.assert_close(u, before, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(result, run(way, before.contiguous(), 1, len(u) - 1), rtol=0, atol=0)


@pytest.mark.parametrize("way", [compiled_kernel, numpy_sort], ids=lambda way: way.__name__)
def test_the_number_of_threads_changes_nothing(way, monkeypatch):
    u = draw(1, 20, 4003)
    alone = run(way, u, 3, 17)
    monkeypatch.setattr(_threads, "_ELEMENTS_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(run(way, u, 3, 17), alone)


@pytest.mark.parametrize("way", [compiled_kernel, numpy_sort], ids=lambda way: way.__name__)
def test_extra_memory_is_a_block_not_a_copy(way):
    u = draw(2, 60, 50_000)  # 12 MB
    strided = torch.cat([u, u], dim=1)[:, ::2]
    for updates in (u, strided):
        run(way, updates[:, :10], 6, 54)
        tracemalloc.start()
        run(way, updates, 6, 54)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.35 * u.numel() * u.element_size()


def test_large_cohorts_take_the_compiled_network_and_the_rest_falls_back(monkeypatch):
    taken = []
    for name in ("_kernel_means", "_network_means", "_numpy_sorted_means"):
        real = getattr(_columns, name)
        monkeypatch.setattr(_columns, name, lambda *a, name=name, real=real: (taken.append(name), real(*a)))
    monkeypatch.setattr(_columns, "_MIN_ELEMENTS_KERNEL", 1000)
    monkeypatch.setattr(_columns, "_compiled_network", lambda: _columns._network_strips)
    small, few, many, most = draw(0, 5, 20), draw(0, 5, 200), draw(0, 49, 21), draw(0, 257, 5)
    with_numba = [mean_of_ranks(u, 2, 3) for u in (small, few, many, most)]
    assert taken == ["_network_means", "_kernel_means", "_kernel_means", "_numpy_sorted_means"]
    taken.clear()
    monkeypatch.setattr(_columns, "_compiled_network", lambda: None)
    without = [mean_of_ranks(u, 2, 3) for u in (small, few, many, most)]
    assert taken == ["_network_means", "_network_means", "_numpy_sorted_means", "_numpy_sorted_means"]
    for one, other in zip(with_numba, without, strict=True):
        assert torch.equal(one, other)


def test_numba_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it raises ImportError
    assert _columns._compiled_network.__wrapped__() is None


def test_without_a_place_for_its_cache_numba_compiles_in_memory(monkeypatch):
    def njit(*, nogil, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(pytest.importorskip("numba"), "njit", njit)
    assert _columns._compiled_network.__wrapped__() is _columns._network_strips


@pytest.mark.parametrize("n", [5, 48, 49, 300])
def test_a_gpu_agrees_with_the_cpu(n, monkeypatch):
    u = draw(n, n, 1000)
    u[0, ::3] = torch.nan
    for low, high in [((n - 1) // 2, n // 2 + 1), (n // 5, n - n // 5)]:
        with a_gpu(monkeypatch) as device:
            result = mean_of_ranks(u.to(device), low, high)
            assert result.is_cuda
            result = result.cpu()
        torch.testing.assert_close(result, mean_of_ranks(u, low, high))


@pytest.mark.parametrize("shape", [(1, 0), (1, 1), (3, 1_000_003), (1000, 2500), (3_000_000, 2)])
def test_blocks_cover_every_column_once_and_stay_small(shape):
    updates = torch.zeros(1, 1).expand(shape)
    blocks = list(column_blocks(updates))
    assert [c for block in blocks for c in range(block.start, block.stop)] == list(range(shape[1]))
    assert all(block.stop - block.start == 1 or shape[0] * (block.stop - block.start) <= 2**20 for block in blocks)


@pytest.mark.parametrize(
    ("updates", "complaint"),
    [
        ([[1.0], [2.0]], r"one \(n, d\) tensor; got list"),
        (np.ones((2, 2)), "got ndarray"),
        (torch.ones(3), r"shape \(n, d\).*got shape \(3,\)"),
        (torch.ones(2, 2, 2), r"got shape \(2, 2, 2\)"),
        (torch.ones(0, 4), r"n >= 1; got shape \(0, 4\)"),
        (torch.ones(2, 2, dtype=torch.int64), "float32 or float64 updates; got torch.int64"),
        (torch.ones(2, 2, dtype=torch.float16), "got torch.float16.*updates.float()"),
    ],
)
def test_a_wrong_matrix_is_refused(updates, complaint):
    with pytest.raises(ConfigError, match=f"some_rule needs.*{complaint}"):
        check_matrix(updates, rule="some_rule")


def test_a_right_matrix_gives_its_shape():
    assert check_matrix(torch.ones(3, 5), rule="some_rule") == (3, 5)
