import pickle

import numpy as np
import pytest
import torch

from flsec.data.datasets import npz
from flsec.errors import ConfigError
from tests.support.data_files import write_npz


def test_arrays_as_they_are_in_the_file(tmp_path):
    arrays = write_npz(tmp_path / "mine.npz", x_test=np.full((6, 4, 5), 51, np.uint8), y_test=np.arange(6) % 3)
    source = npz(str(tmp_path), file="mine.npz")
    x, y = source.train.tensors()
    assert torch.equal(x[:, 0], torch.from_numpy(arrays["x"]).float() / 255)  # bytes are pixels; a channel axis
    assert y.tolist() == arrays["y"].tolist()
    assert source.natural_ids("client").tolist() == arrays["client"].tolist()
    assert source.test.tensors()[0].unique().tolist() == pytest.approx([0.2])
    assert (source.num_classes, source.class_names, source.input_shape) == (3, ("0", "1", "2"), (1, 4, 5))


def test_without_a_test_set_a_share_of_each_class_is_held_out(tmp_path):
    arrays = write_npz(tmp_path / "mine.npz", n=90)
    source = npz(str(tmp_path), file="mine.npz", test_fraction=0.1)
    assert np.bincount(source.test.labels).tolist() == [3, 3, 3]
    assert np.bincount(source.train.labels).tolist() == [27, 27, 27]
    parts = [(part.tensors()[0] * 255).round().byte() for part in (source.train, source.test)]
    together = sorted(x.flatten().tolist() for x in torch.cat(parts))
    assert together == sorted(x.ravel().tolist() for x in arrays["x"])  # each sample in one part, once
    assert len(source.natural_ids()) == 81
    assert len(npz(str(tmp_path), file="mine.npz").test) == 18  # a fifth by default


def test_ids_follow_their_samples_into_the_training_part(tmp_path):
    values = np.arange(60, dtype=np.float64)[:, None]
    write_npz(tmp_path / "mine.npz", x=values)
    source = npz(str(tmp_path), file="mine.npz")
    x, y = source.train.tensors()
    assert (x[:, 0] % 5).long().tolist() == source.natural_ids().tolist()
    assert (x[:, 0] % 3).long().tolist() == y.tolist()


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["dog", "cat"] * 30), ("cat", "dog")),
        (np.array([7, -1] * 30), ("-1", "7")),
        (np.array([True, False] * 30), ("False", "True")),
        (np.arange(60) % 11, tuple(map(str, range(11)))),
    ],
)
def test_classes_are_numbered_in_sorted_order(tmp_path, y, names):
    write_npz(tmp_path / "mine.npz", x=np.arange(60.0)[:, None], y=y)
    source = npz(str(tmp_path), file="mine.npz")
    assert source.class_names == names
    x, labels = source.train.tensors()
    assert [names[label] for label in labels] == [str(y[int(row)]) for row in x[:, 0]]


def test_a_relative_file_starts_at_the_root_and_an_absolute_one_anywhere(tmp_path, monkeypatch):
    write_npz(tmp_path / "mine.npz")
    first = npz(str(tmp_path), file="mine.npz")
    assert npz(file=str(tmp_path / "mine.npz")) is first
    monkeypatch.setenv("FLSEC_DATA", str(tmp_path))
    assert npz(file="mine.npz") is first
    with pytest.raises(ConfigError, match=f"file 'other.npz' not found. Looked for: {tmp_path}/other.npz, .*absolute"):
        npz(file="other.npz")


def test_a_client_is_sent_as_path_and_rows(tmp_path):
    write_npz(tmp_path / "mine.npz", x=np.random.default_rng(0).random((60, 1000)))
    view = npz(str(tmp_path), file="mine.npz").train.subset([40, 3])
    sent = pickle.dumps(view)
    assert len(sent) < 1500
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": None}, "must have the arrays x and y.*it has: client, x"),
        ({"x_test": np.zeros((2, 4, 5), np.uint8)}, "either both of x_test and y_test or neither"),
        ({"y": np.arange(59) % 3}, r"y \(n,\).*got uint8 \(60, 4, 5\) and int64 \(59,\)"),
        ({"x": np.zeros(60)}, r"x must be numbers \(n, d\)"),
        ({"x": np.full((60, 2), np.nan)}, "x must be finite"),
        ({"x": np.full((60, 2), 1e39)}, "x must be finite"),
        ({"x": np.zeros((60, 32, 32, 3), np.uint8)}, r"channels first.*np.moveaxis\(x, -1, 1\)"),
        ({"y": np.random.default_rng(0).random(60)}, "labels must be whole numbers or texts; got float64"),
        ({"y": np.arange(60)}, "labels must be classes; got 60 different ones in 60 samples"),
        ({"client": np.zeros(7)}, r"client must be \(60,\)"),
        ({"x": np.array([{}] * 60, dtype=object)}, "broken|allow_pickle"),
        ({"x_test": np.zeros((2, 3)), "y_test": np.arange(2)}, "must have one shape"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, words):
    write_npz(tmp_path / "mine.npz", **changes)
    with pytest.raises(ConfigError, match=f"{words}"):
        npz(str(tmp_path), file="mine.npz")


def test_a_test_set_and_a_share_for_one_exclude_each_other(tmp_path):
    write_npz(tmp_path / "mine.npz", x_test=np.zeros((6, 4, 5), np.uint8), y_test=np.arange(6) % 3)
    with pytest.raises(ConfigError, match=r"the array x_test.*got test_fraction=0.5. Leave it out"):
        npz(str(tmp_path), file="mine.npz", test_fraction=0.5)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_a_part_empty_is_refused(tmp_path, share):
    write_npz(tmp_path / "mine.npz")
    with pytest.raises(ConfigError, match="test_fraction must leave samples"):
        npz(str(tmp_path), file="mine.npz", test_fraction=share)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine.npz is broken: it must be an npz file"):
        npz(str(tmp_path), file="mine.npz")
