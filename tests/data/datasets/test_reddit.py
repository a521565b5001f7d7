import json

import pytest

from flsec.data.datasets import reddit
from flsec.errors import ConfigError

X = ["<BOS>", "i", "like", "tea", "<EOS>", "<PAD>"]
Y = ["i", "like", "tea", "<EOS>", "<PAD>", "<PAD>"]


def leaf(x=X, y=Y, users=("9", "10")):
    """Two users, the first with a comment of two sequences, the second with one of one."""
    own = {"x": [[x, x]], "y": [{"target_tokens": [y, y], "count_tokens": [[1] * 6] * 2, "subreddit": "tea"}]}
    other = {"x": [[x]], "y": [{"target_tokens": [y]}]}
    return {"users": list(users), "num_samples": [1, 1], "user_data": dict(zip(users, (own, other), strict=True))}


def put(root, train=None, test=None, inside="reddit/data"):
    for part, data in (("train", train or leaf()), ("test", test or leaf())):
        (root / inside / part).mkdir(parents=True)
        (root / inside / part / f"reddit_0_{part}.json").write_text(json.dumps(data))
    return str(root)


@pytest.mark.parametrize("inside", ["reddit/data", "reddit"])
def test_words_labels_and_users_belong_together(tmp_path, inside):
    source = reddit(put(tmp_path, inside=inside))
    x, y = source.train.tensors([0])
    words = source.vocabulary.words
    assert source.vocabulary.decode(x[0].tolist()) == " ".join(X[:5])
    assert [words[token - 2] for token in y[0].tolist() if token != -100] == Y[:4]
    assert x[0, 5] == source.vocabulary.pad
    assert source.natural_ids("user").tolist() == [1, 1, 0]  # "10" stands before "9"
    assert (source.task.positions, source.num_classes, source.input_shape) == ("all", 7, (6,))


def test_unknown_words_are_inputs_and_no_labels(tmp_path):
    other = leaf(["<BOS>", "we", "like", *X[3:]], ["we", *Y[1:]])
    source = reddit(put(tmp_path, test=other))
    x, y = source.test.tensors([0])
    assert x[0, 1] == source.vocabulary.unknown
    assert (y[0] == -100).tolist() == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"users": ["9"]}, "reddit_0_train.json is broken at user '9'.*user_data"),
        ([1], "reddit_0_train.json is broken at user None"),
        (leaf(x=3), "where a list of words should be"),
        (leaf(x=[1] * 6), "where a list of words should be"),
        (leaf(x=X[:5]), "same number of words, 5"),
        (leaf() | {"users": []}, "found none"),
    ],
)
def test_another_form_is_named(tmp_path, train, words):
    with pytest.raises(ConfigError, match=words):
        reddit(put(tmp_path, train))


def test_missing_data_names_where_to_get_them(tmp_path):
    with pytest.raises(
        ConfigError, match=r"lacks reddit/data/train, reddit/data/test or reddit/train.*TalwalkarLab/leaf"
    ):
        reddit(str(tmp_path))
