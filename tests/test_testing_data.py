"""Each check of the contracts of data can fail: a data set or a partitioner that is broken in just that way."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from flsec._contracts.datasets import DatasetBattery
from flsec._contracts.partitioners import PartitionerBattery
from flsec.data import ArrayDataset, DataSource, Partition
from flsec.data.datasets import har
from flsec.data.partitioners import dirichlet, iid, one_class
from flsec.data.partitioners._checks import checked_groups, checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.testing import check_dataset, check_partitioner

# --- data sets


def arrays(seed=0, n=60, **options):
    rng = np.random.default_rng(seed)
    return ArrayDataset(rng.normal(size=(n, 4)).astype(np.float32), np.arange(n) % 3, **options)


def source(train=None, test=None, **changes):
    parts = {"train": arrays(0) if train is None else train, "test": arrays(1) if test is None else test}
    return DataSource("toy", **parts, num_classes=3, input_shape=(4,), **changes)


def sound(root: str | None = None) -> DataSource:
    """Return toys.

    Args:
        root: not used.

    Source: ours.
    """
    return source(groups={"owner": np.arange(60) % 5})


def broken(load):
    """Give a data set's function the documentation that it is to have."""
    load.__doc__ = sound.__doc__
    return load


def undocumented(root=None):
    return source()


@broken
def without_root():
    return source()


@broken
def with_another_root(root="/data"):
    return source()


@broken
def something_else(root=None):
    return arrays()


@broken
def one_part(root=None):
    part = arrays()
    return source(part, part)


@broken
def empty(root=None):
    return source(test=arrays(n=0))


class Loose(DataSource):
    """One whose own checks are off."""

    def __post_init__(self):
        pass


@broken
def strange_labels(root=None):
    part = arrays()
    part.labels = part.labels + 1
    return Loose("toy", part, arrays(1), 3, (4,))


@broken
def untrained_class(root=None):
    train = arrays()
    return source(train.subset(np.flatnonzero(train.labels < 2)))


@broken
def other_shape(root=None):
    return Loose("toy", arrays(), arrays(1), 3, (2, 2))


@broken
def not_finite(root=None):
    data = np.zeros((60, 4), np.float32)
    data[7] = np.nan
    return source(ArrayDataset(data, np.arange(60) % 3))


class Shuffling(ArrayDataset):
    """A subset that mixes its samples up."""

    def subset(self, indices):
        return super().subset(np.sort(indices))


@broken
def mixed_up(root=None):
    rng = np.random.default_rng(0)
    return source(Shuffling(rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3))


class Shared(ArrayDataset):
    """Hands out one tensor for the same rows, whatever was done to it."""

    def tensors(self, indices=None):
        x, y = super().tensors(indices)
        return self.__dict__.setdefault("kept", {}).setdefault(str(indices), x), y


@broken
def window(root=None):
    rng = np.random.default_rng(0)
    return source(Shared(rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3))


@broken
def one_owner(root=None):
    return source(groups={"owner": np.zeros(60, np.int64)})


@broken
def names_as_ids(root=None):
    return source(groups={"owner": np.array(["a", "b"] * 30)})


CALLS = []


@broken
def another_each_time(root=None):
    CALLS.append(1)
    return source(arrays(len(CALLS)))


@broken
def torch_state(root=None):
    torch.rand(1)
    return source()


class Heavy(ArrayDataset):
    """Sends all rows along with any view."""

    def __getstate__(self):
        return {**super().__getstate__(), "luggage": bytes(100_000)}


@broken
def heavy(root=None):
    rng = np.random.default_rng(0)
    return source(Heavy(rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3))


@broken
def by_process(root=None):
    return source(arrays(os.getpid()))


@broken
def leaking(root=None):
    return source(test=arrays(0).subset(range(0, 60, 2)))


@broken
def falling_back(root=None):
    return source() if root is None else source(arrays(2, n=30))


BROKEN_DATASETS = [
    ("is_documented", undocumented, "no Args: section"),
    ("takes_a_root", without_root, "no parameter root"),
    ("takes_a_root", with_another_root, "root must be None by default; it is '/data'"),
    ("is_a_data_source_with_samples", something_else, "it returns a ArrayDataset"),
    ("is_a_data_source_with_samples", one_part, "the test set is the training set"),
    ("is_a_data_source_with_samples", empty, "test has no sample"),
    ("has_labels_of_its_classes", strange_labels, r"labels of train must lie in 0 \.\. 2; got 1 \.\. 3"),
    ("has_labels_of_its_classes", untrained_class, "no training sample is of the class 2"),
    ("has_samples_of_the_shape_that_it_says", other_shape, r"x \(60, 4\) instead of \(60, 2, 2\)"),
    ("has_samples_of_the_shape_that_it_says", not_finite, "values that are not finite"),
    ("gives_the_same_samples_in_any_order_and_number", mixed_up, r"subset\(\) and tensors\(\) give different"),
    ("gives_the_same_samples_in_any_order_and_number", window, r"tensors\(\) returns a window on the data"),
    ("has_an_id_for_every_training_sample", one_owner, "one id for all"),
    ("has_an_id_for_every_training_sample", names_as_ids, "must be whole numbers"),
    ("is_the_same_when_loaded_again", another_each_time, "train: other samples"),
    ("is_the_same_when_loaded_again", torch_state, "torch's global random state"),
    ("travels_light", heavy, "train: 60 samples take 10.* bytes to send"),
    ("is_the_same_in_another_process", by_process, "a new process loads other samples"),
    ("keeps_test_samples_out_of_training", leaking, "100.0 % of the test samples"),
    ("finds_no_other_data_in_a_root_that_is_not_there", falling_back, "from a root that is not there"),
]


@pytest.mark.parametrize(("check", "load", "reason"), BROKEN_DATASETS)
def test_each_check_of_a_data_set_can_fail(check, load, reason):
    with pytest.raises(AssertionError, match=reason):
        getattr(DatasetBattery(load, most_repeated=0.02), check)()


def test_a_sound_data_set_passes_every_check():
    check_dataset(sound)


def test_no_check_of_a_data_set_is_left_out():
    checks = {name for name in vars(DatasetBattery) if not name.startswith("_")}
    assert checks == {check for check, _, _ in BROKEN_DATASETS}


def test_the_message_names_data_set_and_check():
    with pytest.raises(AssertionError, match=r"leaking: keeps test samples out of training: AssertionError: 100.0 %"):
        check_dataset(leaking)


def test_real_doubles_can_be_allowed_for():
    check_dataset(leaking, most_repeated=1.0)


def test_data_that_are_not_there_are_no_broken_contract(tmp_path):
    with pytest.raises(ConfigError, match="not found"):
        check_dataset(partial(har, str(tmp_path)))


# --- partitioners


def halves(
    labels: np.ndarray,
    num_clients: PositiveCount,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    use_groups: bool = False,
) -> Partition:
    """Deal evenly.

    Args:
        labels: labels.
        num_clients: how many.
        groups: ids.
        seed: of the run.
        use_groups: ask for ids.

    Source: ours.
    """
    labels = checked_labels(halves, labels, num_clients)
    if use_groups:
        checked_groups(halves, groups, len(labels), "leave it")
    if num_clients > len(labels):
        raise ConfigError("too many clients")
    return Partition.from_owners(np.arange(len(labels)) % num_clients, num_clients, np.random.default_rng(seed))


def changed(change):
    """A partitioner like ``halves`` whose result or whose arguments are changed."""

    def deal(labels: np.ndarray, num_clients: int, *, groups: np.ndarray | None = None, seed: int = 0) -> Partition:
        return change(labels, num_clients, groups, seed)

    deal.__doc__ = halves.__doc__
    return deal


def dealt_twice(labels, num_clients, groups, seed):
    partition = halves(labels, num_clients, seed=seed)
    rows = partition.indices.copy()
    rows[0] = rows[1]
    return Partition(rows, partition.offsets, disjoint=False)


def by_global_state(labels, num_clients, groups, seed):
    return halves(labels, num_clients, seed=np.random.randint(1000))


def writing(labels, num_clients, groups, seed):
    labels[0] = 0 if labels[0] else 1
    return halves(labels, num_clients, seed=seed)


def by_type(labels, num_clients, groups, seed):
    return halves(labels, num_clients, seed=seed + labels.dtype.itemsize)


def beyond(labels, num_clients, groups, seed):
    partition = halves(labels, num_clients, seed=seed)
    return Partition(partition.indices + 1, partition.offsets)


def reading_ids(labels, num_clients, groups, seed):
    ids = np.zeros(len(labels), np.int64) if groups is None else groups
    return halves(labels, num_clients, seed=seed + int(ids.sum()))


def crowded(labels, num_clients, groups, seed):
    labels = checked_labels(halves, labels, num_clients)
    return Partition(np.arange(num_clients) % len(labels), np.arange(num_clients + 1), disjoint=False)


def unchecked(labels, num_clients, groups, seed):
    return Partition(np.arange(len(labels)), np.linspace(0, len(labels), num_clients + 1).astype(int))


def refusing(labels, num_clients, groups, seed):
    raise ConfigError("never")


def bare_function(labels, num_clients, seed=0):
    return halves(labels, num_clients, seed=seed)


def without_seed(labels: np.ndarray, num_clients: int) -> Partition:
    return halves(labels, num_clients)


BROKEN_PARTITIONERS = [
    ("is_documented", bare_function, "no Args: section"),
    ("takes_what_it_is_given", without_seed, "it takes no seed"),
    ("honours_every_number_of_clients", changed(refusing), "refuses 1000 samples of 10 classes"),
    ("honours_every_number_of_clients", changed(lambda y, n, g, s: halves(y, n + 1, seed=s)), "2 clients instead of 1"),
    ("honours_every_number_of_clients", changed(lambda y, n, g, s: list(halves(y, n, seed=s))), "it returns a list"),
    ("deals_a_sample_at_most_once", changed(dealt_twice), "1 samples are dealt twice to 1 clients"),
    ("deals_a_sample_at_most_once", changed(beyond), r"samples 1 \.\. 1000 of 1000"),
    ("follows_the_seed_and_nothing_else", changed(by_global_state), "one seed gives two partitions"),
    ("differs_between_seeds", changed(lambda y, n, g, s: halves(y, n)), "the same samples whatever the seed"),
    ("leaves_its_arguments_alone", changed(writing), "the labels were changed"),
    ("reads_labels_of_any_integer_type", changed(by_type), "another partition where labels are uint8"),
    ("refuses_what_is_no_number_of_clients", changed(unchecked), "num_clients=-3: ValueError instead of ConfigError"),
    ("refuses_what_are_no_labels", changed(unchecked), "no labels: accepted"),
    ("refuses_ids_of_other_samples", changed(reading_ids), "one natural id too few: accepted"),
    ("never_hands_out_more_than_there_is", changed(crowded), "a sample twice"),
]


@pytest.mark.parametrize(("check", "partitioner", "reason"), BROKEN_PARTITIONERS)
def test_each_check_of_a_partitioner_can_fail(check, partitioner, reason):
    with pytest.raises(AssertionError, match=reason):
        getattr(PartitionerBattery(partitioner, uses_seed=True, shares_samples=False), check)()


@pytest.mark.parametrize("partitioner", [iid, partial(dirichlet, alpha=0.1)])
def test_a_sound_partitioner_passes_every_check(partitioner):
    check_partitioner(partitioner)


@pytest.mark.parametrize("use_groups", [False, True])
def test_one_that_gives_clients_the_same_samples_passes_if_it_says_so(use_groups):
    check_partitioner(partial(halves, use_groups=use_groups), uses_seed=False)


def test_no_check_of_a_partitioner_is_left_out():
    checks = {name for name in vars(PartitionerBattery) if not name.startswith("_")}
    assert checks == {check for check, _, _ in BROKEN_PARTITIONERS}


def test_what_a_partitioner_does_not_promise_can_be_said():
    check_partitioner(partial(one_class, samples_per_client=100, replace=True), shares_samples=True)
    with pytest.raises(AssertionError, match="one_class: deals a sample at most once"):
        check_partitioner(partial(one_class, samples_per_client=100, replace=True))
