"""Samples added to a client's data: every form of data, none of them ever changed."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from flsec.client_apps import AttackContext, BadNets
from flsec.data import ArrayDataset, training_data
from flsec.data._views import ExtendedDataset
from flsec.errors import ConfigError
from tests.client_apps.toys import data

ADDED_X = torch.full((3, 1, 6, 6), 0.5) + torch.arange(3)[:, None, None, None]
ADDED_Y = torch.tensor([4, 3, 2])


def num_examples_of(form):
    return len(training_data(form))


def examples_at(form, positions):
    return training_data(form).tensors(positions)


def extended(form, x, y):
    return training_data(form).extended(x, y)


class Items(Dataset):
    def __init__(self, to_x=np.array, to_y=int):
        self.x, self.y = data()
        self.to_x, self.to_y, self.touched = to_x, to_y, []

    def __len__(self):
        return len(self.y)

    def __getitem__(self, position):
        self.touched.append(position)
        return self.to_x(self.x[position]), self.to_y(self.y[position])


def forms():
    x, y = data()
    tensors = torch.from_numpy(x.copy()), torch.from_numpy(y.copy())
    return {
        "numpy": (x, y),
        "list": [x, y],
        "tensors": tensors,
        "array data set": ArrayDataset(x, y),
        "items": Items(),
        "tensor data set": TensorDataset(*tensors),
        "subset": Subset(TensorDataset(*tensors), range(12)),
        "loader": DataLoader(TensorDataset(*tensors), batch_size=5),
    }


def content(form):
    """All examples of training data, as the client would read them."""
    if isinstance(form, tuple | list):
        return np.asarray(form[0]), np.asarray(form[1])
    pairs = list(form) if isinstance(form, DataLoader) else [form[i] for i in range(len(form))]
    x = np.concatenate([np.asarray(x).reshape(-1, 1, 6, 6) for x, _ in pairs])
    return x, np.concatenate([np.asarray(y).reshape(-1) for _, y in pairs])


@pytest.mark.parametrize("name", forms())
def test_the_clients_own_come_first_then_the_added_ones(name):
    clean = forms()[name]
    x, y = content(extended(clean, ADDED_X, ADDED_Y))
    np.testing.assert_array_equal(x, np.concatenate([data()[0], ADDED_X]))
    np.testing.assert_array_equal(y, np.concatenate([data()[1], ADDED_Y]))
    assert isinstance(extended(clean, ADDED_X, ADDED_Y), list if name == "list" else object)
    for ours, theirs in zip(content(clean), data(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert num_examples_of(clean) == 12
    assert num_examples_of(extended(clean, ADDED_X, ADDED_Y)) == 15


@pytest.mark.parametrize("name", forms())
def test_examples_are_read_at_once_as_copies(name):
    positions = np.array([11, 0, 0, 5])
    clean = forms()[name]
    x, y = examples_at(clean, positions)
    np.testing.assert_array_equal(x, data()[0][positions])
    assert y.tolist() == data()[1][positions].tolist()
    x.zero_()
    y.zero_()
    np.testing.assert_array_equal(content(clean)[0], data()[0])
    both_x, both_y = examples_at(extended(clean, ADDED_X, ADDED_Y), np.array([14, 1, 12]))
    np.testing.assert_array_equal(both_x, np.concatenate([ADDED_X[2:], data()[0][1:2], ADDED_X[:1]]))
    assert both_y.tolist() == [2, 1, 4]


LABELS = [int, np.int32, np.uint8, torch.tensor, lambda y: torch.tensor(int(y)), lambda y: np.array(y, np.int16)]


@pytest.mark.parametrize("to_y", LABELS)
@pytest.mark.parametrize("to_x", [np.array, torch.from_numpy, lambda x: x.astype(np.float64), lambda x: x.tolist()])
def test_added_items_have_the_types_of_the_clients(to_x, to_y):
    view = extended(Items(to_x, to_y), ADDED_X, ADDED_Y)
    (x, y), (new_x, new_y) = view[0], view[13]
    assert type(new_x) is type(x)
    assert type(new_y) is type(y)
    assert getattr(new_x, "dtype", None) == getattr(x, "dtype", None)
    assert getattr(new_y, "dtype", None) == getattr(y, "dtype", None)
    np.testing.assert_array_equal(np.asarray(new_x), ADDED_X[1])
    assert int(new_y) == 3


def test_positions_as_in_a_list_and_nothing_read_ahead():
    clean = Items()
    view = extended(clean, ADDED_X, ADDED_Y)
    assert len(view) == 15
    assert clean.touched == []
    for position in range(15):
        for other in (position - 15, np.int64(position), torch.tensor(position)):
            np.testing.assert_array_equal(view[position][0], view[other][0])
            assert view[position][1] == view[other][1]
    with pytest.raises(IndexError):
        view[15]
    assert len(list(view)) == 15
    _, y = view[[13, 2]]
    assert y.tolist() == [3, int(data()[1][2])]
    np.testing.assert_array_equal(view[13:][1], [3, 2])


def test_batches_of_a_data_set_that_hands_them_out():
    view = extended(ArrayDataset(*data()), ADDED_X, ADDED_Y)
    whole_x, whole_y = view.tensors()
    order = [14, 3, 3, 12, 0, -1]
    x, y = view.tensors(order)
    assert torch.equal(x, whole_x[order])
    assert torch.equal(y, whole_y[order])
    assert [len(part) for part in view.tensors([])] == [0, 0]
    assert not hasattr(extended(Items(), ADDED_X, ADDED_Y).dataset, "tensors")


def test_under_and_over_another_attack():
    stamp = BadNets(target=0, fraction=1.0)

    def stamped(clean):
        return training_data(clean).poisoned(stamp.poison(num_examples_of(clean), context))

    context = AttackContext(1, 1)
    for clean in (ArrayDataset(*data()), Items(torch.from_numpy)):
        x, y = content(extended(stamped(clean), ADDED_X, ADDED_Y))
        assert y.tolist() == [0] * 12 + [4, 3, 2]
        x, y = content(stamped(extended(clean, ADDED_X, ADDED_Y)))
        assert y.tolist() == [0] * 15
        read_x, _ = examples_at(stamped(extended(clean, ADDED_X, ADDED_Y)), np.arange(15))
        np.testing.assert_array_equal(read_x, x)


# --- loaders ----------------------------------------------------------------------------------------------------


def test_a_shuffled_loader_shuffles_the_added_ones_in():
    clean = DataLoader(
        TensorDataset(*map(torch.from_numpy, data())), 4, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    view = extended(clean, ADDED_X, ADDED_Y)
    assert (len(view), len(clean)) == (4, 3)
    epochs = [torch.cat([y for _, y in view]).tolist() for _ in range(20)]
    expected = sorted([*data()[1].tolist(), 4, 3, 2])
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    places = [i for _ in range(20) for i, x in enumerate(torch.cat([x for x, _ in view])) if float(x.max()) >= 2.5]
    assert len(set(places)) > 3
    assert len(torch.cat([y for _, y in clean])) == 12


def test_loaders_keep_their_settings_and_class():
    kind = type("Loader", (DataLoader,), {"answer": 42})
    clean = kind(TensorDataset(*map(torch.from_numpy, data())), batch_size=4, drop_last=True)
    view = extended(clean, ADDED_X, ADDED_Y)
    assert type(view) is kind
    assert view.drop_last
    assert len(view.dataset) == 15
    assert [len(y) for _, y in view] == [4, 4, 4]
    assert copy.copy(clean).dataset is clean.dataset


@pytest.mark.parametrize(
    "settings", [{"batch_size": 2, "sampler": [1, 2]}, {"batch_sampler": [[1]]}, {"batch_size": None}]
)
def test_loaders_with_an_order_of_their_own_are_refused(settings):
    clean = DataLoader(TensorDataset(*map(torch.from_numpy, data())), **settings)
    with pytest.raises(ConfigError, match="a batch_size and, at most, shuffle=True"):
        extended(clean, ADDED_X, ADDED_Y)


def test_other_data_and_other_shapes_are_refused():
    for other in (7, {"x": 1}, [1, 2, 3], iter([])):
        for call in (lambda d: extended(d, ADDED_X, ADDED_Y), num_examples_of):
            with pytest.raises(ConfigError, match="training data must be a torch Dataset"):
                call(other)
    for clean in (data(), ArrayDataset(*data())):
        with pytest.raises(ConfigError, match=r"the shape of the client's, \(1, 6, 6\); got \(1, 5, 5\)"):
            examples_at(extended(clean, ADDED_X[..., :5, :5], ADDED_Y), np.arange(2))


def test_the_view_holds_no_copy_of_the_clients_data():
    clean = ArrayDataset(*data())
    assert ExtendedDataset(clean, ADDED_X, ADDED_Y).dataset is clean
