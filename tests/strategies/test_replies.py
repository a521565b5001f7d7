"""From bytes to rows: right where the reply is sound, quarantined where it is not, and never an exception."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsec._contracts.server import npy_bytes
from flsec._numbers import in_dtype
from flsec.errors import ConfigError
from flsec.strategies.replies import GlobalModel, Malformed, Reply, check_num_examples

MODEL = {
    "weight": np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.zeros(3, np.float64),
    "steps": np.array(5),
}


def global_model(arrays=None, names=None):
    return GlobalModel([npy_bytes(array) for array in arrays or MODEL.values()], names)


def reply(client_id, arrays, num_examples=10, metrics=None, names=None):
    tensors = [array if isinstance(array, bytes) else npy_bytes(array) for array in arrays]
    return Reply(client_id, tensors, names, num_examples, metrics or {"loss": 1.0}, None)


def moved(seed):
    rng = np.random.default_rng(seed)
    return [
        MODEL["weight"] + rng.standard_normal((3, 4)).astype(np.float32),
        MODEL["bias"] + rng.standard_normal(3),
        MODEL["steps"] + seed,
    ]


def parse(model, replies, **options):
    cohort, quarantined, _ = model.parse(replies, **{"round": 1, "max_num_examples": 10**9, **options})
    return cohort, quarantined


def test_rows_are_local_minus_global_ordered_by_client():
    replies = [reply(i, moved(i), num_examples=i + 1) for i in (30, 10, 20)]
    cohort, quarantined = parse(global_model(), replies)
    assert not quarantined
    assert cohort.client_ids == (10, 20, 30)
    assert cohort.sources == (1, 2, 0)
    assert cohort.num_examples.tolist() == [11, 21, 31]
    assert [int(buffers[0]) for buffers in cohort.buffers] == [15, 25, 35]
    assert not cohort.modified
    for row, seed in zip(cohort.updates, (10, 20, 30), strict=True):
        local = moved(seed)
        expected = [(local[i].astype(np.float64) - list(MODEL.values())[i]).ravel() for i in (0, 1)]
        np.testing.assert_allclose(row.numpy(), np.concatenate(expected), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "V2"])
def test_a_negative_variance_is_quarantined_in_every_type(dtype):
    def arrays(variance):
        return [np.ones((2, 2), np.float32), in_dtype(np.full(2, variance), (2,), np.dtype(dtype))]

    model = GlobalModel(list(map(npy_bytes, arrays(1.0))), ["weight", "running_var"], lambda _: {1})
    cohort, quarantined = parse(model, [reply(1, arrays(0.5)), reply(2, arrays(-0.5))])
    assert cohort.client_ids == (1,)
    assert "a negative variance in array 'running_var'" in quarantined[0].reason


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_difference_is_not_rounded_to_the_models_dtype(dtype):
    start = np.array([1.0, 1000.0, -6e4], dtype)
    local = np.array([1.0009765625, -0.4375, 6e4], dtype)  # -1000.4375 and 1.2e5 are no float16
    cohort, quarantined = parse(global_model([start]), [reply(1, [local])])
    assert not quarantined
    expected = local.astype(np.float64) - start.astype(np.float64)
    np.testing.assert_allclose(cohort.updates[0].numpy(), expected, rtol=1e-7)


def test_one_column_after_another_and_row_after_row_are_the_same_array():
    start = np.asfortranarray(MODEL["weight"])
    local = MODEL["weight"] + np.arange(12, dtype=np.float32).reshape(3, 4)
    for model in (start, MODEL["weight"]):
        for sent in (local, np.asfortranarray(local), local.astype(">f4"), local.astype(np.float64)):
            cohort, quarantined = parse(global_model([model]), [reply(1, [sent])])
            assert not quarantined
            np.testing.assert_array_equal(cohort.updates[0].numpy(), np.arange(12))


def test_an_overflowing_difference_of_finite_numbers_is_quarantined():
    large = np.full(3, 3e38, np.float32)
    cohort, quarantined = parse(global_model([-large]), [reply(1, [large]), reply(2, [-large])])
    assert cohort.client_ids == (2,)
    assert "infinity" in quarantined[0].reason


def test_finite_numbers_whose_sum_overflows_are_kept():
    large = np.full(100, 3e38, np.float32)
    cohort, quarantined = parse(global_model([np.zeros(100, np.float32)]), [reply(1, [large])])
    assert not quarantined
    assert bool(cohort.updates.isfinite().all())


def test_infinities_that_cancel_in_the_sum_are_seen():
    sent = np.array([np.inf, -np.inf, 0], np.float32)
    cohort, quarantined = parse(global_model([np.zeros(3, np.float32)]), [reply(1, [sent])])
    assert len(cohort) == 0
    assert len(quarantined) == 1


def test_empty_and_dimensionless_arrays_are_read():
    arrays = [np.zeros((0, 3), np.float32), np.array(2.0, np.float32), np.zeros((2, 0), np.float64)]
    local = [arrays[0], np.array(5.0, np.float32), arrays[2]]
    cohort, quarantined = parse(global_model(arrays), [reply(1, local)])
    assert not quarantined
    assert cohort.updates.tolist() == [[3.0]]


def test_a_model_without_floats_is_refused():
    with pytest.raises(ConfigError, match="no floating arrays"):
        global_model([np.array(3)])


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array(["a", "b"]), "dtype <U1"),
        (np.array([None, 1], dtype=object), "no numpy array"),
        (np.zeros(2, "datetime64[s]"), "dtype datetime64"),
        (np.array([1.0, np.nan]), "NaN or infinity"),
        (b"a tree in bytes", "no numpy array"),
    ],
)
def test_a_model_that_cannot_be_defended_is_refused_with_the_array_named(array, what):
    data = array if isinstance(array, bytes) else npy_bytes(array)
    with pytest.raises(ConfigError, match=what) as caught:
        GlobalModel([npy_bytes(MODEL["weight"]), data], ["weight", "other"])
    assert "'other'" in str(caught.value)


def test_an_empty_model_is_refused():
    with pytest.raises(ConfigError, match="initial_parameters"):
        GlobalModel([])


def test_a_second_reply_is_quarantined_also_after_a_malformed_one():
    bad = [np.full((3, 4), np.nan, np.float32), *moved(1)[1:]]
    cohort, quarantined = parse(global_model(), [reply(1, bad), reply(1, moved(1)), reply(2, moved(2))])
    assert cohort.client_ids == (2,)
    assert ["NaN" in q.reason or "twice" in q.reason for q in quarantined] == [True, True]


def test_arrays_are_matched_by_name_where_there_are_names():
    names = list(MODEL)
    local = moved(3)
    expected, _ = parse(global_model(names=names), [reply(1, local, names=names)])
    turned, quarantined = parse(global_model(names=names), [reply(1, local[::-1], names=names[::-1])])
    assert not quarantined
    np.testing.assert_array_equal(turned.updates.numpy(), expected.updates.numpy())
    other, quarantined = parse(global_model(names=names), [reply(1, local, names=["weight", "bias", "other"])])
    assert len(other) == 0
    assert "other" in quarantined[0].reason


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.lists(st.integers())))
def test_num_examples_is_a_number_between_0_and_the_largest_or_is_refused(value):
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 10**9
    if sound:
        check_num_examples(value, 10**9)
    else:
        with pytest.raises(Malformed, match="num_examples"):
            check_num_examples(value, 10**9)


def test_a_fraction_counts_as_the_weight_it_is():
    """Flower's Message API lets users weigh by any number, not only by counts."""
    cohort, quarantined = parse(global_model(), [reply(1, moved(1), num_examples=0.25)])
    assert not quarantined
    assert cohort.num_examples.tolist() == [0.25]


def test_metrics_cost_nobody_its_place():
    metrics = [{"loss": 1.0}, {"loss": 2}, {"loss": [1.0]}, {"loss": math.nan}, {f"m{i}": 1.0 for i in range(2000)}, 7]
    replies = [Reply(i, reply(i, moved(i)).tensors, None, 10, m, None) for i, m in enumerate(metrics)]
    cohort, quarantined, left_out = global_model().parse(replies, round=1, max_num_examples=10**9)
    assert not quarantined
    assert cohort.client_ids == tuple(range(6))
    assert cohort.metrics == ({"loss": 1.0}, {"loss": 2}, {"loss": [1.0]}, {}, {}, {})
    assert set(left_out) == {3, 4, 5}


@given(st.integers(0, 10**6))
def test_flipped_bits_never_raise_and_leave_finite_rows(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(npy_bytes(moved(1)[0]))
    for _ in range(rng.integers(1, 8)):  # mostly in the header, which is 128 of 176 bytes
        data[rng.integers(len(data))] = rng.integers(256)
    model = global_model([MODEL["weight"]])
    cohort, quarantined = parse(model, [reply(1, [bytes(data)]), reply(2, [moved(2)[0]])])
    assert len(cohort) + len(quarantined) == 2
    assert 2 in cohort.client_ids
    assert math.isfinite(float(cohort.updates.abs().max()))


def test_parsing_changes_no_reply():
    replies = [reply(i, moved(i)) for i in range(3)]
    before = [list(r.tensors) for r in replies]
    cohort, _ = parse(global_model(), replies)
    cohort.updates.zero_()
    assert [list(r.tensors) for r in replies] == before
    np.testing.assert_array_equal(np.load(io.BytesIO(replies[1].tensors[0])), moved(1)[0])
