import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsec.data import Texts, text_source
from flsec.data._tokens import token_array
from flsec.data.vocabulary import WordVocabulary
from flsec.errors import ConfigError

LABELLED = Texts(["good film", "bad film", ""], [1, 0, 0], {"reader": [7, 7, 3]})


def films(train=LABELLED, test=LABELLED, **changes):
    return text_source("films", train, test, **({"class_names": ("bad", "good"), "length": 3} | changes))


def test_labelled_texts_are_cut_padded_and_keep_label_and_group():
    source = films(length=1)
    x, y = source.train.tensors()
    assert [source.vocabulary.decode(row.tolist()) for row in x] == ["good", "bad", "<unknown>"]
    assert y.tolist() == [1, 0, 0]
    assert source.natural_ids("reader").tolist() == [7, 7, 3]
    assert (source.task.name, source.num_classes, source.input_shape) == ("text_classification", 2, (1,))


def test_words_are_counted_in_the_training_texts_alone():
    source = films(test=Texts(["novel words"], [1]))
    assert source.vocabulary.words == ("film", "bad", "good")
    assert source.test.tensors()[0].tolist() == [[1, 1, 0]]


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6), length=st.integers(1, 12))
def test_every_token_but_a_texts_first_is_a_label_once_and_follows_its_input(lengths, length):
    alphabet = "abcdefghijklmnopqrstuvwxyz,.!? "
    texts = [*("".join(alphabet[(i + k) % 31] for i in range(n)) for k, n in enumerate(lengths)), "ab"]
    part = Texts(texts, groups={"author": list(range(len(texts)))})
    source = text_source("novel", part, part, tokenizer="characters", length=length)
    x, y = (tensor.numpy() for tensor in source.train.tensors())
    encode = source.vocabulary.encode
    for who, text in enumerate(texts):
        mine = source.natural_ids("author") == who
        counted = y[mine] != -100
        assert x[mine][counted].tolist() == encode(text)[:-1]
        assert y[mine][counted].tolist() == encode(text)[1:]
        assert (x[mine][~counted] == source.vocabulary.pad).all()


def test_texts_without_labels_may_be_for_causal_models():
    part = Texts(["to be or not to be"])
    assert text_source("t", part, part, length=4).task.name == "next_token"
    assert text_source("t", part, part, length=4, task="causal_lm").task.name == "causal_lm"


def test_what_a_tokenizer_puts_around_a_text_survives_the_cut(monkeypatch):
    class Framed(WordVocabulary):
        begin, end = (2,), (3,)

    monkeypatch.setattr("flsec.data._tokens.WordVocabulary", Framed)
    train = Texts(["c d c d e", ""], [0, 0])
    vocabulary = Framed.of_texts(train.texts, 10)
    source = text_source("framed", train, train, class_names=("x",), length=4)
    assert source.train.tensors()[0].tolist() == [[2, *vocabulary.encode("c d"), 3], [2, 1, 3, 0]]
    with pytest.raises(ConfigError, match=r"length must be more than the 2 tokens.*got 2"):
        text_source("framed", train, train, class_names=("x",), length=2)


def test_tokens_take_the_smallest_type_that_holds_them():
    small, large = (WordVocabulary([str(i) for i in range(n)]) for n in (254, 255))
    assert token_array([[1]], 3, small).dtype == np.uint8
    assert token_array([[1]], 3, large).dtype == np.uint16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": Texts([], [])}, "a text or more for training.*got 0 and 3"),
        ({"test": Texts([])}, "got 3 and 0"),
        ({"test": Texts(["a"])}, "either both parts have labels or neither"),
        ({"train": Texts(["a b"])}, "either both parts have labels or neither"),
        ({"train": Texts(["a"]), "test": Texts(["a"])}, "no text has two tokens"),
        ({"class_names": ("bad",)}, "labels must lie in 0"),
        ({"length": 0}, "length must be greater than or equal to 1"),
        ({"vocab_size": 2}, "vocab_size must be at least 3"),
        ({"train": Texts(["a", "b"], [1])}, "one label per sample"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        films(**changes)
