"""The checks of a partitioner."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec._contracts.battery import check_documented
from flsec.data.partition import Partition
from flsec.errors import ConfigError
from flsec.parameters import check_parameters, parameters_of

_N, _CLASSES, _IDS = 1000, 10, 25  # samples, their classes and natural ids
_MANY = (1, 2, 5, 10, 20, 25)  # clients


def bare(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function inside partials, and the keyword arguments that they give it."""
    given: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        given, function = {**function.keywords, **given}, function.func
    return function, given


class PartitionerBattery:
    def __init__(self, partitioner: Callable[..., Partition], uses_seed: bool, shares_samples: bool):
        self._partitioner, self._given = bare(partitioner)
        self._uses_seed, self._shares_samples = uses_seed, shares_samples
        rng = np.random.default_rng(0)
        self._labels, self._groups = rng.integers(0, _CLASSES, _N), rng.integers(0, _IDS, _N)

    def _deal(self, num_clients: Any, seed: int = 0, **changes: Any) -> Partition:
        """Deal as ``make_partition`` does: the signature is checked first, and ids reach only those who take them."""
        title = f"partitioner {self._partitioner.__name__!r}"
        check_parameters(self._partitioner, {**self._given, "num_clients": num_clients}, name=title)
        supplied = {"labels": self._labels, "seed": seed, "groups": self._groups} | changes
        if "groups" not in parameters_of(self._partitioner):
            supplied.pop("groups")
        partition: Partition = self._partitioner(num_clients=num_clients, **supplied, **self._given)
        return partition

    def _possible(self) -> list[int]:
        """Return the numbers of clients that it can deal to."""
        possible = []
        for num_clients in _MANY:
            try:
                self._deal(num_clients)
            except ConfigError:
                continue
            possible.append(num_clients)
        assert possible, f"it refuses {_N} samples of {_CLASSES} classes for any of {_MANY} clients"
        return possible

    def is_documented(self) -> None:
        check_documented(self._partitioner)

    def takes_what_it_is_given(self) -> None:
        missing = {"labels", "num_clients", "seed"} - set(parameters_of(self._partitioner))
        assert not missing, f"it takes no {', '.join(sorted(missing))}"

    def honours_every_number_of_clients(self) -> None:
        for num_clients in self._possible():
            partition = self._deal(num_clients)
            assert isinstance(partition, Partition), f"it returns a {type(partition).__name__}"
            assert len(partition) == num_clients, f"{len(partition)} clients instead of {num_clients}"

    def deals_a_sample_at_most_once(self) -> None:
        for num_clients in self._possible():
            for seed in range(3):
                dealt = self._deal(num_clients, seed).indices
                assert dealt.size, f"nobody of {num_clients} clients gets a sample"
                assert 0 <= dealt.min() <= dealt.max() < _N, f"samples {dealt.min()} .. {dealt.max()} of {_N}"
                again = dealt.size - np.unique(dealt).size
                assert self._shares_samples or not again, f"{again} samples are dealt twice to {num_clients} clients"

    def follows_the_seed_and_nothing_else(self) -> None:
        for num_clients in self._possible():
            np.random.seed(1)
            first = self._deal(num_clients, seed=3)
            np.random.seed(2)
            assert _equal(first, self._deal(num_clients, seed=3)), "one seed gives two partitions"

    def differs_between_seeds(self) -> None:
        num_clients = next((number for number in self._possible() if number > 1), 1)
        if self._uses_seed and num_clients > 1:
            held = {frozenset(self._deal(num_clients, seed)[0].tolist()) for seed in range(8)}
            assert len(held) > 1, f"the first of {num_clients} clients gets the same samples whatever the seed"

    def leaves_its_arguments_alone(self) -> None:
        labels, groups = self._labels.copy(), self._groups.copy()
        self._deal(max(self._possible()))
        assert np.array_equal(labels, self._labels), "the labels were changed"
        assert np.array_equal(groups, self._groups), "the natural ids were changed"

    def reads_labels_of_any_integer_type(self) -> None:
        num_clients = max(self._possible())
        expected = self._deal(num_clients)
        for dtype in (np.uint8, np.int16, np.int32):
            found = self._deal(num_clients, labels=self._labels.astype(dtype))
            assert _equal(found, expected), f"another partition where labels are {np.dtype(dtype)}"

    def refuses_what_is_no_number_of_clients(self) -> None:
        for num_clients in (0, -3, 2.5, "ten", None):
            self._refuses(f"num_clients={num_clients!r}", num_clients)

    def refuses_what_are_no_labels(self) -> None:
        none = np.zeros(0, np.int64)
        texts: npt.NDArray[Any] = np.array(["a", "b"])
        for what, labels in {"no labels": none, "labels that are texts": texts, "floats": np.array([0.5, 1.0])}.items():
            self._refuses(what, 1, labels=labels, groups=np.zeros(len(labels), np.int64))

    def refuses_ids_of_other_samples(self) -> None:
        num_clients = max(self._possible())
        if self._reads_groups(num_clients):
            self._refuses("one natural id too few", num_clients, groups=self._groups[1:])

    def _reads_groups(self, num_clients: int) -> bool:
        if "groups" not in parameters_of(self._partitioner):
            return False
        try:
            return not _equal(self._deal(num_clients), self._deal(num_clients, groups=None))
        except ConfigError:
            return True

    def never_hands_out_more_than_there_is(self) -> None:
        """More clients than samples: refused, or some get nothing; never an invented or a shared sample."""
        try:
            partition = self._deal(_N + 1)
        except ConfigError:
            return
        assert len(partition) == _N + 1, f"{len(partition)} clients instead of {_N + 1}"
        assert self._shares_samples or np.unique(partition.indices).size == partition.indices.size, "a sample twice"

    def _refuses(self, what: str, num_clients: Any, **changes: Any) -> None:
        try:
            self._deal(num_clients, **changes)
        except ConfigError:
            return
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} instead of ConfigError: {error}") from error
        raise AssertionError(f"{what}: accepted")


def _equal(a: Partition, b: Partition) -> bool:
    return np.array_equal(a.indices, b.indices) and np.array_equal(a.offsets, b.offsets)
