import importlib
import pickle

import numpy as np
import pytest
import torch

from flsec.data.datasets import huggingface
from flsec.errors import ConfigError
from tests.support.data_files import write_hub_folder

datasets = pytest.importorskip("datasets")


def save(folder, columns, features=None):
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return str(folder)


def test_pictures_labels_and_writers_are_found_by_their_usual_names(tmp_path):
    write_hub_folder(tmp_path / "saved")
    source = huggingface(str(tmp_path), path="saved")
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    for part, split in ((source.train, saved["train"]), (source.test, saved["test"])):
        x, y = part.tensors()
        assert torch.equal(x[:, 0], torch.from_numpy(np.stack([np.asarray(p) for p in split["image"]])).float() / 255)
        assert y.tolist() == list(split["label"])
    assert source.class_names == ("no", "maybe", "yes")  # the numbers' own order
    assert source.natural_ids("client").tolist() == [i % 5 for i in range(60)]


def test_numbers_in_a_column_of_lists(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 6))
    path = save(tmp_path / "saved", {"features": values.tolist(), "target": ["b", "a"] * 20})
    source = huggingface(path=path, test_fraction=0.25)
    x, y = source.train.tensors()
    assert (source.input_shape, source.class_names, source.groups) == ((6,), ("a", "b"), None)
    rows = [int(np.abs(values - row.numpy()).sum(axis=1).argmin()) for row in x]
    np.testing.assert_allclose(x.numpy(), values[rows].astype(np.float32))
    assert y.tolist() == [1 - row % 2 for row in rows]
    assert len(source.test) == 10


def test_columns_and_splits_may_be_named(tmp_path):
    columns = {"a": [[0.5, i] for i in range(30)], "b": [i % 2 for i in range(30)], "who": ["x", "y", "z"] * 10}
    parts = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns) for name in ("mine", "yours")})
    parts.save_to_disk(str(tmp_path / "saved"))
    given = {"inputs": "a", "label": "b", "train_split": "mine", "test_split": "yours"}
    source = huggingface(str(tmp_path), path="saved", client="who", **given)
    assert (len(source.train), len(source.test), source.natural_ids().tolist()) == (30, 30, [0, 1, 2] * 10)
    with pytest.raises(ConfigError, match="has no split 'train'; it has: mine, yours"):
        huggingface(str(tmp_path), path="saved", inputs="a", label="b")
    with pytest.raises(ConfigError, match=r"test set, the split 'yours'.*Leave it out"):
        huggingface(str(tmp_path), path="saved", test_fraction=0.5, **given)


def test_a_client_is_sent_as_path_and_rows(tmp_path):
    write_hub_folder(tmp_path / "saved")
    view = huggingface(str(tmp_path), path="saved").train.subset([4, 3])
    sent = pickle.dumps(view)
    assert len(sent) < 1500
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub(monkeypatch):
    columns = {"x": [[i, i + 1] for i in range(20)], "y": [0, 1] * 10}
    asked = []

    def fetch(name):
        asked.append(name)
        return datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)})

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    source = huggingface(path="somebody/something")
    assert (source.input_shape, asked) == ((2,), ["somebody/something"])


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    def fetch(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fetch)
    with pytest.raises(ConfigError) as caught:
        huggingface(str(tmp_path), path="nobody/nothing")
    assert f"not found. Looked for: {tmp_path}/nobody/nothing" in str(caught.value)
    assert "As a name on the hub: " in str(caught.value)
    assert "ConnectionError: no network" in str(caught.value)
    with pytest.raises(ConfigError, match=r"not found. Looked for: /no/where."):
        huggingface(path="/no/where")


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"x": ["a text", "b"] * 10, "label": [0, 1] * 10}, {}, "column 'x' holds texts"),
        ({"text": ["a", "b"] * 10, "label": [0, 1] * 10}, {}, "no column with a usual name .* for inputs.*text, label"),
        ({"text": ["a", "b"] * 10, "label": [0, 1] * 10}, {"inputs": "text"}, "column 'text' holds texts"),
        (
            {"x": [[1.0]] * 20, "kind": [0, 1] * 10},
            {},
            "no column with a usual name .* for label.*Name one of: x, kind",
        ),
        ({"x": [[1.0]] * 20, "y": [0, 1] * 10}, {"label": "z"}, "no column 'z' for label. Name one of: x, y"),
        ({"x": [[1.0], [1.0, 2.0]] * 10, "y": [0, 1] * 10}, {}, "finite numbers of one shape in every row"),
        ({"x": [[1.0], [float("inf")]] * 10, "y": [0, 1] * 10}, {}, "finite numbers of one shape in every row"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, columns, options, words):
    path = save(tmp_path / "saved", columns)
    with pytest.raises(ConfigError, match=words):
        huggingface(path=path, **options).train.tensors()


def test_pictures_of_several_sizes_name_the_row_and_a_size(tmp_path):
    from PIL import Image

    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    pictures = [Image.new("RGB", (5 + (i == 7), 5)) for i in range(20)]
    path = save(tmp_path / "saved", {"img": pictures, "label": [0, 1] * 10}, features)
    with pytest.raises(ConfigError, match=r"picture of row 7 has 6 x 5 pixels.*size: 5"):
        [part.tensors() for part in (huggingface(path=path).train, huggingface(path=path).test)]
    assert huggingface(path=path, size=4, channels=1).input_shape == (1, 4, 4)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    original = importlib.import_module

    def absent(name, *args):
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
        return original(name, *args)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r'needs the package datasets.*pip install "flsec\[huggingface\]"'):
        huggingface(path="anything")
