"""Poisoned training data: every form in which a client may keep them, none of them ever changed."""

import copy

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from flsec.attacks import Trigger
from flsec.client_apps import (
    Attack,
    AttackContext,
    BadNets,
    ClassFlipping,
    LabelFlipping,
    Poison,
    PoisonedDataset,
    SignFlipping,
    numpy_client_app,
    poisoned,
)
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from tests.client_apps.toys import Toy, arrays, context, data, message, toy_fn

FLIP = LabelFlipping(pairs=[(0, 1), (1, 0), (4, 2)])
FLIPPED = np.array([1, 0, 2, 3, 2])  # where FLIP takes the classes 0 to 4
STAMP = BadNets(target=3, fraction=0.5)


class Viewer(Toy):
    """Keeps what it trains on."""

    look = staticmethod(lambda trainset: list(trainset))

    def __init__(self, trainset, attribute="trainset"):
        self.client_id = 1
        setattr(self, attribute, trainset)
        self.attribute = attribute

    def fit(self, parameters, config):
        self.seen = self.look(getattr(self, self.attribute))
        return parameters, 1, {}


def view(attack, trainset, look=list):
    """What an attacked client finds in its trainset."""
    client = Viewer(trainset)
    client.look = look
    attack(client).fit(arrays(), {"server-round": 1})
    assert client.trainset is trainset
    return client.seen


class Items(Dataset):
    """A data set that counts who touches it; items of any types."""

    def __init__(self, n=10, to_x=torch.from_numpy, to_y=int):
        self.x, self.y = data(n)
        self.to_x, self.to_y = to_x, to_y
        self.touched = []

    def __len__(self):
        return len(self.y)

    def __getitem__(self, position):
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        self.touched.append(position)
        return self.to_x(self.x[position]), self.to_y(self.y[position])


# ---- data sets


LABEL_TYPES = [int, np.int32, np.uint8, lambda y: np.array(y, np.int16), torch.tensor, lambda y: torch.tensor(int(y))]


@pytest.mark.parametrize("to_y", LABEL_TYPES)
@pytest.mark.parametrize("to_x", [torch.from_numpy, np.array, lambda x: x.astype(np.float64), lambda x: x.tolist()])
def test_a_data_set_of_any_types(to_x, to_y):
    clean = Items(to_x=to_x, to_y=to_y)
    for (x, y), (new_x, new_y) in zip(Items(to_x=to_x, to_y=to_y), view(FLIP, clean), strict=True):
        assert type(new_x) is type(x)
        assert np.array_equal(new_x, x)
        assert int(new_y) == FLIPPED[int(y)]
        assert getattr(new_y, "dtype", int) == getattr(y, "dtype", int)
        assert isinstance(new_y, torch.Tensor) == isinstance(y, torch.Tensor)


@pytest.mark.parametrize("to_x", [torch.from_numpy, np.array, lambda x: torch.from_numpy(x).double()])
def test_a_trigger_on_a_share_of_a_data_set(to_x):
    clean = Items(to_x=to_x)
    x, y = data(10)
    stamped = Trigger().apply(x)
    seen = view(STAMP, clean)
    chosen = [i for i in range(10) if np.array_equal(seen[i][0], to_x(stamped[i]))]
    assert len(chosen) == 5
    for i in range(10):
        assert type(seen[i][0]) is type(to_x(x[i]))
        assert seen[i][0].dtype == to_x(x[i]).dtype
        assert np.array_equal(seen[i][0], to_x(stamped[i] if i in chosen else x[i]))
        assert seen[i][1] == (3 if i in chosen else y[i])
        assert type(seen[i][1]) is int


def test_inputs_of_any_kind_pass_a_label_attack_as_they_are():
    inputs = [{"tokens": [1, 2]}, "text", object()]

    class Odd(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return inputs[i], i

    seen = view(FLIP, Odd(), look=lambda d: [d[0], d[1], d[2]])
    assert [x for x, _ in seen] == inputs
    assert seen[2][0] is inputs[2]
    assert [y for _, y in seen] == [1, 0, 2]


def test_no_item_is_touched_before_it_is_asked_for():
    clean = Items()
    view(FLIP, clean, look=lambda d: (len(d), d, d[7]))
    assert clean.touched == [7]
    view(STAMP, clean, look=lambda d: (len(d), DataLoader(d), Subset(d, [1]), random_split(d, [4, 6]), d[8]))
    assert clean.touched == [7, 8]
    clean.touched.clear()
    view(FLIP, clean, look=lambda d: (d[3], d[-1], [d[i] for i in (5, 5)]))
    assert clean.touched == [3, -1, 5, 5]


def test_positions_may_be_negative_numpy_integers_or_tensors():
    seen = view(
        STAMP, Items(), look=lambda d: [(d[i], d[i - 10], d[np.int64(i)], d[torch.tensor(i)]) for i in range(10)]
    )
    for first, *others in seen:
        for other in others:
            assert torch.equal(other[0], first[0])
            assert other[1] == first[1]


def test_iteration_ends():
    assert len(view(FLIP, Items(), look=list)) == 10
    assert len(view(FLIP, ArrayDataset(*data()), look=list)) == 12


class Numbered(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize("item", ["text", (1,), 5])
def test_items_that_are_no_examples_are_named(item):
    with pytest.raises(ConfigError, match=r"tuple \(input, label, ...\) or a dictionary; Numbered gave"):
        view(FLIP, Numbered([item] * 3), look=lambda d: d[0])


def test_array_data_set_in_one_step_and_item_by_item():
    clean = ArrayDataset(*data())
    x, y = clean.tensors()
    order = [3, 3, 0, 11]

    for attack in (FLIP, STAMP):
        seen = view(attack, clean, look=lambda d: (d.tensors(), d.tensors(order), d.tensors([]), [d[i] for i in order]))
        (all_x, all_y), (some_x, some_y), (no_x, no_y), items = seen
        assert not (torch.equal(all_x, x) and torch.equal(all_y, y))
        assert torch.equal(some_x, all_x[order])
        assert torch.equal(some_y, all_y[order])
        assert (len(no_x), len(no_y)) == (0, 0)
        assert torch.equal(torch.stack([i for i, _ in items]), some_x)
        assert [label for _, label in items] == some_y.tolist()
    assert torch.equal(clean.tensors()[0], x)
    assert torch.equal(clean.tensors()[1], y)


def test_a_lazy_file_is_read_only_where_it_is_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", data()[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    clean = ArrayDataset(mapped, data()[1])
    rows = []
    source = clean._data

    class Recorder:
        shape, dtype = source.shape, source.dtype

        def __getitem__(self, index):
            rows.extend(index)
            return source[index]

    clean._data = Recorder()
    view(STAMP, clean, look=lambda d: d.tensors([2, 5]))
    assert rows == [2, 5]


# ---- (x, y) pairs


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("convert", [np.array, torch.from_numpy])
@pytest.mark.parametrize("attack", [FLIP, STAMP])
def test_a_pair_of_arrays(kind, convert, attack):
    x, y = map(convert, data(10))
    clean = kind([x, y])
    before = [np.array(part).tobytes() for part in clean]
    seen = view(attack, clean, look=lambda pair: pair)
    assert type(seen) is kind
    for new, old in zip(seen, clean, strict=True):
        assert type(new) is type(old)
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
    if attack is FLIP:
        assert seen[0] is x
        assert np.array_equal(seen[1], FLIPPED[np.array(y)])
    else:
        stamped = [i for i in range(10) if not np.array_equal(seen[0][i], x[i])]
        assert len(stamped) == 5
        assert np.array_equal(seen[0][stamped], Trigger().apply(np.array(x)[stamped]))
        assert np.array_equal(seen[1], [3 if i in stamped else y[i] for i in range(10)])
    assert [np.array(part).tobytes() for part in clean] == before


def test_all_forms_poison_the_same_examples():
    x, y = data(10)
    expected_x, expected_y = view(STAMP, (x, y), look=lambda pair: pair)
    for clean in (Items(), ArrayDataset(x, y), TensorDataset(torch.tensor(x), torch.tensor(y))):
        seen = view(STAMP, clean)
        assert np.array_equal([np.array(a) for a, _ in seen], expected_x)
        assert [int(b) for _, b in seen] == expected_y.tolist()
        [(a, b)] = view(STAMP, DataLoader(clean, batch_size=10))
        assert np.array_equal(a, expected_x)
        assert b.tolist() == expected_y.tolist()


# ---- data loaders


def _loaders():
    clean = Items()
    yield "in order", lambda: DataLoader(clean, batch_size=3)
    yield "shuffled", lambda: DataLoader(clean, batch_size=3, shuffle=True)
    yield (
        "generator",
        lambda: DataLoader(
            clean, batch_size=4, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(5)
        ),
    )
    yield "sampler", lambda: DataLoader(clean, batch_size=2, sampler=[4, 4, 0, 9, 1])
    yield "batch sampler", lambda: DataLoader(clean, batch_sampler=[[1, 2, 3], [0], [9, 9]])
    yield "no batches", lambda: DataLoader(clean, batch_size=None)
    pairs = TensorDataset(*map(torch.from_numpy, data(10)))
    batches = BatchSampler(torch.utils.data.SequentialSampler(pairs), 4, drop_last=False)
    yield "batches of a data set", lambda: DataLoader(pairs, batch_size=None, sampler=batches)
    yield "slices", lambda: DataLoader(pairs, batch_size=None, sampler=[slice(0, 3), slice(8, None)])
    yield "collate", lambda: DataLoader(clean, batch_size=5, collate_fn=lambda items: tuple(zip(*items, strict=True)))
    yield "subset", lambda: DataLoader(Subset(clean, [9, 1, 4]), batch_size=2, shuffle=True)
    yield "items in a list", lambda: DataLoader([clean[i] for i in range(10)], batch_size=3)
    yield "class of one's own", lambda: type("Loader", (DataLoader,), {"answer": 42})(clean, batch_size=3)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in _loaders()])
def test_a_loader_gives_the_same_batches_with_other_labels(make):
    torch.manual_seed(0)
    plain = [list(make()), torch.rand(1)]
    torch.manual_seed(0)
    loader = make()
    epochs = view(FLIP, loader, look=lambda d: [type(d), len(d), len(d.dataset), d.batch_size, d.drop_last, list(d)])
    assert epochs[:5] == [type(loader), len(loader), len(loader.dataset), loader.batch_size, loader.drop_last]
    assert torch.rand(1) == plain[1]  # no random number more or less than without the attack
    for (x, y), (new_x, new_y) in zip(plain[0], epochs[5], strict=True):
        assert np.array_equal(np.array(new_x), np.array(x))
        assert type(new_y) is type(y)
        assert np.array_equal(FLIPPED[np.array(y)], np.array(new_y))


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in _loaders() if "subset" not in name])
def test_a_loader_gives_the_same_examples_the_trigger(make):
    """Which example is poisoned depends on the example, not on the batch that it comes in."""
    x, y = view(STAMP, data(10), look=lambda pair: pair)
    find = {clean.tobytes(): i for i, clean in enumerate(data(10)[0])}
    find |= {stamped.tobytes(): i for i, stamped in enumerate(x)}
    for batch in view(STAMP, make()):
        inputs, labels = ([part] for part in batch) if np.ndim(batch[1]) == 0 else batch
        for one, label in zip(inputs, labels, strict=True):
            i = find[np.array(one).tobytes()]
            assert np.array_equal(one, x[i])
            assert int(label) == y[i]


def test_a_persistent_loader_serves_clean_and_poisoned_data_in_turn():
    loader = DataLoader(Items(), batch_size=10, num_workers=1, persistent_workers=True)
    clean = next(iter(loader))[1]
    [(_, flipped)] = view(FLIP, loader)
    again = next(iter(loader))[1]
    assert torch.equal(clean, again)
    assert flipped.tolist() == FLIPPED[clean].tolist()


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(0, 1)])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    ("trainset", "name"),
    [
        (Stream(), "Stream"),
        (DataLoader(Stream()), "Stream"),
        ({"x": 1}, "dict"),
        ([1, 2, 3], "list"),
        ((np.ones(3),), "tuple"),
        (iter([]), "list_iterator"),
        (7, "int"),
    ],
)
def test_other_data_are_refused(trainset, name):
    with pytest.raises(ConfigError, match=f"training data must be .* got {name}"):
        view(FLIP, trainset)


# ---- the client's attribute


def test_another_attribute():
    attack = LabelFlipping(source=0, target=4, data_attribute="train_loader")
    clean = DataLoader(Items(), batch_size=10)
    client = Viewer(clean, "train_loader")
    client.trainset = untouched = (np.zeros(1), np.zeros(1))
    attack(client).fit(arrays(), {})
    assert client.seen[0][1].tolist() == [4, 1, 2, 3, 4, 4, 1, 2, 3, 4]
    assert client.train_loader is clean
    assert client.trainset is untouched


def test_a_missing_attribute_is_named_with_those_that_there_are():
    client = Viewer(data(), "samples")
    for trainset in ("absent", None):
        words = "LabelFlipping: the client has no attribute 'trainset'.* it has: attribute, client_id, samples"
        with pytest.raises(ConfigError, match=words):
            FLIP(client).fit(arrays(), {})
        client.trainset = None if trainset == "absent" else trainset
    app = numpy_client_app(lambda context: Viewer(data(), "samples"), mods=[FLIP.mod])
    with pytest.raises(ConfigError, match=words):
        app(message("train", arrays(), {}), context())


def test_a_failing_client_gets_its_data_back():
    class Failing(Viewer):
        def fit(self, parameters, config):
            super().fit(parameters, config)
            raise RuntimeError("out of memory")

    client = Failing(clean := ArrayDataset(*data()))
    client.look = lambda d: d
    with pytest.raises(RuntimeError, match="out of memory"):
        FLIP(STAMP(client)).fit(arrays(), {})
    assert isinstance(client.seen, PoisonedDataset)
    assert client.trainset is clean


def test_data_of_the_class_stay_the_classes():
    class Shared(Toy):
        trainset = ArrayDataset(*data())

        def __init__(self):
            self.client_id = 1

    client, clean = Shared(), Shared.trainset
    before = dict(vars(client))
    honest = client.fit(arrays(), {})[2]
    assert FLIP(client).fit(arrays(), {})[2] != honest
    assert vars(client) == before
    assert Shared.trainset is clean


def test_data_behind_a_property_with_and_without_a_setter():
    class ReadOnly(Toy):
        trainset = property(lambda self: ArrayDataset(*data()))

        def __init__(self):
            self.client_id = 1

    with pytest.raises(ConfigError, match="'trainset' of the client cannot be replaced"):
        FLIP(ReadOnly()).fit(arrays(), {})

    class Settable(Toy):
        trainset = property(lambda self: self.kept, lambda self, value: setattr(self, "kept", value))

    client = Settable()
    honest, clean = client.fit(arrays(), {})[2], client.kept
    assert FLIP(client).fit(arrays(), {})[2] != honest
    assert client.kept is clean


def test_evaluation_sees_clean_data():
    honest = Toy().evaluate(arrays(), {})
    attacked = FLIP(STAMP(Toy()))
    attacked.fit(arrays(), {})
    assert attacked.evaluate(arrays(), {}) == honest
    app = numpy_client_app(FLIP(toy_fn), mods=[STAMP.mod, SignFlipping().mod])
    app(message("train", arrays(), {}), context())
    reply = app(message("evaluate", arrays(), {}), context()).content["metrics"]
    assert (reply["loss"], reply["num-examples"]) == honest[:2]


# ---- data attacks that run as mods


def test_a_data_attack_as_mod_of_a_classic_app_says_that_it_cannot_reach_the_data():
    app = ClientApp(toy_fn, mods=[FLIP.mod])
    with pytest.raises(ConfigError, match=r"LabelFlipping poisons training data, which this mod could not reach"):
        app(message("train", arrays(), {}, "classic"), context())
    assert app(message("evaluate", arrays(), {}, "classic"), context()).has_content()


def test_a_data_attack_as_mod_of_a_function_that_loads_its_own_data_says_so():
    app = ClientApp()

    @app.train(mods=[SignFlipping().mod, STAMP.mod])
    def run(message, context):
        return message

    with pytest.raises(ConfigError, match=r"BadNets poisons training data, .*flsec.client_apps.poisoned\(trainset\)"):
        app(message("train", arrays(), {}), context())


def test_in_a_run_the_error_is_the_clients_reply():
    from flsec.simulations.engines.grid import InProcessGrid

    grid = InProcessGrid(ClientApp(toy_fn, mods=[FLIP.mod]), num_clients=100)
    [reply] = grid.send_and_receive([message("train", arrays(), {}, "classic")])
    assert reply.has_error()
    assert "this mod could not reach" in reply.error.reason


def test_poisoned_is_nothing_outside_of_an_attack():
    clean = data()
    assert poisoned(clean) is clean
    app = numpy_client_app(lambda context: Toy(), mods=[FLIP.mod])
    app(message("train", arrays(), {}), context())
    assert poisoned(clean) is clean
    with pytest.raises(ConfigError):
        ClientApp(toy_fn, mods=[FLIP.mod])(message("train", arrays(), {}, "classic"), context())
    assert poisoned(clean) is clean


# ---- the poison itself


def test_a_poison_changes_copies_only():
    x, y = data()
    chosen = np.arange(12) % 2 == 0
    poison = Poison(inputs=lambda v: v * 0, labels=lambda v: v * 0 + 9, chosen=chosen)
    for convert in (np.array, torch.from_numpy):
        batch = convert(x.copy()), convert(y.copy())
        new_x, new_y = poison.apply(*batch, np.arange(12))
        assert np.array_equal(new_x[::2], x[::2] * 0)
        assert np.array_equal(new_x[1::2], x[1::2])
        assert np.array_equal(new_y, np.where(chosen, 9, y))
        assert np.array_equal(batch[0], x)
        assert np.array_equal(batch[1], y)


def test_the_default_poison_is_none():
    x, y = data()
    assert all(new is old for new, old in zip(Poison().apply(x, y, np.arange(12)), (x, y), strict=True))
    assert not Attack().poisons_data
    assert not Attack().poisons_update
    assert ClassFlipping().poisons_data
    assert not ClassFlipping().poisons_update


def test_copies_of_a_poisoned_set_are_equal():
    seen = PoisonedDataset(ArrayDataset(*data()), STAMP.poison(12, AttackContext(round=1, client_id=1)))
    for again in (copy.copy(seen), copy.deepcopy(seen)):
        assert torch.equal(again.tensors()[0], seen.tensors()[0])
