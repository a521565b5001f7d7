import importlib

import numpy as np
import pytest

from flsec.data import make_partition
from flsec.data.partitioners import flwr_partitioner
from flsec.errors import ConfigError

pytest.importorskip("flwr_datasets")

RNG = np.random.default_rng(0)
LABELS, WRITERS = RNG.integers(0, 10, 400), RNG.integers(100, 108, 400)


def deal(partitioner, num_clients=8, seed=0, groups=None, labels=LABELS, **settings):
    return flwr_partitioner(labels, num_clients, partitioner=partitioner, settings=settings, groups=groups, seed=seed)


def test_shares_of_a_class_follow_a_dirichlet_distribution():
    even, skewed = (deal("DirichletPartitioner", alpha=alpha, min_partition_size=1) for alpha in (1000.0, 0.1))
    counts = [np.stack([np.bincount(LABELS[c], minlength=10) for c in p]) for p in (even, skewed)]
    assert all(count.sum() == 400 for count in counts)
    assert counts[1].std(axis=0).mean() > 3 * counts[0].std(axis=0).mean()


def test_so_many_classes_a_client_as_asked_for():
    partition = deal("PathologicalPartitioner", 10, num_classes_per_partition=2)
    assert [len(np.unique(LABELS[client])) for client in partition] == [2] * 10


def test_natural_ids_become_clients():
    partition = deal("NaturalIdPartitioner", groups=WRITERS)
    assert [np.unique(WRITERS[client]).tolist() for client in partition] == [[i] for i in range(100, 108)]
    assert sorted(partition.indices.tolist()) == list(range(400))


def test_sizes_as_asked_for_and_the_rest_unused():
    assert deal("SizePartitioner", 3, partition_sizes=[10, 20, 5]).sizes().tolist() == [10, 20, 5]
    sizes = deal("LinearPartitioner", 4).sizes()
    assert (np.diff(sizes) > 0).all()


def test_the_seed_decides_also_where_the_partitioner_draws_nothing():
    first, again, other = (deal("IidPartitioner", seed=seed).indices for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert first[:50].tolist() != list(range(50))


def test_sequences_of_labels_are_dealt_where_labels_do_not_matter():
    sequences = np.zeros((40, 3), dtype=int)
    assert deal("IidPartitioner", labels=sequences).sizes().tolist() == [5] * 8
    with pytest.raises(ConfigError, match="deals by class, and these samples have sequences"):
        deal("DirichletPartitioner", labels=sequences, alpha=1.0)


@pytest.mark.parametrize(
    ("partitioner", "settings", "words"),
    [
        ("Dirichlet", {}, "partitioner must be one of ContinuousPartitioner, Dirichlet.*; got 'Dirichlet'"),
        ("Partitioner", {}, "partitioner must be one of"),
        ("VerticalEvenPartitioner", {}, "partitioner must be one of"),
        ("DirichletPartitioner", {}, "DirichletPartitioner cannot deal 400 samples to num_clients=8: .*alpha"),
        ("DirichletPartitioner", {"beta": 1}, "has no setting 'beta' to write. It takes: partition_by, alpha"),
        ("IidPartitioner", {"num_partitions": 3}, "has no setting 'num_partitions' to write. It takes: none"),
        ("DirichletPartitioner", {"alpha": -1.0}, "DirichletPartitioner cannot deal 400 samples to num_clients=8: "),
        ("PathologicalPartitioner", {"num_classes_per_partition": 99}, "PathologicalPartitioner cannot deal "),
        ("SizePartitioner", {"partition_sizes": [5, 5]}, "makes 2 clients; got num_clients=8. Set num_clients=2"),
        ("NaturalIdPartitioner", {}, "needs the samples' natural ids"),
    ],
)
def test_what_it_refuses_is_one_sentence(partitioner, settings, words):
    with pytest.raises(ConfigError, match=words):
        deal(partitioner, **settings)


def test_by_name_with_its_settings():
    partition = make_partition(
        "flwr_partitioner", LABELS, 5, partitioner="DirichletPartitioner", settings={"alpha": 10.0}
    )
    assert len(partition) == 5


def test_without_the_library_it_says_what_to_install(monkeypatch):
    def absent(name, *args):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r'needs the package flwr-datasets.*pip install "flsec\[huggingface\]"'):
        deal("IidPartitioner")
