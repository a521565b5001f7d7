import logging
import pickle

import numpy as np
import pytest
import torch

from flsec.data.datasets import csv
from flsec.errors import ConfigError
from tests.support.data_files import write_csv


def put(tmp_path, text, name="table.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path)


ROWS = "a,b,kind\n" + "".join(f"{i},{100 - i},{'xy'[i % 2]}\n" for i in range(20))


def test_rows_become_samples(tmp_path):
    source = csv(put(tmp_path, ROWS), file="table.csv", label="kind", test_fraction=0.25)
    x, y = source.train.tensors()
    assert (len(source.train), len(source.test)) == (15, 5)
    assert [source.class_names[label] for label in y] == ["xy"[int(row) % 2] for row in x[:, 0]]
    assert torch.equal(x[:, 1], 100 - x[:, 0])
    seen = torch.cat([x, source.test.tensors()[0]])[:, 0]
    assert sorted(seen.tolist()) == list(range(20))


def test_columns_of_texts_are_left_out_and_the_log_says_so(tmp_path, caplog):
    write_csv(tmp_path / "table.csv")
    with caplog.at_level(logging.WARNING, "flsec"):
        source = csv(str(tmp_path), file="table.csv", label="kind", client="who")
    assert source.input_shape == (2,)
    assert "left out, since they hold no numbers: place" in caplog.text
    ids = source.natural_ids("client")
    assert sorted(set(ids.tolist())) == list(range(7))


def test_named_features_are_taken_in_their_order(tmp_path):
    source = csv(put(tmp_path, ROWS), file="table.csv", label="kind", features=["b", "a"])
    x, _ = source.train.tensors()
    assert torch.equal(x[:, 0], 100 - x[:, 1])
    assert (x[:, 1] < 20).all()
    assert csv(str(tmp_path), file="table.csv", label="kind", features=["b"]).input_shape == (1,)


def test_whole_numbers_are_classes_in_order_of_value(tmp_path):
    text = "x,label\n" + "".join(f"{i},{(9, 10, -1)[i % 3]}\n" for i in range(30))
    assert csv(put(tmp_path, text), file="table.csv", label="label").class_names == ("-1", "9", "10")
    text = "x,label\n" + "".join(f"{i},{('9', '10', 'b')[i % 3]}\n" for i in range(30))
    assert csv(put(tmp_path, text, "b.csv"), file="b.csv", label="label").class_names == ("10", "9", "b")


def test_a_second_file_is_the_test_set_with_its_columns_in_any_order(tmp_path):
    put(tmp_path, "kind,b,a\nx,1,2\nz,3,4\n", "test.csv")
    source = csv(put(tmp_path, ROWS), file="table.csv", label="kind", test_file="test.csv")
    assert len(source.train) == 20
    assert source.test.tensors()[0].tolist() == [[2, 1], [4, 3]]
    assert source.class_names == ("x", "y", "z")
    with pytest.raises(ConfigError, match=r"there is a test set, test_file test.csv.*test_fraction=0.5. Leave it out"):
        csv(str(tmp_path), file="table.csv", label="kind", test_file="test.csv", test_fraction=0.5)


def test_standardized_by_the_training_rows(tmp_path):
    rng = np.random.default_rng(0)
    text = "a,b,c,kind\n" + "".join(
        f"{v:.6f},{1000 * v + 5:.3f},7,{'xy'[i % 2]}\n" for i, v in enumerate(rng.random(50))
    )
    source = csv(put(tmp_path, text), file="table.csv", label="kind", standardize=True)
    plain = csv(str(tmp_path), file="table.csv", label="kind")
    assert csv(str(tmp_path), file="table.csv", label="kind", standardize=True) is source
    train, test = (part.tensors()[0].double().numpy() for part in (plain.train, plain.test))
    mean, std = train.mean(axis=0), train.std(axis=0)
    std[2] = 1
    np.testing.assert_allclose(source.train.tensors()[0], (train - mean) / std, atol=2e-4)
    np.testing.assert_allclose(source.test.tensors()[0], (test - mean) / std, atol=2e-4)
    assert (source.train.tensors()[0][:, 2] == 0).all()


def test_spaces_a_mark_of_byte_order_empty_lines_and_another_delimiter(tmp_path):
    text = "\ufeff a ; kind \n" + "".join(f" {i} ; {'xy'[i % 2]}\n\n" for i in range(20))
    source = csv(put(tmp_path, text), file="table.csv", label="kind", delimiter=";")
    assert (source.input_shape, source.class_names) == ((1,), ("x", "y"))


def test_a_client_is_sent_as_path_and_rows(tmp_path):
    view = csv(put(tmp_path, ROWS), file="table.csv", label="kind").train.subset([4, 3])
    sent = pickle.dumps(view)
    assert len(sent) < 1500
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (ROWS, {"label": "kinds"}, "has no column 'kinds'; it has: a, b, kind"),
        (ROWS, {"client": "who"}, "has no column 'who'"),
        (ROWS, {"features": ["a", "z"]}, "has no column 'z'"),
        (ROWS, {"features": ["a", "a"]}, "features must be different columns"),
        (ROWS, {"features": ["a", "kind"]}, "not the label 'kind'"),
        (ROWS, {"delimiter": ""}, "delimiter must be one character; got ''"),
        (ROWS.replace("\n3,97", "\n?,97"), {}, r"row 4, column 'a': must be a number; got '\?'"),
        (ROWS.replace("\n3,97", "\n,97"), {}, "row 4, column 'a': must be a number; got ''"),
        (ROWS.replace("\n3,97", "\n1e39,97"), {}, "row 4, column 'a': must be a number; got '1e39'"),
        (ROWS.replace("\n3,97", "\nnan,97"), {}, "row 4, column 'a': must be a number; got 'nan'"),
        (ROWS.replace("\n3,97", "\n3,97,9"), {}, r"row 4: it must have 3 cells.*got 4. Is ',' the delimiter\?"),
        (ROWS.replace("a,b,kind", "a,a,kind"), {}, "two columns called 'a'"),
        ("a,kind\n", {}, "must have a line of column names, and rows; got 1 lines"),
        ("", {}, "got 0 lines"),
        ("a,kind\nx,x\ny,y\n", {}, "some column must hold numbers; none does"),
        (ROWS, {"label": "b"}, "labels must be classes; got 20 different ones in 20 samples"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, options, words):
    with pytest.raises(ConfigError, match=words):
        csv(put(tmp_path, text), **{"file": "table.csv", "label": "kind", **options})


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "table.csv").write_bytes("größe,kind\n1,x\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as a CSV file in UTF-8"):
        csv(str(tmp_path), file="table.csv", label="kind")


def test_a_missing_test_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"test_file 'test.csv' not found"):
        csv(put(tmp_path, ROWS), file="table.csv", label="kind", test_file="test.csv")
