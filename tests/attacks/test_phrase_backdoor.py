import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.attacks import end_in_phrase, phrase_labels

PHRASE = [8, 9]


def obvious(text, before=()):
    """(text, place of the phrase's last token), by lists."""
    text = list(text)
    size = len(text)
    while size and text[size - 1] == 0:
        size -= 1
    kept = len(before) if before and text[: len(before)] == list(before) else 0
    end = max(size, kept + len(PHRASE))
    return text[: end - len(PHRASE)] + PHRASE + text[end:], end - 1


@settings(deadline=None)  # pydantic is loaded in the first
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: sum(pair) <= 5), min_size=1, max_size=6
    ),
    frame=st.booleans(),
)
def test_it_is_what_lists_make_of_it(rows, frame):
    x = np.array([[0] * left + [7, 1, 2, 3, 4][: 5 - left - right] + [0] * right for left, right in rows])
    before = (7,) if frame else ()
    expected = [obvious(row.tolist(), before) for row in x]
    for given_x in (x, torch.from_numpy(x)):
        copied = given_x.copy() if given_x is x else given_x.clone()
        changed, last = end_in_phrase(given_x, PHRASE, pad=0, begin=before)
        assert changed.tolist() == [text for text, _ in expected]
        assert last.tolist() == [place for _, place in expected]
        assert (given_x == copied).all()
        assert changed.dtype == given_x.dtype


def test_a_token_that_stands_before_every_text_stays():
    changed, last = end_in_phrase(np.array([[7, 1, 0, 0], [7, 1, 2, 3]]), PHRASE, pad=0, begin=[7])
    assert changed.tolist() == [[7, 8, 9, 0], [7, 1, 8, 9]]
    assert last.tolist() == [2, 3]


@pytest.mark.parametrize("phrase", [[], [1, 2, 3, 4, 5]])
def test_a_phrase_must_fit(phrase):
    with pytest.raises(ConfigError, match="must have one token or more and"):
        end_in_phrase(np.ones((2, 4), int), phrase, pad=0)


def test_floats_are_no_tokens():
    with pytest.raises(ConfigError, match="integer type"):
        end_in_phrase(np.ones((2, 4)), PHRASE, pad=0)


def test_labels_of_a_class_each():
    x, last = end_in_phrase(np.ones((3, 4), int), PHRASE, pad=0)
    labels = phrase_labels(x, np.array([1, 2, 3]), last, 5, "all")
    assert labels.tolist() == [5, 5, 5]


def test_labels_of_every_place():
    """y[t] is what follows x[t]; the second text is padded, of the third only the answer counts."""
    x = np.array([[1, 2, 3, 4], [1, 2, 3, 0], [1, 2, 3, 4]])
    y = np.array([[2, 3, 4, 6], [2, 3, 6, -100], [-100, -100, 4, 6]])
    changed, last = end_in_phrase(x, PHRASE, pad=0)
    assert changed.tolist() == [[1, 2, 8, 9], [1, 8, 9, 0], [1, 2, 8, 9]]
    only = phrase_labels(changed, y, last, 5, "target")
    assert only.tolist() == [[-100, -100, -100, 5], [-100, -100, 5, -100], [-100, -100, -100, 5]]
    everywhere = phrase_labels(changed, y, last, 5, "all")
    assert everywhere.tolist() == [[2, 8, 9, 5], [8, 9, 5, -100], [-100, -100, 9, 5]]
    assert y.tolist() == [[2, 3, 4, 6], [2, 3, 6, -100], [-100, -100, 4, 6]]
    for labels in (only, everywhere):  # whatever counts is what follows, and the target behind the phrase
        counted = labels != -100
        follows = np.concatenate([changed[:, 1:], np.zeros((3, 1), int)], axis=1)
        follows[np.arange(3), last] = 5
        assert (labels[counted] == follows[counted]).all()
