"""The checks of a data set."""

import contextlib
import hashlib
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from flsec._contracts.battery import check_documented
from flsec._contracts.partitioners import bare
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator
from flsec.tasks.base import NOT_COUNTED

_MOST_ROWS = 10_000  # of each part that are compared, drawn at random: enough to see parts that overlap much
_FEW_ROWS = 100
_OVERHEAD = 4_000  # bytes that a view may take beside its samples: names, shapes, a path

_ELSEWHERE = """
import pickle, sys
sys.path[:0] = pickle.load(sys.stdin.buffer)
digest, load, view = (pickle.load(sys.stdin.buffer) for _ in range(3))
print(digest(view), digest(load().train.subset(range(len(view)))))
"""


class DatasetBattery:
    def __init__(self, load: Callable[..., DataSource], most_repeated: float):
        self._load, self._most_repeated = load, most_repeated
        self._source = load()

    def _parts(self) -> list[tuple[str, ArrayDataset]]:
        return [("train", self._source.train), ("test", self._source.test)]

    def is_documented(self) -> None:
        check_documented(bare(self._load)[0])

    def takes_a_root(self) -> None:
        root = inspect.signature(bare(self._load)[0]).parameters.get("root")
        assert root is not None, "it has no parameter root, which load_dataset passes on"
        assert root.default is None, f"root must be None by default; it is {root.default!r}"

    def is_a_data_source_with_samples(self) -> None:
        assert isinstance(self._source, DataSource), f"it returns a {type(self._source).__name__}"
        assert self._source.name, "it has no name"
        assert self._source.train is not self._source.test, "the test set is the training set"
        for part, dataset in self._parts():
            assert len(dataset) > 0, f"{part} has no sample"

    def has_labels_of_its_classes(self) -> None:
        for part, dataset in self._parts():
            labels = dataset.labels[dataset.labels != NOT_COUNTED]
            assert labels.size, f"{part} has no label that counts"
            low, high = int(labels.min()), int(labels.max())
            assert 0 <= low <= high < self._source.num_classes, (
                f"labels of {part} must lie in 0 .. {self._source.num_classes - 1}; got {low} .. {high}"
            )
        unknown = np.setdiff1d(self._source.test.labels, self._source.train.labels)
        assert self._source.test.labels.ndim == 2 or not unknown.size, (
            f"no training sample is of the class {unknown[0]}, which the test set has"
        )

    def has_samples_of_the_shape_that_it_says(self) -> None:
        tokens = self._source.task.inputs == "tokens"
        for part, dataset in self._parts():
            rows = _some(dataset, _FEW_ROWS)
            x, y = dataset.tensors(rows)
            shape = (len(rows), *self._source.input_shape)
            assert x.shape == shape, f"{part}: x {tuple(x.shape)} instead of {shape}"
            wanted = torch.int64 if tokens else torch.float32
            assert x.dtype == wanted, f"{part}: x is {x.dtype} instead of {wanted}"
            assert y.dtype == torch.int64, f"{part}: labels are {y.dtype}"
            assert y.numpy().shape == dataset.labels[rows].shape, f"{part}: labels of shape {tuple(y.shape)}"
            assert np.array_equal(y.numpy(), dataset.labels[rows]), f"{part}: tensors() and labels disagree"
            assert bool(x.isfinite().all()), f"{part}: values that are not finite"
            if tokens and self._source.vocabulary is not None:
                size = self._source.vocabulary.size
                assert 0 <= int(x.min()) <= int(x.max()) < size, f"{part}: tokens must lie in 0 .. {size - 1}"

    def gives_the_same_samples_in_any_order_and_number(self) -> None:
        for part, dataset in self._parts():
            rows = _some(dataset, _FEW_ROWS)
            x, y = dataset.tensors(rows)
            view = dataset.subset(rows[::-1])
            assert torch.equal(view.tensors()[0], x.flip(0)), f"{part}: subset() and tensors() give different samples"
            assert torch.equal(view.tensors()[1], y.flip(0)), f"{part}: subset() and tensors() give different labels"
            assert torch.equal(dataset[int(rows[0])][0], x[0]), f"{part}: [i] and tensors() give different samples"
            before = x.clone()
            x.add_(1)
            assert torch.equal(dataset.tensors(rows)[0], before), f"{part}: tensors() returns a window on the data"

    def has_an_id_for_every_training_sample(self) -> None:
        for kind, ids in (self._source.groups or {}).items():
            n = len(self._source.train)
            assert ids.shape == (n,), f"groups[{kind!r}] has the shape {ids.shape} for {n} training samples"
            assert ids.dtype.kind in "iu", f"groups[{kind!r}] must be whole numbers; got {ids.dtype}"
            assert len(np.unique(ids)) > 1, f"groups[{kind!r}] is one id for all"

    def is_the_same_when_loaded_again(self) -> None:
        state = torch.get_rng_state()
        np.random.seed(0)
        again = self._load()
        assert torch.equal(torch.get_rng_state(), state), "torch's global random state was used"
        for (part, dataset), other in zip(self._parts(), (again.train, again.test), strict=True):
            assert np.array_equal(dataset.labels, other.labels), f"{part}: other labels when loaded again"
            rows = _some(dataset, _FEW_ROWS)
            assert torch.equal(dataset.tensors(rows)[0], other.tensors(rows)[0]), f"{part}: other samples"

    def travels_light(self) -> None:
        for part, dataset in self._parts():
            rows = _some(dataset, _FEW_ROWS)
            view = dataset.subset(rows)
            x, y = view.tensors()
            size = len(_dumped(view))
            most = x.numel() * x.element_size() + y.numel() * y.element_size() + _OVERHEAD
            assert size <= most, f"{part}: {len(rows)} samples take {size} bytes to send, more than their {most}"

    def is_the_same_in_another_process(self) -> None:
        view = self._source.train.subset(range(min(_FEW_ROWS, len(self._source.train))))
        sent = [pickle.dumps(sys.path), *map(_dumped, (_digest, self._load, view))]
        seen = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            input=b"".join(sent),
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        )
        assert seen.returncode == 0, f"it fails in a new process: {seen.stderr.decode()[-500:]}"
        travelled, loaded = seen.stdout.decode().split()[-2:]
        assert travelled == _digest(view), "samples that were sent to a new process are others there"
        assert loaded == _digest(view), "a new process loads other samples, or in another order"

    def keeps_test_samples_out_of_training(self) -> None:
        train, test = (_fingerprints(dataset) for _, dataset in self._parts())
        repeated = len(test & train) / len(test)
        assert repeated <= self._most_repeated, (
            f"{100 * repeated:.1f} % of the test samples that were looked at are among the training samples; at most "
            f"{100 * self._most_repeated:g} % may be"
        )

    def finds_no_other_data_in_a_root_that_is_not_there(self) -> None:
        function, given = bare(self._load)
        with contextlib.suppress(ConfigError):
            labels = function(**{**given, "root": "/no/such/folder"}).train.labels
            assert np.array_equal(labels, self._source.train.labels), "from a root that is not there, it returns others"


def _some(dataset: ArrayDataset, most: int) -> npt.NDArray[np.int64]:
    """Return some rows, rising; all, where there are few."""
    order = numpy_generator(0, purpose="contract").permutation(len(dataset))
    return np.sort(order[:most])


def _fingerprints(dataset: ArrayDataset) -> set[bytes]:
    """Return what tells a sample and its label from others."""
    rows, found = _some(dataset, _MOST_ROWS), set()
    for start in range(0, len(rows), 1000):
        x, y = dataset.tensors(rows[start : start + 1000])
        pairs = zip(x.numpy(), y.numpy(), strict=True)
        found |= {hashlib.sha256(sample.tobytes() + label.tobytes()).digest() for sample, label in pairs}
    return found


def _digest(view: ArrayDataset) -> str:
    x, y = view.tensors()
    return hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()


def _dumped(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # a function made inside another one: Ray ships it all the same
        from ray import cloudpickle

        data: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
        return data
