import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsec.data import ArrayDataset, DataSource, load_dataset, take_subset
from flsec.data.subset import stratified_rows
from flsec.errors import ConfigError
from flsec.tasks import NextToken


def source(n=100, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[0.4, 0.3, 0.2, 0.1])
    train = ArrayDataset(np.arange(n, dtype=np.float32)[:, None], labels)
    test = ArrayDataset(np.arange(n, dtype=np.float32)[:, None], labels)
    return DataSource("toy", train, test, classes, (1,), groups={"writer": np.arange(n) % 7})


@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), share=st.floats(0, 1))
def test_every_class_keeps_its_share_to_within_one_sample(seed, n, share):
    rng = np.random.default_rng(seed)
    labels, count = rng.geometric(0.4, n) % 6, int(share * n)
    rows = stratified_rows(labels, count, rng)
    assert len(rows) == len(np.unique(rows)) == count
    assert (np.diff(rows) > 0).all()
    for label in np.unique(labels):
        assert abs((labels[rows] == label).sum() - count * (labels == label).mean()) < 1


def test_a_number_and_a_share_of_both_parts():
    small = take_subset(source(), train=30, test=0.25)
    assert (len(small.train), len(small.test)) == (30, 25)
    assert len(take_subset(source(), train=1.0).train) == 100
    assert len(take_subset(source(), train=1).train) == 1
    whole = source()
    assert take_subset(whole).train is whole.train


def test_natural_ids_are_kept_in_step():
    small = take_subset(source(), train=30)
    x, y = small.train.tensors()
    assert small.natural_ids().tolist() == (x[:, 0] % 7).long().tolist()
    assert y.tolist() == source().train.labels[x[:, 0].long()].tolist()


def test_the_same_samples_whatever_else_is_drawn_and_others_in_the_test_set():
    np.random.seed(1)
    first = take_subset(source(), train=30, test=30)
    np.random.seed(2)
    again = take_subset(source(), train=30)
    rows = [part.tensors()[0][:, 0].tolist() for part in (first.train, again.train, first.test)]
    assert rows[0] == rows[1] != rows[2]


def test_sequences_of_labels_are_drawn_without_classes():
    class Letters:
        size, pad = 5, 0

        def encode(self, text):
            return [1]

        def decode(self, tokens):
            return "a"

    tokens = np.random.default_rng(0).integers(0, 5, (40, 3))
    part = ArrayDataset(tokens, tokens, tokens=True)
    text = DataSource("letters", part, part, 5, (3,), task=NextToken(positions="all"), vocabulary=Letters())
    small = take_subset(text, train=0.5)
    assert small.train.labels.shape == (20, 3)
    assert (small.train.tensors()[0].numpy() == small.train.labels).all()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"train": 101}, "must be 1 to 100 samples, the train samples that toy has; got 101. Use for instance 10"),
        ({"test": 0.001}, "the test samples that toy has; got 0.001, which is 0"),
    ],
)
def test_more_than_there_is_and_nothing_are_refused(sizes, words):
    with pytest.raises(ConfigError, match=words):
        take_subset(source(), **sizes)


def test_real_digits_keep_their_classes():
    small = take_subset(load_dataset("digits"), train=100)
    assert set(np.bincount(small.train.labels)) <= {9, 10, 11}
