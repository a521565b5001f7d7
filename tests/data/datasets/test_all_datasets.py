"""What every data set promises; the registry is the list. One whose files are not there is skipped."""

import inspect
import pickle

import numpy as np
import pytest

from flsec.data import DATASETS, DataSource, load_dataset
from flsec.errors import ConfigError

each_dataset = pytest.mark.parametrize("name", DATASETS.names())


@pytest.fixture
def source(name: str) -> DataSource:
    try:
        return load_dataset(name)
    except ConfigError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(str(error))


@each_dataset
def test_takes_a_root_first_and_needs_no_other_parameter(name: str) -> None:
    first, *others = inspect.signature(DATASETS.get(name)).parameters.values()
    assert (first.name, first.default) == ("root", None)
    assert all(other.kind is other.KEYWORD_ONLY and other.default is not other.empty for other in others)


@each_dataset
def test_is_called_by_its_yaml_name_and_read_once(name: str, source: DataSource) -> None:
    assert source.name.split()[0] == name  # "cifar10 (JPEG)" says which copy was found
    assert load_dataset(name) is source


@each_dataset
def test_has_samples_of_every_class_in_both_parts(name: str, source: DataSource) -> None:
    if source.task.name not in ("classification", "text_classification"):
        pytest.skip("its classes are the tokens of a vocabulary, of which many are rare")
    for part in (source.train, source.test):
        assert set(np.unique(part.labels)) == set(range(source.num_classes))


@each_dataset
def test_a_sample_is_finite_and_the_same_after_travelling(name: str, source: DataSource) -> None:
    for part in (source.train, source.test):
        rows = np.unique([0, 1, len(part) // 2, len(part) - 1])
        view = part.subset(rows)
        x, y = view.tensors()
        assert x.shape == (len(rows), *source.input_shape)
        assert x.isfinite().all()
        for sent, kept in zip(pickle.loads(pickle.dumps(view)).tensors(), (x, y), strict=True):
            assert sent.equal(kept)
