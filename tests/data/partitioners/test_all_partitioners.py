"""What every partitioner promises; one contract, run on each."""

import time
import tracemalloc
from functools import partial

import numpy as np
import pytest

from flsec.data import PARTITIONERS, make_partition
from flsec.errors import ConfigError
from flsec.testing import check_partitioner

# (parameters, does it deal every sample?) for 20 clients of 1,000 samples, 10 classes, 25 natural ids
CASES = {
    "iid": ({}, True),
    "dirichlet": ({"alpha": 0.3, "min_size": 5}, True),
    "group_bias": ({"bias": 0.6}, True),
    "sort_and_shard": ({"shards_per_client": 2}, True),
    "one_class": ({"samples_per_client": 7}, False),
    "natural": ({"split_each": 2}, False),
    "flwr_partitioner": ({"partitioner": "IidPartitioner"}, True),
}
N, CLIENTS = 1000, 20


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10, N), rng.integers(0, 25, N)


def deal(name, seed=0, num_clients=CLIENTS, **changes):
    labels, groups = data()
    return make_partition(name, labels, num_clients, groups=groups, seed=seed, **(CASES[name][0] | changes))


each = pytest.mark.parametrize("name", PARTITIONERS.names())


def test_every_partitioner_is_under_this_contract():
    assert set(CASES) == set(PARTITIONERS.names())


@each
@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_dealt_at_most_once_and_all_where_promised(name, seed):
    partition = deal(name, seed)
    dealt = np.concatenate(list(partition))
    assert len(partition) == CLIENTS
    assert len(np.unique(dealt)) == len(dealt) == partition.sizes().sum()
    assert dealt.min() >= 0
    assert dealt.max() < N
    assert (len(dealt) == N) == CASES[name][1]


@each
def test_the_seed_decides_and_nothing_else(name):
    np.random.seed(1)
    first = deal(name, seed=3)
    np.random.seed(2)
    again, other = deal(name, seed=3), deal(name, seed=4)
    assert (first.indices == again.indices).all()
    assert (first.offsets == again.offsets).all()
    assert first.indices.shape != other.indices.shape or (first.indices != other.indices).any()


@each
def test_membership_changes_with_the_seed_not_only_the_order(name):
    members = {frozenset(deal(name, seed)[0].tolist()) for seed in range(8)}
    assert len(members) > 1


@each
def test_nothing_is_mutated(name):
    labels, groups = data()
    before = labels.copy(), groups.copy()
    make_partition(name, labels, CLIENTS, groups=groups, **CASES[name][0])
    assert (labels == before[0]).all()
    assert (groups == before[1]).all()


@each
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_the_type_of_the_labels_does_not_matter(name, dtype):
    labels, groups = data()
    partition = make_partition(name, labels.astype(dtype), CLIENTS, groups=groups, **CASES[name][0])
    assert (partition.indices == deal(name).indices).all()


@each
@pytest.mark.parametrize("num_clients", [0, -3, 2.5, "ten"])
def test_a_wrong_number_of_clients_is_named(name, num_clients):
    with pytest.raises(ConfigError, match=f"{name}.*num_clients.*Allowed: int, at least 1"):
        deal(name, num_clients=num_clients)


@pytest.mark.parametrize(
    "name", sorted(set(CASES) - {"group_bias"})
)  # whose sizes are random: it promises nobody a sample
def test_more_clients_than_the_data_allows_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}.*(1001|2002)"):
        deal(name, num_clients=N + 1)


@each
@pytest.mark.parametrize("labels", [[], [[[1, 2]]], [0.5, 1.0], ["a", "b"]], ids=["none", "3-d", "floats", "text"])
def test_wrong_labels_are_named(name, labels):
    required = {key: CASES[name][0][key] for key in ("alpha",) if key in CASES[name][0]}
    with pytest.raises(ConfigError, match=f"{name}.*labels must be \\(n,\\) integers"):
        make_partition(name, labels, 1, **required)


@each
def test_sequences_of_labels_are_dealt_by_number_or_refused(name):
    params, sequences = CASES[name][0], np.zeros((40, 3), dtype=int)
    groups = np.repeat(np.arange(4), 10)
    if name in ("iid", "natural", "flwr_partitioner"):
        of_sequences = make_partition(name, sequences, 4, groups=groups, **params)
        of_numbers = make_partition(name, sequences[:, 0], 4, groups=groups, **params)
        assert of_sequences.indices.tolist() == of_numbers.indices.tolist()
    else:
        with pytest.raises(ConfigError, match=f"{name}.*sequences of labels, of shape \\(40, 3\\). Use 'iid'"):
            make_partition(name, sequences, 4, groups=groups, **params)


@each
def test_an_unknown_parameter_is_named(name):
    with pytest.raises(ConfigError, match=f"{name}' has no parameter 'colour'"):
        deal(name, colour="red")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("iid", {}),
        ("dirichlet", {"alpha": 0.5}),
        ("group_bias", {"bias": 0.5}),
        ("sort_and_shard", {}),
        ("one_class", {"samples_per_client": 5}),
        ("natural", {"split_each": 10}),
    ],
)
def test_35_000_clients_take_a_moment_and_a_few_megabytes(name, parameters):
    """The size of the largest published simulation: 3,500 writers with 200 images each, split in ten."""
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 62, 200_000), np.arange(200_000) % 3_500
    tracemalloc.start()
    start = time.perf_counter()
    partition = make_partition(name, labels, 35_000, groups=groups, **parameters)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(partition) == 35_000
    assert peak < 25e6  # one array of owners is 1.6 MB; a list of arrays per client would be 10 MB more
    assert seconds < 5  # some 0.1 s on an idle machine


def test_unknown_partitioner_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no partitioner 'dirichlett'\. Did you mean 'dirichlet'"):
        make_partition("dirichlett", [0], 1)


@each
def test_the_contract(name):
    check_partitioner(partial(PARTITIONERS.get(name), **CASES[name][0]))
