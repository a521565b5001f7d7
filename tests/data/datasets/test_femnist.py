import importlib
import json
import pickle

import numpy as np
import pytest
import torch

from flsec.data.datasets import femnist
from flsec.data.datasets.femnist import _compact
from flsec.errors import ConfigError
from tests.support.data_files import write_femnist


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flsec"


def test_images_labels_and_writers_as_they_are_in_the_files(tmp_path):
    parts = write_femnist(tmp_path)
    source = femnist(str(tmp_path))
    for part, dataset in (("train", source.train), ("test", source.test)):
        x, y = dataset.tensors()
        expected = np.concatenate([user["x"] for user in parts[part].values()]).reshape(-1, 1, 28, 28)
        np.testing.assert_allclose(x.double().numpy(), expected, atol=1e-6)
        assert y.tolist() == [label for user in parts[part].values() for label in user["y"]]
    names = sorted(parts["train"])
    assert source.natural_ids("writer").tolist() == [i for i in range(len(names)) for _ in range(62)]
    assert (source.num_classes, source.class_names[10], source.class_names[-1]) == (62, "A", "z")


def test_writers_are_numbered_by_name_whatever_the_order_of_files(tmp_path):
    write_femnist(tmp_path)
    folder = tmp_path / "femnist" / "data" / "train"
    (folder / "all_data_0.json").rename(folder / "z.json")
    ids = femnist(str(tmp_path)).natural_ids("writer")
    assert ids[:62].tolist() == [3] * 62  # the file with writers 3 to 5 comes first now
    assert ids[-62:].tolist() == [2] * 62


def test_multiples_of_a_255th_are_kept_as_bytes_and_others_as_floats(tmp_path, cache):
    write_femnist(tmp_path)
    femnist(str(tmp_path))
    kept = [np.load(path, mmap_mode="r") for path in cache.glob("*/x.npy")]
    assert {array.dtype for array in kept} == {np.dtype(np.uint8)}
    assert _compact(np.arange(256.0).reshape(1, 256) / 255).tolist() == [list(range(256))]
    for x in ([[0.3]], [[-1 / 255]], [[256 / 255]], [[0.5001]]):
        assert _compact(np.array(x)).dtype == np.float32


def test_one_user_with_other_pixels_makes_all_floats(tmp_path):
    parts = write_femnist(tmp_path)
    path = tmp_path / "femnist" / "data" / "train" / "all_data_1.json"
    content = json.loads(path.read_text())
    name = content["users"][0]
    content["user_data"][name]["x"][0][0] = 0.123
    path.write_text(json.dumps(content))
    x, _ = femnist(str(tmp_path)).train.tensors()
    assert float(x[3 * 62].flatten()[0]) == pytest.approx(0.123)
    np.testing.assert_allclose(x[0].flatten().numpy(), parts["train"]["f0000_0"]["x"][0], atol=1e-6)


def test_the_text_is_read_once_and_again_when_it_changes(tmp_path, cache, monkeypatch):
    write_femnist(tmp_path)
    first = femnist(str(tmp_path))
    assert femnist(str(tmp_path)) is first
    assert len(list(cache.iterdir())) == 2
    module = importlib.import_module("flsec.data.datasets.femnist")
    module._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", lambda paths: pytest.fail("read again"))
        again = femnist(str(tmp_path))
    assert torch.equal(again.train.tensors()[0], first.train.tensors()[0])
    path = tmp_path / "femnist" / "data" / "train" / "all_data_0.json"
    path.write_text(path.read_text() + " ")
    assert femnist(str(tmp_path)) is not first


def test_a_client_is_sent_as_path_and_rows(tmp_path):
    write_femnist(tmp_path)
    view = femnist(str(tmp_path)).train.subset([300, 5])
    sent = pickle.dumps(view)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


def test_leafs_folder_may_be_given_without_its_data_level(tmp_path):
    write_femnist(tmp_path)
    for part in ("train", "test"):
        (tmp_path / "femnist" / "data" / part).rename(tmp_path / "femnist" / part)
    assert len(femnist(str(tmp_path)).train) == 6 * 62


def test_missing_data_name_the_command(tmp_path):
    with pytest.raises(ConfigError, match=r"lacks femnist/data/train.*preprocess.sh -s niid.*-t sample"):
        femnist(str(tmp_path))
    (tmp_path / "femnist" / "data" / "train").mkdir(parents=True)
    (tmp_path / "femnist" / "data" / "test").mkdir()
    with pytest.raises(ConfigError, match=r"no \*.json in"):
        femnist(str(tmp_path))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    write_femnist(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"compact copy cannot be written.*Set XDG_CACHE_HOME"):
        femnist(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.pop("users"), "users"),
        (lambda c: c["num_samples"].__setitem__(0, 61), "62 images and 62 labels, and num_samples says 61"),
        (lambda c: c["num_samples"].pop(), "shorter"),
        (lambda c: c["user_data"].pop("f0000_0"), "f0000_0"),
        (lambda c: c["user_data"]["f0000_0"]["y"].__setitem__(0, 62), r"labels in 0 \.\. 61"),
        (lambda c: c["user_data"]["f0000_0"]["x"][0].pop(), "cannot reshape|inhomogeneous"),
        (lambda c: c["user_data"]["f0000_0"]["x"][0].__setitem__(0, float("nan")), "finite"),
    ],
    ids=["users", "count", "counts", "user", "label", "pixel", "nan"],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, damage, words):
    write_femnist(tmp_path)
    path = tmp_path / "femnist" / "data" / "train" / "all_data_0.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"all_data_0.json is broken: .*({words}).*Make LEAF's files again"):
        femnist(str(tmp_path))


def test_a_file_that_is_cut_is_named(tmp_path):
    write_femnist(tmp_path)
    path = tmp_path / "femnist" / "data" / "train" / "all_data_0.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ConfigError, match=r"all_data_0.json is broken"):
        femnist(str(tmp_path))
