"""What every data set promises; the registry is the list. One whose files are not there is skipped."""

import inspect
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flsec.data import DATASETS, DataSource, load_dataset
from flsec.errors import ConfigError
from flsec.testing import check_dataset
from tests.support.data_files import EXAMPLES

each_dataset = pytest.mark.parametrize("name", DATASETS.names())


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what a data set is loaded with: nothing where FLSEC_DATA has it, else small files written here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    written: dict[str, dict[str, Any]] = {}

    def find(name: str) -> dict[str, Any]:
        if name == "huggingface":
            pytest.importorskip("datasets")
        if name in EXAMPLES and name not in written:
            written[name] = EXAMPLES[name](tmp_path_factory.mktemp(name))
        return written.get(name, {})

    yield find
    patch.undo()


@pytest.fixture
def source(name: str, parameters: Any) -> DataSource:
    try:
        return load_dataset(name, **parameters(name))
    except ConfigError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture
def no_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not on disk is nowhere, and nobody waits for a network."""

    def unreachable(place: str) -> None:
        raise ConnectionError(f"Couldn't reach {place!r} on the Hub")

    if name == "huggingface":
        monkeypatch.setattr(pytest.importorskip("datasets"), "load_dataset", unreachable)


@each_dataset
def test_takes_a_root_first_and_its_own_parameters_by_keyword(name: str) -> None:
    first, *others = inspect.signature(DATASETS.get(name)).parameters.values()
    assert (first.name, first.default) == ("root", None)
    assert all(other.kind is other.KEYWORD_ONLY for other in others)


@each_dataset
def test_needs_no_other_parameter_unless_it_reads_a_users_own_files(name: str) -> None:
    needed = [p.name for p in inspect.signature(DATASETS.get(name)).parameters.values() if p.default is p.empty]
    assert not needed or {"file", "folder", "path"} & set(needed)
    assert not needed or name in EXAMPLES


@each_dataset
def test_is_called_by_its_yaml_name_and_read_once(name: str, source: DataSource, parameters: Any) -> None:
    assert source.name.split()[0] == name  # "cifar10 (JPEG)" says which copy was found
    assert load_dataset(name, **parameters(name)) is source


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


@each_dataset
def test_missing_data_are_a_sentence_that_says_where_it_looked(
    name: str, tmp_path: Path, parameters: Any, no_hub: None
) -> None:
    if name == "digits":
        pytest.skip("it comes with scikit-learn")
    given = {key: value for key, value in parameters(name).items() if key != "root"}
    with pytest.raises(ConfigError, match="not found") as caught:
        load_dataset(name, str(tmp_path), **given)
    assert str(tmp_path) in str(caught.value)


@each_dataset
def test_the_contract(name: str, source: DataSource, parameters: Any, no_hub: None) -> None:
    check_dataset(partial(DATASETS.get(name), **parameters(name)))
