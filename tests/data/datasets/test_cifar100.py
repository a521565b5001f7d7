import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from flsec.data.datasets import cifar100
from flsec.data.datasets._plain_pickle import read_plain_pickle
from flsec.errors import ConfigError
from tests.support.data_files import write_cifar100

layouts = pytest.mark.parametrize("layout", ["binary", "python"])


@layouts
@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_pixels_and_labels_as_they_are_in_the_files(tmp_path, layout, labels):
    parts = write_cifar100(tmp_path, layout)
    source = cifar100(str(tmp_path), labels=labels)
    for part, dataset in (("train", source.train), ("test", source.test)):
        x, y = dataset.tensors()
        assert torch.equal(x, torch.from_numpy(parts[part]["pixels"]).float() / 255)
        assert y.tolist() == parts[part][labels].tolist()
    assert source.num_classes == {"fine": 100, "coarse": 20}[labels]
    assert source.class_names is None
    assert cifar100(str(tmp_path), labels=labels) is source


def test_the_binary_version_is_preferred(tmp_path):
    write_cifar100(tmp_path, "python", per_class=1)
    write_cifar100(tmp_path, "binary", per_class=2)
    assert len(cifar100(str(tmp_path)).train) == 200


@layouts
def test_a_client_is_sent_as_path_and_rows(tmp_path, layout):
    write_cifar100(tmp_path, layout)
    view = cifar100(str(tmp_path)).train.subset([150, 7])
    sent = pickle.dumps(view)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


def test_class_names_are_read_where_they_are(tmp_path):
    write_cifar100(tmp_path / "a", "binary")
    names = [f"class_{i}" for i in range(100)]
    (tmp_path / "a" / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    assert cifar100(str(tmp_path / "a")).class_names == tuple(names)
    write_cifar100(tmp_path / "b", "python")
    meta = {b"fine_label_names": [name.encode() for name in names]}
    (tmp_path / "b" / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    with pytest.raises(ConfigError, match="meta is broken"):  # bytes of Python 3 in protocol 2 name a codec
        cifar100(str(tmp_path / "b"))
    (tmp_path / "b" / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta, protocol=3))
    assert cifar100(str(tmp_path / "b")).class_names == tuple(names)


def test_missing_data_name_both_layouts_and_the_command(tmp_path):
    with pytest.raises(ConfigError) as caught:
        cifar100(str(tmp_path))
    message = str(caught.value)
    assert "cifar-100-binary/train.bin" in message
    assert "cifar-100-python/train" in message
    assert f"torchvision.datasets.CIFAR100('{tmp_path}', download=True)" in message


def test_other_labels_are_refused():
    with pytest.raises(ConfigError, match="labels must be 'fine' or 'coarse'; got 'middle'"):
        cifar100(labels="middle")


def test_a_binary_file_of_another_length_or_another_kind_is_named(tmp_path):
    write_cifar100(tmp_path)
    path = tmp_path / "cifar-100-binary" / "train.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=rf"records of 3074 bytes; got {len(whole) - 1} bytes"):
        cifar100(str(tmp_path))
    path.write_bytes(b"\xff" * 3074)
    with pytest.raises(ConfigError, match="fine labels below 100"):
        cifar100(str(tmp_path), labels="fine")


# --- pickles


def pickled(tmp_path, content, protocol=4):
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_containers_texts_and_arrays_are_read(tmp_path, protocol):
    content = {b"a": [1, 2.5, None, (True, "b")], b"x": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    found = read_plain_pickle(pickled(tmp_path, content, protocol))
    assert found[b"a"] == content[b"a"]
    assert (found[b"x"] == content[b"x"]).all()
    assert found[b"x"].dtype == np.uint8


def test_arrays_of_python_2_are_read(tmp_path):
    """As the publisher wrote them: the module's old name, and bytes as texts of one byte a character."""
    text = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01b"
        b"q\x05\x87q\x06Rq\x07(K\x01K\x02K\x02\x86q\x08cnumpy\ndtype\nq\tU\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\r"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x04\x01\x02\x03\xfeq\x0ftq\x10bs."
    )
    assert read_plain_pickle(pickled(tmp_path, text))[b"data"].tolist() == [[1, 2], [3, 254]]


class Command:
    def __reduce__(self):
        return Path.touch, (Path("was_run"),)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Command(), "Path.touch"),
        ({b"data": Command()}, "Path.touch"),
        (io.BytesIO, "_io.BytesIO"),
        (b"cbuiltins\neval\n(S'1/0'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'/etc/passwd'\ntR.", "numpy.load"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
    ],
    ids=["command", "inside", "class", "eval", "numpy", "dotted"],
)
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"it names .*{name.split('.')[-1]}, and only arrays"):
        read_plain_pickle(pickled(tmp_path, content))
    assert not Path("was_run").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04]"], ids=["empty", "text", "cut"])
def test_a_damaged_pickle_is_named(tmp_path, content):
    with pytest.raises(ConfigError, match="file is broken: "):
        read_plain_pickle(pickled(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 3072)), b"fine_labels": [0, 1], b"coarse_labels": [0, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0], b"coarse_labels": [0, 1]},
        {b"data": np.zeros((2, 100), np.uint8), b"fine_labels": [0, 1], b"coarse_labels": [0, 1]},
        [1, 2],
    ],
    ids=["no labels", "floats", "a label short", "small", "a list"],
)
def test_a_pickle_of_something_else_is_named(tmp_path, content):
    write_cifar100(tmp_path, "python")
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(ConfigError, match="cifar-100-python/test is broken: it must hold"):
        cifar100(str(tmp_path))
