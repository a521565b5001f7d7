"""The data of an experiment as objects: samples, who holds which, and what is learned from them."""

import contextlib
import functools

import numpy as np
import torch
from torch import Tensor

from flsec.data import ArrayDataset, DataSource, Partition, Vocabulary, load_dataset, make_partition, take_subset
from flsec.data.root import carve_root
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator
from flsec.simulations.problems import Problem, Unread, blame_parameter
from flsec.simulations.schema import Config, DataEntry
from flsec.tasks import Task

__all__ = ["DataResources", "Examples"]

Examples = tuple[Tensor, Tensor]  # (x, y)


class DataResources:
    """The samples of one experiment, and its task.

    Args:
        config: the experiment's configuration.
    """

    def __init__(self, config: Config):
        self.config = config

    # --- the data ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def _source_and_root(self) -> tuple[DataSource, ArrayDataset | None]:
        entry, source = self.config.data, _whole_source(self.config.data)
        if not self.config.asks_for("root_data"):
            return source, None
        root, rest = blame_parameter(
            ("data", "root_samples"), (), carve_root, source, entry.root_samples, self.config.seed
        )
        return rest, root

    @property
    def dataset(self) -> DataSource:
        """The clients' samples and the test set; without the server's root set, where a defense asks for one."""
        return self._source_and_root[0]

    @functools.cached_property
    def partition(self) -> Partition:
        """Which samples each client holds."""
        return self.partition_for(self.config.simulation.num_clients)

    def partition_for(self, num_clients: int) -> Partition:
        """Return which samples each client would hold if there were so many; ``partition`` is kept, this is not."""
        entry = self.config.data.partition
        labels = self.dataset.train.labels
        classes = self.task.classes(torch.from_numpy(labels))
        return blame_parameter(
            ("data", "partition"),
            entry.writable,
            make_partition,
            entry.name,
            labels if classes is None else classes.numpy(),
            num_clients,
            groups=self.dataset.natural_ids(),
            seed=self.config.seed,
            **entry.params,
        )

    @functools.cached_property
    def root_data(self) -> Examples | None:
        """Samples that the server has for itself; None where no defense asks for them."""
        root = self._source_and_root[1]
        return None if root is None else root.tensors()

    @functools.cached_property
    def client_samples(self) -> dict[int, Examples]:
        """The samples that each client gives to the server before training, and goes on using itself."""
        samples = {}
        for client_id in range(len(self.partition)):
            indices = self.partition[client_id]
            count = max(1, round(self.client_sample_share * len(indices)))
            drawn = numpy_generator(self.seed, 0, client_id, "client sample").permutation(len(indices))[:count]
            samples[client_id] = self.dataset.train.tensors(indices[np.sort(drawn)])
        return samples

    @functools.cached_property
    def auxiliary_data(self) -> Examples:
        """A copy of the test samples for attackers, who may write into it."""
        return self.dataset.test.tensors()

    @functools.cached_property
    def test_data(self) -> Examples:
        """The whole test set."""
        return self.dataset.test.tensors()

    @property
    def client_sample_share(self) -> float:
        """Which share of its data each client gives to the server."""
        return self.config.data.client_sample_share

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.dataset.input_shape

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return self.dataset.num_classes

    @functools.cached_property
    def task(self) -> Task:
        """What is learned: what the file says, or else what the data are for."""
        of_data, entry = self.dataset.task, self.config.task
        if entry is None:
            return of_data
        chosen: Task = blame_parameter(("task",), entry.writable, entry.member, **entry.params)
        if not chosen.takes_data_of(of_data):
            raise Problem(
                ("task", "name"),
                f"{chosen.name} cannot be learned from {self.dataset.name}, whose task is {of_data.name}: it needs "
                f"{chosen.inputs} as inputs. Leave task out, or choose other data.",
            )
        return chosen

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Turns text into tokens and back; None where the data are no text."""
        return self.dataset.vocabulary

    @property
    def seed(self) -> int:
        """Of all that is random."""
        return self.config.seed


def _whole_source(entry: DataEntry) -> DataSource:
    """Return the data set as the file wants it: some of its samples, scaled."""
    try:
        source = load_dataset(entry.name, **entry.params)
    except ConfigError as error:
        key = error.parameter if error.parameter in entry.writable else "name"
        raise Problem(("data", key), str(error)) from None
    for change in (_subset, _scaled, _augmented):
        with contextlib.suppress(Unread):  # the rest is checked on the data without what could not be read
            source = change(entry, source)
    return source


def _subset(entry: DataEntry, source: DataSource) -> DataSource:
    for key, part in (("subset", "train"), ("test_subset", "test")):
        source = blame_parameter(("data", key), (), take_subset, source, **{part: getattr(entry, key)})
    return source


def _scaled(entry: DataEntry, source: DataSource) -> DataSource:
    return source if entry.scale == 1 else blame_parameter(("data", "scale"), (), source.scaled, entry.scale)


def _augmented(entry: DataEntry, source: DataSource) -> DataSource:
    if entry.augment is not None:
        blame_parameter(("data", "augment"), ("crop",), entry.augment.check_shape, source.input_shape)
    return source
