from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsec.data import load_dataset
from flsec.data.partitioners import natural
from flsec.errors import ConfigError


def zeros(groups):
    return np.zeros(len(groups), dtype=int)


def test_each_natural_client_is_one_client_in_the_order_of_ids():
    groups = np.random.default_rng(0).choice([7, 3, 2100], 90)
    partition = natural(zeros(groups), 3, groups=groups)
    for client, who in zip(partition, [3, 7, 2100], strict=True):
        assert sorted(client.tolist()) == np.flatnonzero(groups == who).tolist()


def test_ids_may_be_names():
    groups = np.array(["ROMEO", "JULIET", "ROMEO"])
    assert [sorted(client.tolist()) for client in natural(zeros(groups), 2, groups=groups)] == [[1], [0, 2]]


@given(seed=st.integers(0, 10_000), split_each=st.integers(1, 12))
def test_split_clients_are_even_parts_of_one_natural_client(seed, split_each):
    rng = np.random.default_rng(seed)
    groups = rng.choice(6, 80, p=rng.dirichlet(np.full(6, 1.0)))
    sizes = np.bincount(groups)
    total = sum(min(split_each, size) for size in sizes.tolist())
    partition = natural(zeros(groups), total, split_each=split_each, groups=groups, seed=seed)
    assert sorted(partition.indices.tolist()) == list(range(80))
    owner = [np.unique(groups[client]).tolist() for client in partition]
    assert all(len(ids) == 1 for ids in owner)
    for who in np.unique(groups):
        parts = [len(client) for client, ids in zip(partition, owner, strict=True) if ids == [who]]
        assert len(parts) == min(split_each, sizes[who])
        assert max(parts) - min(parts) <= 1
        assert min(parts) >= 1


def test_a_split_is_random_not_in_file_order():
    groups = np.zeros(100, dtype=int)
    means = [natural(groups, 2, split_each=2, groups=groups, seed=seed)[0].mean() for seed in range(50)]
    assert abs(np.mean(means) - 49.5) < 5 * 28.9 / np.sqrt(50 * 50)  # file order: 24.5


def test_some_natural_clients_when_fewer_are_asked_for():
    groups = np.repeat(np.arange(50), 4)
    chosen = []
    for seed in range(100):
        partition = natural(zeros(groups), 10, groups=groups, seed=seed)
        ids = [int(groups[client][0]) for client in partition]
        assert ids == sorted(set(ids))
        assert partition.sizes().tolist() == [4] * 10
        chosen += ids
    times = np.bincount(chosen, minlength=50)
    assert np.abs(times - 20).max() < 5 * np.sqrt(100 * 0.2 * 0.8)


@given(seed=st.integers(0, 10_000), num_clients=st.integers(1, 30))
def test_merged_clients_hold_everything_and_differ_by_one_natural_client_at_most(seed, num_clients):
    groups = np.random.default_rng(seed).geometric(0.05, 200)
    natural_sizes = np.unique(groups, return_counts=True)[1]
    num_clients = min(num_clients, len(natural_sizes))
    partition = natural(zeros(groups), num_clients, leftover="merged", groups=groups, seed=seed)
    assert sorted(partition.indices.tolist()) == list(range(200))
    assert sum(len(np.unique(groups[client])) for client in partition) == len(natural_sizes)  # nobody is parted
    assert partition.sizes().min() >= 1
    assert partition.sizes().max() - partition.sizes().min() <= natural_sizes.max()


def test_as_many_clients_as_natural_ones_are_the_same_merged_or_not():
    groups = np.random.default_rng(0).choice(5, 40)
    dealt = [natural(zeros(groups), 5, leftover=leftover, groups=groups).indices for leftover in ("unused", "merged")]
    assert dealt[0].tolist() == dealt[1].tolist()


def test_too_few_natural_clients_names_the_split_that_would_do():
    groups = np.repeat(np.arange(4), [1, 5, 5, 9])
    words = r"4 natural clients, which split_each=2 makes 7; got num_clients=11.*split_each=4, which makes 13"
    with pytest.raises(ConfigError, match=words):
        natural(zeros(groups), 11, split_each=2, groups=groups)
    assert len(natural(zeros(groups), 11, split_each=4, groups=groups)) == 11
    with pytest.raises(ConfigError, match="split_each=4"):
        natural(zeros(groups), 11, split_each=3, groups=groups)
    with pytest.raises(ConfigError, match="only 20 samples"):
        natural(zeros(groups), 21, groups=groups)


def test_data_without_natural_ids_is_refused():
    with pytest.raises(ConfigError, match=r"needs the samples' natural ids.*'mnist' with its writers"):
        natural(np.zeros(3, dtype=int), 1)


def test_mnist_clients_are_the_writers_of_the_file(real_root):
    root = real_root("mnist_writers/mnist_writers.npz")
    source = load_dataset("mnist", root)
    writers = np.load(Path(root) / "mnist_writers" / "mnist_writers.npz")["train_writer"]
    partition = natural(source.train.labels, 539, groups=source.natural_ids())
    for client, writer in zip(partition, np.unique(writers), strict=True):
        assert sorted(client.tolist()) == np.flatnonzero(writers == writer).tolist()
    assert (partition.sizes().min(), partition.sizes().max()) == (19, 131)
