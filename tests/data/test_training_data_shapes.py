"""Training data in every shape give what the pair of arrays gives, in their own shape, and are never changed."""

import collections
import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from flsec.attacks import FeatureTrigger, Trigger, flip_labels
from flsec.data import ArrayDataset, training_data
from flsec.data._poison import Poison
from flsec.data._views import PoisonedDataset
from flsec.errors import ConfigError

N, ADDED = 12, 3
X = np.random.default_rng(1).integers(0, 9, (N, 4)).astype(np.float32)
Y = np.arange(N) % 5
NEW_X = torch.full((ADDED, 4), 0.5)
NEW_Y = torch.tensor([4, 3, 2])
Named = collections.namedtuple("Named", "x y weight")


class Items(Dataset):
    """A map-style data set that makes its examples where they are asked for."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not -N <= i < N:
            raise IndexError(i)
        return self.make(torch.from_numpy(X[i].copy()), int(Y[i]))


def _pairs(kind=tuple):
    return [kind((torch.from_numpy(X[i].copy()), int(Y[i]))) for i in range(N)]


def _dicts(labels="label", inputs="img"):
    return [{inputs: torch.from_numpy(X[i].copy()), labels: int(Y[i]), "id": f"n{i}"} for i in range(N)]


def _frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return pandas.DataFrame({**{f"f{j}": X[:, j] for j in range(4)}, "target": Y}, index=np.arange(N) + 7)


def _series_pair():
    frame = _frame()
    return frame[[f"f{j}" for j in range(4)]], frame["target"]


def _hugging_face(**renamed):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        {
            "x": datasets.List(datasets.Value("float32")),
            "label": datasets.ClassLabel(num_classes=5),
            "id": datasets.Value("string"),
        }
    )
    columns = {"x": X.tolist(), "label": Y.tolist(), "id": [f"n{i}" for i in range(N)]}
    return datasets.Dataset.from_dict(columns, features=features).rename_columns(renamed)


def _shuffled_hugging_face():
    order = np.random.default_rng(2).permutation(N)
    return _hugging_face().select(order).select(np.argsort(order))  # with indices, in the old order


def _transformed(batch):
    return {"pixel_values": [torch.tensor(x) for x in batch["x"]], "labels": list(batch["label"])}


def _collate(examples):
    return {"x": torch.stack([e["img"] for e in examples]), "y": torch.tensor([e["label"] for e in examples])}


def _tensors():
    return torch.from_numpy(X.copy()), torch.from_numpy(Y.copy())


# name: makes the data anew
FORMS = {
    "pair of arrays": lambda: (X.copy(), Y.copy()),
    "list of two arrays": lambda: [X.copy(), Y.copy()],
    "pair of tensors": _tensors,
    "array and list": lambda: (X.copy(), Y.tolist()),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "three arrays": lambda: (X.copy(), Y.copy(), np.ones(N)),
    "named tuple of arrays": lambda: Named(X.copy(), Y.copy(), np.ones(N)),
    "frame and series": _series_pair,
    "frame": _frame,
    "dictionary of arrays": lambda: {"image": X.copy(), "label": Y.copy(), "id": np.arange(N)},
    "dictionary of tensors": lambda: dict(zip(("input_ids", "labels"), _tensors(), strict=True)),
    "list of pairs": _pairs,
    "list of lists": lambda: _pairs(list),
    "tuple of pairs": lambda: tuple(_pairs()),
    "list of dictionaries": _dicts,
    "data set of pairs": lambda: Items(lambda x, y: (x, y)),
    "data set of triples": lambda: Items(lambda x, y: (x, y, "more")),
    "data set of lists": lambda: Items(lambda x, y: [x.numpy(), np.int16(y)]),
    "data set of named tuples": lambda: Items(lambda x, y: Named(x, y, 1.0)),
    "data set of dictionaries": lambda: Items(lambda x, y: {"img": x, "label": torch.tensor(y)}),
    "data set with lists of numbers": lambda: Items(lambda x, y: {"features": x.tolist(), "y": y}),
    "tensor data set": lambda: TensorDataset(*_tensors()),
    "tensor data set of three": lambda: TensorDataset(*_tensors(), torch.arange(N)),
    "subset": lambda: Subset(Items(lambda x, y: {"img": x, "label": y}), range(N)),
    "array data set": lambda: ArrayDataset(X, Y),
    "loader of an array data set": lambda: DataLoader(ArrayDataset(X, Y), batch_size=5),
    "loader of dictionaries": lambda: DataLoader(Items(lambda x, y: {"img": x, "label": y}), batch_size=5),
    "loader of a list": lambda: DataLoader(_dicts(), batch_size=5),
    "loader that collates": lambda: DataLoader(_dicts(), batch_size=5, collate_fn=_collate),
    "Hugging Face": _hugging_face,
    "Hugging Face, torch": lambda: _hugging_face().with_format("torch"),
    "Hugging Face, numpy": lambda: _hugging_face(x="img", label="fine_label").with_format("numpy"),
    "Hugging Face, some columns": lambda: _hugging_face().with_format("torch", columns=["x", "label"]),
    "Hugging Face, a transform": lambda: _hugging_face().with_transform(_transformed),
    "Hugging Face, with indices": _shuffled_hugging_face,
    "loader of Hugging Face": lambda: DataLoader(_hugging_face().with_format("torch"), batch_size=5),
    "loader of transformed ones": lambda: DataLoader(_hugging_face().with_transform(_transformed), batch_size=5),
}  # fmt: skip
each_form = pytest.mark.parametrize("form", FORMS)


def content(data):
    """All inputs (n, 4) and labels (n,), as a client would read them."""
    if type(data).__name__ == "DataFrame":
        return data[[f"f{j}" for j in range(4)]].to_numpy(), data["target"].to_numpy()
    if isinstance(data, dict) or (isinstance(data, tuple | list) and len(data) in (2, 3) and len(data[0]) > 4):
        parts = list(data.values()) if isinstance(data, dict) else list(data)
        return np.asarray(parts[0]), np.asarray(parts[1])
    if isinstance(data, DataLoader):
        batches = [_split(batch) for batch in data]
        return np.concatenate([np.asarray(x) for x, _ in batches]), np.concatenate([np.asarray(y) for _, y in batches])
    parts = [_split(data[i]) for i in range(len(data))]
    return np.stack([np.asarray(x) for x, _ in parts]), np.array([int(y) for _, y in parts])


def _split(example):
    if not isinstance(example, dict):
        return example[0], example[1]
    inputs = next(key for key in ("x", "img", "features", "pixel_values") if key in example)
    return example[inputs], example[next(key for key in ("label", "labels", "y", "fine_label") if key in example)]


def types(data):
    """The types of what an example, or a batch, is made of."""
    first = next(iter(data)) if isinstance(data, DataLoader) else data[0] if not isinstance(data, dict) else data
    values = first.values() if isinstance(first, dict) else first if isinstance(first, tuple | list) else [first]
    if isinstance(first, list) and len(first) >= N - 4:
        return [type(part) for part in data]  # two lists
    return [type(first), *((type(value), getattr(value, "dtype", None)) for value in values)]


def check_same_shape(new, old):
    assert isinstance(new, type(old)) or isinstance(old, Dataset)
    if type(old).__name__ != "DataFrame":
        assert types(new) == types(old)


def unchanged(form, data):
    x, y = content(data)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    check_same_shape(data, FORMS[form]())


@each_form
def test_labels_are_changed_alone(form):
    data = FORMS[form]()
    new = training_data(data).poisoned(Poison(labels=functools.partial(flip_labels, pairs=[(0, 1), (1, 0), (4, 2)])))
    x, y = content(new)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, np.array([1, 0, 2, 3, 2])[Y])
    check_same_shape(new, data)
    unchanged(form, data)


@each_form
@pytest.mark.parametrize("seed", range(3))
def test_chosen_inputs_and_labels_are_changed_as_those_of_the_pair(form, seed):
    data = FORMS[form]()
    chosen = np.random.default_rng(seed).random(N) < 0.4
    trigger = FeatureTrigger(features=[1, 3], value=[7.5, -2.0])
    poison = Poison(inputs=trigger.apply_to_each, labels=lambda labels: labels * 0 + 3, chosen=chosen)
    new = training_data(data).poisoned(poison)
    x, y = content(new)
    expected = training_data((X, Y)).poisoned(poison)
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(y, expected[1])
    assert not np.array_equal(x, X)
    check_same_shape(new, data)
    unchanged(form, data)


@each_form
def test_nobody_chosen_is_nothing_changed(form):
    data = FORMS[form]()
    nobody = Poison(inputs=lambda x: x * 0, labels=lambda y: y * 0, chosen=np.zeros(N, dtype=bool))
    unchanged(form, training_data(data).poisoned(nobody))


@each_form
def test_examples_are_counted_and_read_as_copies(form):
    data = FORMS[form]()
    assert len(training_data(data)) == N
    x, y = training_data(data).tensors(np.array([11, 0, 0, 5]))
    assert y.dtype == torch.int64
    np.testing.assert_array_equal(x, X[[11, 0, 0, 5]])
    np.testing.assert_array_equal(y, Y[[11, 0, 0, 5]])
    x.zero_()
    unchanged(form, data)


@each_form
def test_examples_are_added_behind_the_clients_own(form):
    data = FORMS[form]()
    new = training_data(data).extended(NEW_X, NEW_Y)
    x, y = content(new)
    np.testing.assert_array_equal(x, np.concatenate([X, NEW_X]))
    np.testing.assert_array_equal(y, np.concatenate([Y, NEW_Y]))
    assert len(training_data(new)) == N + ADDED
    check_same_shape(new, data)
    unchanged(form, data)


@each_form
def test_the_first_are_left_out(form):
    data = FORMS[form]()
    new = training_data(data).without_first(4)
    x, y = content(new)
    np.testing.assert_array_equal(x, X[4:])
    np.testing.assert_array_equal(y, Y[4:])
    check_same_shape(new, data)
    unchanged(form, data)


@each_form
def test_poison_on_poison_and_on_added_examples(form):
    plus = Poison(labels=lambda y: (y + 1) % 5)
    data = FORMS[form]()
    once = training_data(data).poisoned(plus)
    _, y = content(training_data(once).poisoned(plus))
    np.testing.assert_array_equal(y, (Y + 2) % 5)
    _, y = content(training_data(training_data(once).extended(NEW_X, NEW_Y)).poisoned(plus))
    np.testing.assert_array_equal(y, np.concatenate([(Y + 2) % 5, (NEW_Y + 1) % 5]))
    stamp = Poison(inputs=lambda x: x + 1)
    x, _ = content(training_data(training_data(data).poisoned(stamp)).poisoned(stamp))
    np.testing.assert_array_equal(x, X + 2)


# --- texts, tokens, images ----------------------------------------------------------------------------------------


TEXTS = ["a cat", "a dog", "no"]


@pytest.mark.parametrize("labels", [[0, 1, 1], np.array([0, 1, 1]), torch.tensor([0, 1, 1])])
@pytest.mark.parametrize("kind", [tuple, list])
def test_texts_keep_their_words_when_labels_change(labels, kind):
    data = kind([TEXTS, labels])
    new = training_data(data).poisoned(Poison(labels=lambda y: 1 - y))
    assert type(new) is kind
    assert new[0] is TEXTS
    assert type(new[1]) is type(labels)
    assert [int(label) for label in new[1]] == [1, 0, 0]
    assert [int(label) for label in labels] == [0, 1, 1]


@pytest.mark.parametrize("make", [
    lambda: (TEXTS, [0, 1, 1]),
    lambda: [{"text": text, "label": 0} for text in TEXTS],
    lambda: pytest.importorskip("pandas").DataFrame({"text": TEXTS, "label": 0}),
    lambda: pytest.importorskip("datasets").Dataset.from_dict({"sentence": TEXTS, "label": [0, 1, 1]}),
])  # fmt: skip
def test_an_attack_on_the_inputs_of_texts_is_refused(make):
    data, attack = training_data(make()), Poison(inputs=lambda x: x)
    with pytest.raises(ConfigError, match=r"works on numbers, images or tokens; got .*an attack on labels alone"):
        data.poisoned(attack)[0]


def test_tokens_and_their_labels_of_any_length():
    """As for causal language models: one label a token, -100 where none counts."""
    sentences = [[5, 6, 7], [8, 9], [5]]
    answers = [[-100, 6, 7], [-100, 9], [5]]
    swap = functools.partial(flip_labels, pairs=[(6, 9), (9, 6)])
    wanted = [[-100, 9, 7], [-100, 6], [5]]
    examples = [{"input_ids": s, "labels": a} for s, a in zip(sentences, answers, strict=True)]
    new = training_data(examples).poisoned(Poison(labels=swap))
    assert [e["labels"] for e in new] == wanted
    assert [e["input_ids"] for e in new] == sentences
    table = pytest.importorskip("datasets").Dataset.from_dict({"input_ids": sentences, "labels": answers})
    assert training_data(table).poisoned(Poison(labels=swap))[:]["labels"] == wanted
    assert training_data(table).poisoned(Poison(labels=swap)).with_format("torch")[0]["labels"].tolist() == wanted[0]
    stamped = training_data(examples).poisoned(Poison(inputs=FeatureTrigger(features=[0], value=3.0).apply_to_each))
    assert [e["input_ids"] for e in stamped] == [[3, 6, 7], [3, 9], [3]]


def _padded(examples):
    width = max(len(e["input_ids"]) for e in examples)
    rows = [e["input_ids"] + [0] * (width - len(e["input_ids"])) for e in examples]
    masks = [e["attention_mask"] + [0] * (width - len(e["attention_mask"])) for e in examples]
    labels = torch.tensor([e["label"] for e in examples])
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks), "labels": labels}


def _tokens():
    lengths = [3, 5, 2, 4]
    ids = [list(range(10 * i + 1, 10 * i + 1 + n)) for i, n in enumerate(lengths)]
    columns = {"input_ids": ids, "attention_mask": [[1] * n for n in lengths], "label": [0, 1, 0, 1]}
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def test_a_loader_that_pads_tokens():
    loader = DataLoader(_tokens(), batch_size=2, collate_fn=_padded)
    clean = list(loader)
    flipped = list(training_data(loader).poisoned(Poison(labels=lambda y: 1 - y)))
    for before, after in zip(clean, flipped, strict=True):
        assert torch.equal(after["input_ids"], before["input_ids"])
        assert torch.equal(after["labels"], 1 - before["labels"])
    x, y = training_data(loader).tensors(np.array([1, 2]))
    assert x.tolist() == [[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]]
    assert y.tolist() == [1, 0]
    longer = list(training_data(loader).extended(torch.tensor([[7, 8]]), torch.tensor([1])))
    assert longer[2]["input_ids"].tolist() == [[7, 8]]
    assert longer[2]["attention_mask"].tolist() == [[1, 1]]
    assert longer[2]["labels"].tolist() == [1]
    with pytest.raises(ConfigError, match=r"one shape to be read as a batch.*collate_fn pads"):
        training_data(_tokens()).tensors(np.array([1, 2]))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_carry_a_trigger_as_images(mode):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 250, (2, 8, 8, 3) if mode == "RGB" else (2, 8, 8)).astype(np.uint8)
    examples = [{"image": image.fromarray(p), "label": i} for i, p in enumerate(pixels)]
    assert examples[0]["image"].mode == mode
    chosen = np.array([False, True])
    new = training_data(examples).poisoned(Poison(inputs=Trigger(value=1.0).apply_to_each, chosen=chosen))
    assert new[0] is examples[0]
    stamped = np.asarray(new[1]["image"])
    assert new[1]["image"].mode == mode
    expected = pixels[1].copy()
    for row, column in ((4, 6), (5, 5), (6, 4), (6, 6)):
        expected[row, column] = 255
    np.testing.assert_array_equal(stamped, expected)
    np.testing.assert_array_equal(np.asarray(examples[1]["image"]), pixels[1])
    x, _ = training_data(examples).tensors(np.array([0, 1]))
    assert x.shape == (2, 3 if mode == "RGB" else 1, 8, 8)
    assert float(x.max()) <= 1
    added = training_data(examples).extended(x[:1], torch.tensor([7]))
    np.testing.assert_array_equal(np.asarray(added[2]["image"]), pixels[0])
    assert added[2]["label"] == 7


# --- Hugging Face: still itself -----------------------------------------------------------------------------------


def test_a_changed_hugging_face_data_set_is_one():
    data = _hugging_face()
    flipped = training_data(data).poisoned(Poison(labels=lambda y: (y + 1) % 5))
    assert isinstance(flipped, type(data))
    assert flipped.features == data.features
    assert flipped.column_names == data.column_names
    wanted = {f"n{i}": int(y) for i, y in enumerate((Y + 1) % 5)}
    for derived in (
        flipped.shuffle(seed=3),
        flipped.train_test_split(0.25, seed=1)["train"],
        flipped.map(lambda example: {"twice": 2 * example["label"]}),
        flipped.with_format("torch"),
        flipped.with_transform(lambda batch: batch),
        copy.deepcopy(flipped),
        pickle.loads(pickle.dumps(flipped)),
    ):
        assert {row["id"]: int(row["label"]) for row in derived} == {row["id"]: wanted[row["id"]] for row in derived}
    assert list(flipped["label"]) == ((Y + 1) % 5).tolist()


def test_stamped_rows_stay_so_when_they_are_put_in_another_order():
    chosen = np.arange(N) % 3 == 0
    stamp = Poison(inputs=lambda x: x * 0 - 1, labels=lambda y: y * 0 + 4, chosen=chosen)
    stamped = training_data(_hugging_face()).poisoned(stamp)
    for derived in (stamped, stamped.shuffle(seed=3), stamped.select([3, 4, 5]), stamped.map(lambda row: {"a": 1})):
        for row in derived:
            i = int(row["id"][1:])
            assert row["x"] == ([-1.0] * 4 if chosen[i] else X[i].tolist())
            assert row["label"] == (4 if chosen[i] else Y[i])
    assert "x" not in stamped.column_names  # nothing can train on the clean inputs unawares
    with pytest.raises(ConfigError, match=r"flsec_position.*was removed.*remove_unused_columns=False"):
        stamped.remove_columns(["flsec_position"])[0]


# --- keys -------------------------------------------------------------------------------------------------------


def labelled(data, **keys):
    new = training_data(data, **keys).poisoned(Poison(labels=lambda y: y * 0 + 9))
    return new[0] if isinstance(new, list | PoisonedDataset) else new


def test_keys_that_the_user_names_go_first():
    example = {"a": torch.zeros(2), "b": 1, "label": 2}
    assert labelled([example], labels_key="b") == {**example, "b": 9}
    triple = (torch.zeros(3), torch.ones(3, dtype=torch.int64), 1)
    assert labelled([triple], labels_key=2)[2] == 9
    assert labelled([triple], labels_key=-1)[2] == 9
    assert labelled([triple], labels_key=1)[1].tolist() == [9, 9, 9]
    new = training_data([triple], inputs_key=1, labels_key=2).poisoned(Poison(inputs=lambda x: x * 0))
    assert new[0][1].tolist() == [0, 0, 0]
    frame = pytest.importorskip("pandas").DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [0, 1]})
    new = training_data(frame, inputs_key=["b"], labels_key="c").poisoned(
        Poison(inputs=lambda x: -x, labels=lambda y: 1 - y)
    )
    assert new.to_dict("list") == {"a": [1.0, 2.0], "b": [-3.0, -4.0], "c": [1, 0]}


@pytest.mark.parametrize(("example", "keys", "words"), [
    ({"a": torch.zeros(2), "b": 3}, {},
     r"none has a usual name. It has 'a' \(Tensor torch.float32 \(2,\)\), 'b' \(int\). Pass labels_key=, its key"),
    ({"x": 1, "label": 1, "y": 2}, {}, "'label' and 'y' may be"),
    ({"x": 1, "label": 1}, {"labels_key": "lable"}, "there is no 'lable'"),
    ((torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64), 1), {},
     r"second one is not clearly the label. It has 0: Tensor torch.int64 \(5,\), .*Pass labels_key=, its pos"),
    ((1, 2), {"labels_key": "y"}, "labels_key='y' is no position"),
    ((1, 2), {"labels_key": 2}, "labels_key=2 is no position"),
])  # fmt: skip
def test_labels_that_cannot_be_told_are_refused_with_what_was_seen(example, keys, words):
    with pytest.raises(ConfigError, match=words) as caught:
        labelled([example], **keys)
    assert caught.value.parameter == "labels_key"


def test_inputs_are_only_looked_for_where_they_are_needed():
    example = {"mystery": torch.zeros(2), "label": 1}
    assert labelled([example])["label"] == 9
    with pytest.raises(ConfigError, match="holds the inputs cannot be told") as caught:
        training_data([example]).poisoned(Poison(inputs=lambda x: x))
    assert caught.value.parameter == "inputs_key"


@pytest.mark.parametrize("usual", ["pixel_values", "input_ids", "img", "Image", "x", "features", "text", "data"])
@pytest.mark.parametrize("label", ["label", "labels", "y", "target", "fine_label", "character"])
def test_usual_names(usual, label):
    example = {"id": 7, usual: torch.zeros(2), label: 3}
    new = training_data([example]).poisoned(Poison(inputs=lambda x: x + 1, labels=lambda y: y + 1))
    assert new[0][usual].tolist() == [1, 1]
    assert new[0][label] == 4


def test_what_the_model_gets_goes_before_what_it_was_made_of():
    example = {"text": "a cat", "input_ids": torch.zeros(2), "image": 3, "label": 3}
    new = training_data([example]).poisoned(Poison(inputs=lambda x: x + 1))
    assert new[0]["input_ids"].tolist() == [1, 1]


def test_whole_columns_of_a_frame_stay_whole_where_they_can():
    frame = pytest.importorskip("pandas").DataFrame({"a": [1, 2], "b": [0.5, 1.5], "label": [0, 1]})
    trigger = FeatureTrigger(features=[0], value=9.0)
    new = training_data(frame).poisoned(Poison(inputs=trigger.apply_to_each, labels=lambda y: 1 - y))
    assert new.to_dict("list") == {"a": [9, 9], "b": [0.5, 1.5], "label": [1, 0]}
    assert (new.dtypes == frame.dtypes).all()
    assert frame.to_dict("list") == {"a": [1, 2], "b": [0.5, 1.5], "label": [0, 1]}


# --- refused ----------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(0, 1)])


@pytest.mark.parametrize(("data", "words"), [
    (Stream(), "got Stream. A stream has no positions"),
    (DataLoader(Stream()), "got Stream. A stream"),
    ((pair for pair in [(0, 1)]), "got generator. A stream has no positions, .*hold its examples in a list"),
    ({"train": [1], "test": [1, 2]}, "Name one of its parts where it holds several data sets, such as train"),
    ((np.zeros((3, 2)), np.zeros(4)), "Its parts must have the same length; they have 3 and 4"),
    ("text", "got str"),
    (np.zeros(3), "got ndarray"),
    (None, "got NoneType"),
])  # fmt: skip
def test_other_data_are_refused_with_what_to_do(data, words):
    with pytest.raises(ConfigError, match=words):
        training_data(data)


def test_streams_of_hugging_face_are_refused():
    stream = pytest.importorskip("datasets").Dataset.from_dict({"label": [1]}).to_iterable_dataset()
    with pytest.raises(ConfigError, match=r"got IterableDataset. A stream has no positions"):
        training_data(stream)
