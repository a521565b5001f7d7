import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from flsec.data import ArrayDataset, DataSource
from flsec.data._lazy import LazyArray
from flsec.errors import ConfigError

seeds = st.integers(0, 2**32 - 1)


def images(n=12, seed=0, shape=(3, 4, 5)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), rng.integers(0, 10, n)


READ: list[np.ndarray] = []
OPENED: list[int] = []


class Recorder:
    """An array that remembers which rows were asked for."""

    def __init__(self, n):
        OPENED.append(n)
        self.array = images(n)[0]

    def __getitem__(self, rows):
        READ.append(np.asarray(rows))
        return self.array[rows]


def forbidden():
    raise AssertionError("opened without need")


# --- values


def test_8_bit_images_lie_between_0_and_1():
    data, labels = images()
    data[0, 0, 0, :2] = 0, 255
    x, y = ArrayDataset(data, labels).tensors()
    assert torch.equal(x, torch.tensor(data.tolist()) / 255)
    assert (x.min(), x.max()) == (0, 1)
    assert y.tolist() == labels.tolist()
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint16", ">f4"])
def test_other_numbers_stay_as_they_are(dtype):
    data = np.arange(12).reshape(4, 3).astype(dtype)
    x, _ = ArrayDataset(data, [0] * 4).tensors()
    assert torch.equal(x, torch.arange(12.0).reshape(4, 3))


@given(seed=seeds, divisor=st.floats(0.5, 1e3))
def test_divisor_and_normalisation_against_float64(seed, divisor):
    rng = np.random.default_rng(seed)
    data, labels = images(seed=seed)
    mean, std = rng.normal(size=3), rng.uniform(0.1, 2, size=3)
    x, _ = ArrayDataset(data, labels, divisor=divisor, mean=mean, std=std).tensors()
    expected = (data / divisor - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(x.double().numpy(), expected, rtol=1e-5, atol=1e-4)


def test_one_mean_for_all_and_a_changed_normalisation():
    dataset = ArrayDataset(np.array([[1.0, 2.0], [3.0, 4.0]]), [0, 1])
    shifted = dataset.normalized(1.0, 2.0)
    assert shifted.tensors()[0].tolist() == [[0.0, 0.5], [1.0, 1.5]]
    assert (shifted.mean, shifted.std, dataset.mean) == ((1.0,), (2.0,), None)
    assert dataset.tensors()[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_nothing_mutates_the_array_or_the_labels():
    data, labels = np.ones((4, 2), dtype=np.float32), np.zeros(4, dtype=np.int64)
    dataset = ArrayDataset(data, labels, divisor=2, mean=0.5, std=2)
    x, y = dataset.tensors()
    x += 100
    y += 100
    dataset[0][0].fill_(7)
    view_x, view_y = dataset.subset([1, 2]).tensors()
    view_x += 1
    view_y += 1
    assert (data == 1).all()
    assert (labels == 0).all()
    assert (dataset.labels == 0).all()


# --- one sample, many samples, views


def test_a_sample_is_found_as_in_a_list():
    data, labels = images(n=5)
    dataset = ArrayDataset(data, labels)
    x, label = dataset[-1]
    assert torch.equal(x, dataset.tensors()[0][4])
    assert label == labels[4]
    assert isinstance(label, int)
    assert len(list(dataset)) == 5  # iteration ends by IndexError
    with pytest.raises(IndexError):
        dataset[5]


def test_a_torch_loader_sees_what_tensors_returns():
    dataset = ArrayDataset(*images(n=7)).subset([6, 0, 3])
    x, y = next(iter(DataLoader(dataset, batch_size=3)))
    expected_x, expected_y = dataset.tensors()
    assert torch.equal(x, expected_x)
    assert torch.equal(y, expected_y)


@given(seed=seeds)
def test_views_of_views_are_indexing_twice(seed):
    rng = np.random.default_rng(seed)
    data, labels = images(n=20, seed=seed)
    first, second, third = rng.integers(0, 20, 9), rng.integers(0, 9, 6), rng.integers(0, 6, 4)
    view = ArrayDataset(data, labels).subset(first).subset(second)
    expected = ArrayDataset(data[first][second], labels[first][second])
    assert len(view) == 6
    assert view.labels.tolist() == expected.labels.tolist()
    for got, wanted in zip(view.tensors(third), expected.tensors(third), strict=True):
        assert torch.equal(got, wanted)


def test_an_empty_view_has_empty_tensors():
    x, y = ArrayDataset(*images()).subset([]).tensors()
    assert x.shape == (0, 3, 4, 5)
    assert y.shape == (0,)


def test_a_view_does_not_follow_its_index_array():
    dataset, chosen = ArrayDataset(*images()), np.array([1, 2])
    view = dataset.subset(chosen)
    before = view.tensors()[0]
    chosen[:] = 0
    assert torch.equal(view.tensors()[0], before)


# --- laziness


def test_only_the_rows_of_the_view_are_read():
    dataset = ArrayDataset(LazyArray(Recorder, 50, shape=(50, 3, 4, 5), dtype=np.uint8), [0] * 50)
    view = dataset.subset([40, 7, 8])
    READ.clear()
    view.tensors()
    view.tensors([1])
    view[2]
    assert [rows.tolist() for rows in READ] == [[40, 7, 8], [7], [8]]


def test_all_views_share_one_array_per_process():
    dataset = ArrayDataset(LazyArray(Recorder, 6, shape=(6, 3, 4, 5), dtype=np.uint8), [0] * 6)
    OPENED.clear()
    for view in (dataset, dataset.subset([1]), pickle.loads(pickle.dumps(dataset))):
        view.tensors()
    assert OPENED == [6]


def test_nothing_is_opened_before_a_row_is_touched():
    dataset = ArrayDataset(LazyArray(forbidden, shape=(10, 2), dtype=np.float32), range(10))
    view = pickle.loads(pickle.dumps(dataset.subset([3, 4])))
    assert (len(view), view.input_shape, view.labels.tolist()) == (2, (2,), [3, 4])
    with pytest.raises(AssertionError, match="opened"):
        view.tensors()


def test_a_client_of_a_large_file_needs_memory_for_its_own_rows_only(tmp_path):
    path, shape = tmp_path / "large", (200_000, 1000)
    with path.open("wb") as file:
        file.truncate(shape[0] * shape[1])  # 200 MB of nothing, no disk
    dataset = ArrayDataset(np.memmap(path, np.uint8, "r", shape=shape), np.zeros(shape[0], dtype=np.uint8))
    tracemalloc.start()
    x, _ = dataset.subset(np.arange(0, 200_000, 10_000)).tensors()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.shape == (20, 1000)
    assert peak < 500_000  # the rows are 20 kB in the file, 80 kB as float32


def mapped(tmp_path, mode="r"):
    data, labels = images(n=40, shape=(6, 5))
    path = tmp_path / "data"
    path.write_bytes(b"header!" + data.tobytes())
    return np.memmap(path, np.uint8, mode, offset=7, shape=data.shape), data, labels


def test_a_mapped_set_pickles_as_its_path(tmp_path):
    array, data, labels = mapped(tmp_path)
    dataset = ArrayDataset(array, labels)
    sent = pickle.dumps(dataset)
    assert len(sent) < 800
    assert data[:4].tobytes() not in sent
    again = pickle.loads(sent)
    assert again.labels.dtype == np.int64
    assert torch.equal(again.tensors()[0], torch.from_numpy(data / np.float32(255)))


@pytest.mark.parametrize(
    "part",
    [
        lambda a: a[13:],  # numpy keeps the parent's file offset on a slice, which would be the wrong rows
        lambda a: a[3:][2:9],
        lambda a: a.reshape(20, 2, 30),
        lambda a: a[5:].reshape(-1, 1, 6, 5)[4:],
        lambda a: a[::2],
        lambda a: a[:, 1:3],
        lambda a: a[[4, 2]],
    ],
    ids=["slice", "slice of slice", "reshape", "both", "strided", "columns", "copy"],
)
def test_parts_of_a_map_arrive_as_the_same_numbers(tmp_path, part):
    array, data, _ = mapped(tmp_path)
    dataset = ArrayDataset(part(array), np.zeros(len(part(array)), dtype=int), divisor=1)
    again = pickle.loads(pickle.dumps(dataset))
    for found in (dataset, again):
        np.testing.assert_array_equal(found.tensors()[0].numpy(), part(data))


def test_a_private_map_keeps_its_changes(tmp_path):
    array, _, labels = mapped(tmp_path, mode="c")
    array[0] = 9
    dataset = ArrayDataset(array, labels, divisor=1)
    assert (pickle.loads(pickle.dumps(dataset)).tensors([0])[0] == 9).all()


def test_a_view_of_memory_pickles_its_own_rows_only():
    data, labels = images(n=10_000, shape=(1, 10, 10))
    view = ArrayDataset(data, labels).subset([9, 9999, 5])
    sent = pickle.dumps(view)
    assert len(sent) < 1500  # 300 bytes of pixels, not a million
    again = pickle.loads(sent)
    assert torch.equal(again.tensors()[0], view.tensors()[0])
    assert again.labels.tolist() == view.labels.tolist()
    assert torch.equal(again.subset([2]).tensors()[0][0], view[2][0])


# --- mistakes


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ArrayDataset(np.zeros((3, 2)), [0, 1]), "2 labels for 3 samples"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [-1]), "0 or more; got -1"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [0.5]), "integers; got float64"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [[[0]]]), r"shape \(1, 1, 1\)"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [0], divisor=0), "divisor must be finite and more than 0; got 0"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [0], divisor=float("nan")), "divisor"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [0], mean=1), "both mean and std"),
        (lambda: ArrayDataset(np.zeros((1, 3, 2, 2)), [0], mean=[1, 2], std=1), r"one per channel \(3\)"),
        (lambda: ArrayDataset(np.zeros((1, 2)), [0], mean=0, std=0), "std finite and more than 0"),
        (lambda: ArrayDataset(np.zeros((3, 2)), [0] * 3).subset([3]), r"0 \.\. 2; got 3 \.\. 3"),
        (lambda: ArrayDataset(np.zeros((3, 2)), [0] * 3).subset([-1]), r"0 \.\. 2; got -1"),
        (lambda: ArrayDataset(np.zeros((3, 2)), [0] * 3).subset([True, False, True]), r"np.flatnonzero\(mask\)"),
        (lambda: ArrayDataset(np.zeros((3, 2)), [0] * 3).tensors(1), "list of integers"),
    ],
)
def test_a_mistake_is_named(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


# --- DataSource


def source(**changes):
    train, test = ArrayDataset(*images(n=6)), ArrayDataset(*images(n=4, seed=1))
    parts = {"name": "toy", "train": train, "test": test, "num_classes": 10, "input_shape": (3, 4, 5)}
    return DataSource(**(parts | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_shape": (1, 4, 5)}, r"input_shape .* \(1, 4, 5\), but train has \(3, 4, 5\)"),
        ({"num_classes": 2}, r"num_classes - 1 = 1; train has"),
        ({"class_names": ("a",)}, "one class name per class, 10; got 1"),
        ({"groups": {"writer": np.zeros(5, dtype=int)}}, r"groups\['writer'\] .* \(6,\); got \(5,\)"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        source(**changes)


def test_natural_ids_by_kind():
    writer, desk = np.arange(6), np.arange(6) // 2
    known = source(groups={"writer": writer, "desk": desk})
    assert known.natural_ids() is writer
    assert known.natural_ids("desk") is desk
    assert source().natural_ids() is None
    with pytest.raises(ConfigError, match="has no natural ids 'speaker'; it has: writer, desk"):
        known.natural_ids("speaker")
    with pytest.raises(ConfigError, match="no natural ids; asked for 'writer'"):
        source().natural_ids("writer")


def test_a_source_is_normalized_in_both_parts():
    plain = source()
    changed = plain.normalized([0.5] * 3, [0.25] * 3)
    for part in ("train", "test"):
        x, _ = getattr(plain, part).tensors()
        torch.testing.assert_close(getattr(changed, part).tensors()[0], (x - 0.5) / 0.25)


def test_the_package_imports_neither_flower_nor_ray_nor_slow_loaders():
    code = (
        "import sys, flsec.data, flsec.data.datasets, flsec.data.partitioners\n"
        "print([m for m in ('flwr', 'ray', 'sklearn', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "[]"
