import gzip
import json

import pytest

from flsec.data.datasets import jsonl
from flsec.errors import ConfigError

ROWS = [{"text": f"word{i} film", "label": ("good", "bad")[i % 2], "who": f"reader {i % 3}"} for i in range(20)]


def put(root, name="train.jsonl", rows=ROWS):
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n"
    data = lines.encode()
    (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(root)


def test_texts_labels_and_clients_belong_together(tmp_path):
    source = jsonl(put(tmp_path), client="who", length=3)
    assert source.class_names == ("bad", "good")
    assert (len(source.train), len(source.test)) == (16, 4)
    for row, who in enumerate(source.natural_ids("who")):
        x, label = source.train[row]
        number = int(source.vocabulary.decode(x.tolist()).split()[0].removeprefix("word"))
        assert source.class_names[label] == ROWS[number]["label"]
        assert who == number % 3


def test_several_files_a_test_file_and_other_columns(tmp_path):
    rows = [{"body": "a b", "stars": i % 2 + 4} for i in range(4)]
    put(tmp_path, "a.jsonl", rows)
    put(tmp_path, "b.jsonl.gz", rows)
    root = put(tmp_path, "c.jsonl", rows[:1])
    source = jsonl(root, train=["a.jsonl", "b.jsonl.gz"], test="c.jsonl", text="body", label="stars")
    assert (len(source.train), len(source.test), source.class_names) == (8, 1, ("4", "5"))
    assert jsonl(root, train=[f"{tmp_path}/a.jsonl", "b.jsonl.gz"], text="body", label="stars").class_names == (
        "4",
        "5",
    )


@pytest.mark.parametrize("task", ["next_token", "causal_lm"])
def test_without_labels_the_texts_are_learnt(tmp_path, task):
    source = jsonl(put(tmp_path), label=None, client="who", task=task, tokenizer="characters", length=4)
    assert source.task.name == task
    assert source.natural_ids("who").shape == (len(source.train),)
    assert source.train.labels.shape == source.train.tensors()[0].shape


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 21: every line must be one JSON object"),
        ({"label": "good"}, "line 21: needs a column 'text'; it has: 'label'"),
        ({}, "line 21: needs a column 'label'; it has: none"),
        ({"text": "a", "label": 1.5}, "line 21: the column 'label' must be text or a whole number; got 1.5"),
        ({"text": ["a"], "label": "good"}, "line 21: the column 'text' must be text"),
        ({"text": "a", "label": 1}, "must be all text or all whole numbers"),
    ],
)
def test_a_line_that_will_not_do_is_named(tmp_path, row, words):
    with pytest.raises(ConfigError, match=words):
        jsonl(put(tmp_path, rows=[*ROWS, row]))


def test_a_label_that_only_the_test_has_is_named(tmp_path):
    put(tmp_path, "test.jsonl", [{"text": "a", "label": "odd"}])
    with pytest.raises(ConfigError, match=r"test.jsonl must be one of the training texts'.*got 'odd'"):
        jsonl(put(tmp_path), test="test.jsonl")


@pytest.mark.parametrize("rows", [[], ROWS[:1]])
def test_too_few_lines_are_named(tmp_path, rows):
    with pytest.raises(ConfigError, match=r"too few to set a fifth .* aside; name a file as test"):
        jsonl(put(tmp_path, rows=rows))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"lacks mine.jsonl.*\{\"text\": \"some words\", \"label\": \"sport\"\}"):
        jsonl(str(tmp_path), train="mine.jsonl")


def test_no_file_at_all_is_named(tmp_path):
    with pytest.raises(ConfigError):
        jsonl(str(tmp_path), train=[])
