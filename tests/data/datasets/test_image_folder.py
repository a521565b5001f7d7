import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from flsec.data.datasets import image_folder
from flsec.errors import ConfigError
from tests.support.data_files import write_pictures


def opened(monkeypatch):
    files, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: files.append(str(file)) or original(file))
    return files


def test_pixels_and_classes_belong_together(tmp_path):
    write_pictures(tmp_path / "pets")
    source = image_folder(str(tmp_path), folder="pets", test_fraction=0.25)
    assert (source.class_names, source.input_shape) == (("cat", "dog"), (3, 5, 6))
    assert (np.bincount(source.train.labels).tolist(), np.bincount(source.test.labels).tolist()) == ([9, 9], [3, 3])
    x, y = source.train.tensors()
    reds = (x[:, 0, 0, 0] * 255).round().long()
    assert torch.equal((reds >= 120).long(), y)
    assert torch.equal(x[:, 1], torch.full((18, 5, 6), 100 / 255))
    both = sorted([*reds.tolist(), *(source.test.tensors()[0][:, 0, 0, 0] * 255).round().long().tolist()])
    assert both == sorted([120 * k + 10 * i for k in (0, 1) for i in range(12)])


def test_folders_train_and_test_are_the_parts(tmp_path):
    write_pictures(tmp_path / "train", n=4)
    write_pictures(tmp_path / "test", n=2)
    source = image_folder(folder=str(tmp_path))
    assert (len(source.train), len(source.test)) == (8, 4)
    with pytest.raises(ConfigError, match=f"the folder {tmp_path}/test.*Leave it out"):
        image_folder(folder=str(tmp_path), test_fraction=0.5)


def test_the_order_is_random_but_fixed(tmp_path):
    write_pictures(tmp_path)
    labels = image_folder(folder=str(tmp_path)).train.labels.tolist()
    assert labels != sorted(labels)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("1", 1), ("P", 3)])
def test_channels_are_those_of_the_first_picture(tmp_path, mode, channels):
    write_pictures(tmp_path, mode=mode)
    assert image_folder(folder=str(tmp_path)).input_shape == (channels, 5, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_be_chosen(tmp_path, channels):
    write_pictures(tmp_path / "grey", mode="L")
    source = image_folder(str(tmp_path), folder="grey", channels=channels, size=4)
    assert source.input_shape == (channels, 4, 4)
    x, _ = source.train.tensors()
    assert torch.equal(x[:, 0], x[:, channels - 1])


def test_a_picture_is_decoded_when_it_is_asked_for_and_once(tmp_path, monkeypatch):
    write_pictures(tmp_path)
    source = image_folder(folder=str(tmp_path), size=4)
    files = opened(monkeypatch)
    source.train.tensors([3, 5])
    assert len(files) == len(set(files)) == 2
    source.train.tensors([5, 3, 3])
    assert len(files) == 2


def test_a_client_is_sent_as_path_and_rows(tmp_path):
    write_pictures(tmp_path)
    view = image_folder(folder=str(tmp_path)).train.subset([4, 3])
    sent = pickle.dumps(view)
    assert len(sent) < 1500
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


def test_pictures_of_several_sizes_are_refused_at_once_unless_they_are_scaled(tmp_path):
    write_pictures(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "cat" / "big.png")
    with pytest.raises(ConfigError, match=r"must have one size.*9 x 9.*such as size: 5") as caught:
        image_folder(folder=str(tmp_path))
    assert caught.value.parameter == "size"
    assert image_folder(folder=str(tmp_path), size=5).train.tensors()[0].shape[1:] == (3, 5, 5)


def test_other_files_are_passed_over_and_none_at_all_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must have a folder for each class with pictures in it"):
        image_folder(folder=str(tmp_path))


def test_a_broken_picture_is_named(tmp_path):
    write_pictures(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / name / "zz.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"zz.png cannot be decoded"):
        image_folder(folder=str(tmp_path))
    source = image_folder(folder=str(tmp_path), size=4, test_fraction=0.5)
    with pytest.raises(ConfigError, match=r"zz.png cannot be decoded"):
        [part.tensors() for part in (source.train, source.test)]
