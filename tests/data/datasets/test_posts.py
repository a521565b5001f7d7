import numpy as np
import pytest

from flsec.data.datasets._posts import body_of, own_words
from flsec.data.datasets._split import split_by_class


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("Al writes:\n>old\nnew", "new"),
        ("In article <1@x> al@x (Al)\nwrites:\n| old\nnew\n: old", "new"),
        ("words\n--\nBo, Unix Inc.", "words"),
        ("a\n--\nb\n-- \nBo", "a\n--\nb"),  # the last one is the signature
        ("--\nwords", "--\nwords"),  # at the top it is none
        ("a -- b\n---\nc", "a -- b\n---\nc"),
        ("she said\nyes", "she said\nyes"),
        (">only\n>quotes", ""),
        ("", ""),
    ],
)
def test_signatures_and_quotes_go(body, left):
    assert own_words(body) == left


@pytest.mark.parametrize(
    ("message", "headers", "body"),
    [
        ("From: a\nSubject: Re: b\n\nc\n\nd", {"from": "a", "subject": "Re: b"}, "c\n\nd"),
        ("no headers", {"no headers": ""}, ""),
        ("", {"": ""}, ""),
    ],
)
def test_headers_end_at_the_first_empty_line(message, headers, body):
    assert body_of(message) == (headers, body)


def test_the_split_is_fixed_and_takes_its_share_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 5, 1])
    train, test = split_by_class(labels, "films")
    assert sorted([*train, *test]) == list(range(16))
    assert np.bincount(labels[test], minlength=3).tolist() == [2, 1, 0]
    assert [part.tolist() for part in split_by_class(labels, "films")] == [train.tolist(), test.tolist()]
    assert split_by_class(labels, "books")[0].tolist() != train.tolist()
