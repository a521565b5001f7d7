import numpy as np
import pytest
import torch

from flsec.data import load_dataset, make_partition
from flsec.data.datasets import mnist, mnist_writers
from flsec.errors import ConfigError


def put_writers(root, ids):
    (root / "mnist_writers").mkdir()
    np.savez(root / "mnist_writers" / "mnist_writers.npz", train_writer=ids)


def test_it_is_mnist_with_writers_as_clients(tmp_path, write_mnist):
    write_mnist(tmp_path)
    put_writers(tmp_path, np.arange(30, dtype=np.int16) // 4)
    source = mnist_writers(str(tmp_path))
    assert source.name == "mnist_writers"
    assert load_dataset("mnist_writers", str(tmp_path)) is source
    assert torch.equal(source.train.tensors()[0], mnist(str(tmp_path)).train.tensors()[0])
    partition = make_partition("natural", source.train.labels, 8, groups=source.natural_ids())
    assert [sorted(client.tolist()) for client in partition][:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_without_the_writers_it_says_what_has_them(tmp_path, write_mnist):
    write_mnist(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks mnist_writers/mnist_writers.npz.*train_writer.*QMNIST"):
        mnist_writers(str(tmp_path))


def test_the_real_one(real_root):
    source = mnist_writers(real_root("mnist_writers/mnist_writers.npz"))
    sizes = np.unique(source.natural_ids("writer"), return_counts=True)[1]
    assert (len(sizes), sizes.min(), sizes.max(), int(np.median(sizes))) == (539, 19, 131, 116)
