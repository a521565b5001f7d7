import numpy as np
import pytest
import torch

from flsec.data.datasets import chars74k
from flsec.errors import ConfigError


def arrays(writers=13):
    rng = np.random.default_rng(0)
    n = 62 * writers
    return {
        "images": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
        "labels": np.tile(np.arange(62, dtype=np.uint8), writers),
        "writers": np.repeat(np.arange(writers, dtype=np.uint8), 62),
        "chars": np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")),
    }


def put(root, table):
    (root / "chars74k_hnd").mkdir()
    np.savez(root / "chars74k_hnd" / "chars74k_hnd.npz", **table)
    return str(root)


def test_images_labels_and_writers_belong_together(tmp_path):
    table = arrays()
    source = chars74k(put(tmp_path, table))
    x, y = source.train.tensors()
    writers = source.natural_ids("writer")
    kept = np.isin(table["writers"], writers)
    assert torch.equal(x[:, 0], torch.from_numpy(table["images"][kept]).float() / 255)
    assert y.tolist() == table["labels"][kept].tolist()
    assert writers.tolist() == table["writers"][kept].tolist()
    test_x, _ = source.test.tensors()
    assert torch.equal(test_x[:, 0], torch.from_numpy(table["images"][~kept]).float() / 255)


def test_whole_writers_are_held_out(tmp_path):
    source = chars74k(put(tmp_path, arrays()))
    assert (len(source.train), len(source.test)) == (2 * 62, 11 * 62)
    assert np.bincount(source.test.labels).tolist() == [11] * 62
    assert np.unique(source.natural_ids("writer"), return_counts=True)[1].tolist() == [62, 62]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((806, 28, 28), np.float32)}, "images must be uint8"),
        ({"writers": np.zeros(805, np.uint8)}, r"writers \(n,\).*writers uint8 \(805,\)"),
        ({"labels": np.full(806, 62, np.uint8)}, r"labels must be 0 \.\. 61"),
        ({"writers": np.zeros(806, np.uint8)}, "by more than 11 writers"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, words):
    with pytest.raises(ConfigError, match=f"chars74k_hnd.npz is broken: .*{words}"):
        chars74k(put(tmp_path, arrays() | change))


def test_the_real_one(real_root):
    source = chars74k(real_root("chars74k_hnd/chars74k_hnd.npz"))
    assert (len(source.train), len(source.test)) == (44 * 62, 11 * 62)
    assert len(np.unique(source.natural_ids("writer"))) == 44
    assert "".join(source.class_names).startswith("0123456789ABC")
    x, _ = source.train.tensors(range(0, 2728, 7))
    assert x.min() == 0
    assert x.max() == 1
    assert x.mean() < 0.4  # white on black
