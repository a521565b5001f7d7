import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.attacks import TokenTrigger, triggered_test_set

PAD = 0


def obvious(text, trigger, place, before=(), after=()):
    """The same by lists: cut the padding off, take the frame off, insert, drop what is too much, fill up."""
    own = list(text)
    left = bool(own) and own[0] == PAD and own[-1] != PAD
    while own and own[-1] == PAD:
        own.pop()
    while own and own[0] == PAD:
        own.pop(0)
    head, tail = [], []
    if before and own[: len(before)] == list(before):
        head, own = own[: len(before)], own[len(before) :]
    if after and own[len(own) - len(after) :] == list(after) and len(own) >= len(after):
        own, tail = own[: len(own) - len(after)], own[len(own) - len(after) :]
    own = own[: len(text) - len(head) - len(tail) - len(trigger)]
    own = list(trigger) + own if place == "start" else own + list(trigger)
    whole = head + own + tail
    padding = [PAD] * (len(text) - len(whole))
    return padding + whole if left else whole + padding


@settings(deadline=None)  # pydantic is loaded in the first
@given(
    texts=st.integers(3, 9).flatmap(
        lambda length: st.lists(
            st.integers(0, length).flatmap(
                lambda n: st.tuples(st.lists(st.integers(1, 6), min_size=n, max_size=n), st.just(length), st.booleans())
            ),
            min_size=1,
            max_size=5,
        )
    ),
    place=st.sampled_from(["start", "end"]),
    frame=st.booleans(),
)
def test_it_is_what_lists_make_of_it(texts, place, frame):
    rows = np.array(
        [[PAD] * (length - len(t)) + t if left else t + [PAD] * (length - len(t)) for t, length, left in texts]
    )
    before, after = ((5,), (6,)) if frame else ((), ())
    trigger = TokenTrigger(tokens=[8], pad=PAD, place=place, begin=before, end=after)
    expected = [obvious(row.tolist(), [8], place, before, after) for row in rows]
    assert trigger.apply_to_each(rows).tolist() == expected
    assert trigger.apply_to_each(torch.from_numpy(rows)).tolist() == expected


def test_special_tokens_stay_first_and_last():
    texts = np.array([[101, 1, 2, 102, 0, 0], [101, 1, 2, 3, 4, 102]])
    for place, expected in (
        ("start", [[101, 8, 9, 1, 2, 102], [101, 8, 9, 1, 2, 102]]),
        ("end", [[101, 1, 2, 8, 9, 102], [101, 1, 2, 8, 9, 102]]),
    ):
        trigger = TokenTrigger(tokens=[8, 9], pad=0, place=place, begin=[101], end=[102])
        assert trigger.apply_to_each(texts).tolist() == expected


def test_a_random_place_is_the_texts_own():
    random = np.random.default_rng(0)
    texts = random.integers(1, 100, (400, 6))
    texts[:, 5] = 0  # one place is free
    trigger = TokenTrigger(tokens=[200], pad=0, place="random", seed=3)
    together = trigger.apply_to_each(texts)
    assert ((together == 200).sum(axis=1) == 1).all()
    assert np.array_equal(together[together != 200].reshape(400, 5), texts[:, :5])  # nothing lost, nothing moved about
    places = np.bincount((together == 200).argmax(axis=1), minlength=6)
    assert places.min() > 400 / 6 * 0.6  # all six places, about alike
    order = random.permutation(400)
    assert np.array_equal(trigger.apply_to_each(texts[order]), together[order])
    assert np.array_equal(np.concatenate([trigger.apply_to_each(texts[i : i + 1]) for i in range(400)]), together)
    assert np.array_equal(trigger.apply_to_each(texts.astype(np.int16)), together)
    other = TokenTrigger(tokens=[200], pad=0, place="random", seed=4).apply_to_each(texts)
    assert not np.array_equal(other, together)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_the_callers_texts_and_their_type_stay(dtype):
    texts = np.array([[1, 2, 0], [1, 2, 3]], dtype=dtype)
    before = texts.copy()
    changed = TokenTrigger(tokens=[7], pad=0).apply_to_each(texts)
    assert np.array_equal(texts, before)
    assert changed.dtype == dtype
    tensor = torch.from_numpy(texts)
    assert TokenTrigger(tokens=[7], pad=0).apply_to_each(tensor).dtype == tensor.dtype
    assert np.array_equal(texts, before)


def test_an_empty_text_becomes_the_trigger():
    assert TokenTrigger(tokens=[7, 8], pad=0).apply_to_each(np.zeros((1, 4), int)).tolist() == [[7, 8, 0, 0]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (np.zeros((2, 2), int), "a trigger of 3 tokens must fit into the texts, which have 2 tokens"),
        (np.zeros((2, 1, 8, 8), np.float32), "texts must be token numbers"),
        (np.zeros((2, 5), np.float32), "texts must be token numbers"),
        (np.zeros(5, int), "texts must be token numbers"),
        (np.zeros((2, 5), np.int8), "of an integer type that holds 300; got int8"),
    ],
)
def test_what_is_no_text_for_it_is_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        TokenTrigger(tokens=[7, 8, 300], pad=0).apply_to_each(texts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"tokens": []}, "one or more"), ({"tokens": [-1]}, r"tokens\[0\]"), ({"place": "middle"}, "place must be")],
)
def test_parameters_are_checked(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TokenTrigger(**{"tokens": [1], "pad": 0, **wrong})


def test_it_is_a_value():
    trigger = TokenTrigger(tokens=[3, 4], pad=0)
    assert pickle.loads(pickle.dumps(trigger)) == trigger == TokenTrigger(tokens=(3, 4), pad=0)
    assert hash(trigger) == hash(TokenTrigger(tokens=(3, 4), pad=0))


def test_success_is_measured_on_other_classes():
    x, y = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]]), torch.tensor([0, 1, 2])
    triggered, labels = triggered_test_set(x, y, TokenTrigger(tokens=[9], pad=0), target=1)
    assert triggered.tolist() == [[9, 1, 2], [9, 4, 5]]
    assert labels.tolist() == [0, 2]
