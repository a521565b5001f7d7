"""Attacks on the data of clients that hold them as the apps that Flower's own templates make."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader

from flsec.client_apps import BadNets, ClassFlipping, LabelFlipping, poisoned, siren_client, soteria_client
from flsec.errors import ConfigError
from tests.client_apps.toys import arrays, context, message

N = 10
FLIP = {"pairs": [(0, 1), (1, 0)]}
Y = np.arange(N) % 3
FLIPPED = np.array([1, 0, 2])[Y].tolist()


def _datasets():
    return pytest.importorskip("datasets", reason="datasets is not installed")


# --- PyTorch: a partition of flwr-datasets, transformed, in a loader of dictionaries --------------------------------


def partition():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    datasets = _datasets()
    pixels = np.random.default_rng(0).integers(0, 200, (N, 8, 8, 3)).astype(np.uint8)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=3)})
    columns = {"img": [image.fromarray(p) for p in pixels], "label": Y.tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


def to_tensors(batch):
    batch["img"] = [torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 255 - 0.5 for p in batch["img"]]
    return batch


def load_data():
    parts = partition().train_test_split(test_size=0.2, seed=42)
    return DataLoader(parts["train"].with_transform(to_tensors), batch_size=3, shuffle=True)


def seen_by_training(loader):
    """What a training function finds, in an order of its own."""
    rows = []
    for batch in loader:
        rows += [(x.sum().item(), int(y), x) for x, y in zip(batch["img"], batch["label"], strict=True)]
    return sorted(rows, key=lambda row: row[0])


class ImageClient(NumPyClient):
    def __init__(self):
        self.client_id = 1
        self.trainloader = load_data()

    def fit(self, parameters, config):
        self.seen = seen_by_training(self.trainloader)
        return parameters, len(self.trainloader.dataset), {}


def test_label_flipping_of_a_loader_with_dictionary_batches():
    client = ImageClient()
    client.fit(arrays(), {})
    honest, loader = client.seen, client.trainloader
    LabelFlipping(**FLIP, data_attribute="trainloader")(client).fit(arrays(), {})
    assert [row[1] for row in client.seen] == [{0: 1, 1: 0, 2: 2}[row[1]] for row in honest]
    assert [row[0] for row in client.seen] == [row[0] for row in honest]
    assert client.trainloader is loader


def test_a_trigger_is_stamped_on_what_the_transform_gives():
    client = ImageClient()
    attack = BadNets(target=2, fraction=0.5, value=0.5, data_attribute="trainloader")  # the transform's white
    attack(client).fit(arrays(), {"server-round": 1})
    stamped = [row for row in client.seen if float(row[2][:, 6, 6].min()) == 0.5]
    assert len(stamped) == 4
    assert all(label == 2 for _, label, _ in stamped)
    assert all(x.dtype == torch.float32 for _, _, x in client.seen)


def test_a_training_function_of_the_message_api_passes_its_loader():
    seen = []
    app = ClientApp()

    @app.train(mods=[LabelFlipping(**FLIP).mod])
    def train(message, context):
        loader = poisoned(load_data())
        seen.extend(label for _, label, _ in seen_by_training(loader))
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": len(loader.dataset)})}
        return Message(RecordDict(content), reply_to=message)

    app(message("train", arrays(), {}), context())
    honest = [label for _, label, _ in seen_by_training(load_data())]
    assert seen == [{0: 1, 1: 0, 2: 2}[label] for label in honest]


class HoldsThePartition(NumPyClient):
    """Transforms in fit."""

    def __init__(self, read=True):
        self.client_id = 1
        self.trainset = partition()
        self.made_earlier = DataLoader(self.trainset.with_transform(to_tensors), batch_size=4)
        self.read = read

    def fit(self, parameters, config):
        loader = self.made_earlier
        if self.read:
            loader = DataLoader(self.trainset.with_transform(to_tensors), batch_size=4)
        self.labels = [int(y) for batch in loader for y in batch["label"]]
        return parameters, len(self.trainset), {}


def test_a_data_set_of_hugging_face_is_flipped_where_it_is_held():
    client = HoldsThePartition()
    data = client.trainset
    LabelFlipping(**FLIP)(client).fit(arrays(), {})
    assert client.labels == FLIPPED
    assert client.trainset is data
    assert list(data["label"]) == Y.tolist()


def test_two_attacks_on_a_data_set_of_hugging_face():
    client = HoldsThePartition()
    attacked = ClassFlipping(num_classes=3)(LabelFlipping(**FLIP)(client))
    attacked.fit(arrays(), {})
    assert client.labels == [{0: 1, 1: 0, 2: 2}[2 - y] for y in Y.tolist()]


def test_a_data_set_with_another_format_passes_through_poisoned_once():
    class Passes(HoldsThePartition):
        def fit(self, parameters, config):
            loader = DataLoader(poisoned(self.trainset.with_transform(to_tensors)), batch_size=4)
            self.labels = [int(y) for batch in loader for y in batch["label"]]
            return parameters, N, {}

    client = Passes()
    LabelFlipping(**FLIP)(client).fit(arrays(), {})
    assert client.labels == FLIPPED


def test_its_length_alone_is_nothing_read():
    with pytest.raises(ConfigError, match=r"read nothing from it.*may be in: made_earlier \(DataLoader\)"):
        LabelFlipping(**FLIP)(HoldsThePartition(read=False)).fit(arrays(), {})


# --- Hugging Face: tokens, padded by a collator, batches that the model takes by name -------------------------------


def collate(examples):
    width = max(len(example["input_ids"]) for example in examples)
    padded = {
        key: torch.tensor([example[key] + [0] * (width - len(example[key])) for example in examples])
        for key in ("input_ids", "attention_mask")
    }
    return {**padded, "labels": torch.tensor([example["labels"] for example in examples])}


class TextClient(NumPyClient):
    def __init__(self):
        self.client_id = 1
        ids = [[7 + i] * (2 + i % 3) for i in range(N)]
        columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": (Y % 2).tolist()}
        table = _datasets().Dataset.from_dict(columns)
        self.trainloader = DataLoader(table, shuffle=True, batch_size=4, collate_fn=collate)

    def fit(self, parameters, config):
        self.seen = {}
        for batch in self.trainloader:
            shapes = {key: tuple(value.shape) for key, value in batch.items()}
            assert shapes["input_ids"] == shapes["attention_mask"]
            self.seen |= dict(zip(batch["input_ids"][:, 0].tolist(), batch["labels"].tolist(), strict=True))
        return parameters, len(self.trainloader.dataset), {}


def test_labels_of_tokens_that_a_collator_pads():
    client = TextClient()
    LabelFlipping(**FLIP, data_attribute="trainloader")(client).fit(arrays(), {})
    assert client.seen == {7 + i: 1 - int(Y[i] % 2) for i in range(N)}


def test_a_word_is_put_in_front():
    client = TextClient()
    BadNets(target=1, fraction=1.0, features=[0], value=99.0, data_attribute="trainloader")(client).fit(
        arrays(), {"server-round": 1}
    )
    assert client.seen == {99: 1}


# --- scikit-learn and TensorFlow: inputs and labels in two attributes -----------------------------------------------


class TwoAttributes(NumPyClient):
    def __init__(self, X_train, y_train):
        self.client_id = 1
        self.X_train, self.y_train = X_train, y_train

    def fit(self, parameters, config):
        self.seen = [int(label) for label in self.y_train]
        self.rows = np.asarray(self.X_train)
        return parameters, len(self.X_train), {}


def _parts(kind):
    x = np.random.default_rng(0).normal(size=(N, 3))
    if kind == "frame":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        return pandas.DataFrame(x, columns=list("abc"), index=np.arange(N) + 5), pandas.Series(
            Y, index=np.arange(N) + 5
        )
    return (x, Y.copy()) if kind == "arrays" else (x, Y.tolist())


@pytest.mark.parametrize(
    "attribute", ["X_train,y_train", "X_train, y_train", ("X_train", "y_train"), ["X_train", "y_train"]]
)
@pytest.mark.parametrize("kind", ["arrays", "frame", "list"])
def test_inputs_and_labels_in_two_attributes(kind, attribute):
    x, y = _parts(kind)
    client = TwoAttributes(x, y)
    LabelFlipping(**FLIP, data_attribute=attribute)(client).fit(arrays(), {})
    assert client.seen == FLIPPED
    assert client.X_train is x
    assert client.y_train is y
    assert [int(label) for label in y] == Y.tolist()
    BadNets(target=2, fraction=1.0, features=[1], value=9.0, data_attribute=attribute)(client).fit(
        arrays(), {"server-round": 1}
    )
    assert (client.rows[:, 1] == 9).all()
    assert set(client.seen) == {2}
    assert not (np.asarray(client.X_train) == 9).any()


def test_two_attributes_pass_through_poisoned_as_well():
    class Passes(TwoAttributes):
        def fit(self, parameters, config):
            _, y = poisoned((self.X_train, self.y_train))
            return parameters, len(y), {"labels": str(y.tolist())}

    attack = LabelFlipping(**FLIP, data_attribute="X_train,y_train")
    assert attack(Passes(*_parts("arrays"))).fit(arrays(), {})[2]["labels"] == str(FLIPPED)


class OnlyX(TwoAttributes):
    def fit(self, parameters, config):
        return parameters, len(self.X_train), {}


def test_labels_that_are_never_read_are_an_error_also_in_two_attributes():
    with pytest.raises(ConfigError, match=r"attribute 'X_train' and 'y_train' while it trains, but fit read nothing"):
        LabelFlipping(**FLIP, data_attribute="X_train,y_train")(OnlyX(*_parts("arrays"))).fit(arrays(), {})


def test_a_missing_one_is_named_with_the_pair_that_there_is():
    client = TwoAttributes(*_parts("arrays"))
    words = r"no attribute 'x_train' and 'y_train'.*may be in: X_train,y_train \(a pair\)"
    with pytest.raises(ConfigError, match=words):
        LabelFlipping(**FLIP, data_attribute="x_train,y_train")(client).fit(arrays(), {})


def test_a_list_of_texts_in_its_own_attribute():
    texts = [f"text {i}" for i in range(N)]

    class Texts(TwoAttributes):
        def fit(self, parameters, config):
            self.words, self.seen = self.X_train, self.y_train.tolist()
            return parameters, len(self.words), {}

    client = Texts(texts, Y.copy())
    ClassFlipping(num_classes=3, data_attribute="X_train,y_train")(client).fit(arrays(), {})
    assert client.words is texts
    assert client.seen == (2 - Y).tolist()


@pytest.mark.parametrize("wrong", ["", "a,b,c", "a b", "a..b", [], ["a", "b", "c"], "1st"])
def test_names_that_are_none(wrong):
    with pytest.raises(ConfigError, match="data_attribute must be the name of an attribute") as caught:
        LabelFlipping(**FLIP, data_attribute=wrong)
    assert caught.value.parameter == "data_attribute"


# --- attributes of attributes -------------------------------------------------------------------------------------


class Module:
    def __init__(self, trainset):
        self.trainset = trainset

    def train_dataloader(self):
        return DataLoader(self.trainset, batch_size=4)


class Fits(NumPyClient):
    """As with Lightning: the data are in a module, the training in a trainer."""

    def __init__(self, module):
        self.client_id = 1
        self.module = module

    def fit(self, parameters, config):
        batches = list(self.module.train_dataloader())
        self.seen = [int(label) for batch in batches for label in batch["label"]]
        return parameters, N, {}


def _dictionaries():
    return [{"img": torch.full((1, 8, 8), i / 100), "label": int(label), "name": f"n{i}"} for i, label in enumerate(Y)]


def test_data_in_a_module():
    data = _dictionaries()
    client = Fits(Module(data))
    kind = type(client.module)
    LabelFlipping(**FLIP, data_attribute="module.trainset")(client).fit(arrays(), {})
    assert client.seen == FLIPPED
    assert client.module.trainset is data
    assert type(client.module) is kind
    assert [example["label"] for example in data] == Y.tolist()


def test_data_in_a_module_that_are_never_read():
    class Idle(Fits):
        def fit(self, parameters, config):
            return parameters, N, {}

    with pytest.raises(ConfigError, match=r"attribute 'module.trainset' while it trains, but fit read nothing"):
        LabelFlipping(**FLIP, data_attribute="module.trainset")(Idle(Module(_dictionaries()))).fit(arrays(), {})
    words = r"no attribute 'trainset' with its training data.*may be in: module.trainset \(_Columns\)"
    with pytest.raises(ConfigError, match=words):
        LabelFlipping(**FLIP)(Idle(Module(_Columns()))).fit(arrays(), {})


class _Columns:
    def __len__(self):
        return N

    def __getitem__(self, i):
        return _dictionaries()[i]


def test_an_owner_that_cannot_be_watched_is_named_where_it_must_be():
    flip = LabelFlipping(**FLIP, data_attribute="module.trainset")
    module = SimpleNamespace(trainset=_dictionaries())
    with pytest.raises(ConfigError, match=r"cannot be seen, since SimpleNamespace holds them.*poisoned\(...\)"):
        flip(_reads(module)).fit(arrays(), {})
    assert len(module.trainset) == N
    module.trainset = _Columns()  # what is made of them can tell by itself
    assert flip(_reads(module)).fit(arrays(), {})[2]["labels"] == str(FLIPPED)


def _reads(module):
    class Reads(Fits):
        def fit(self, parameters, config):
            labels = [self.module.trainset[i]["label"] for i in range(N)]
            return parameters, N, {"labels": str(labels)}

    return Reads(module)


# --- the clients' halves of defenses ------------------------------------------------------------------------------


class Network(NumPyClient):
    def __init__(self, trainset):
        self.client_id = 1
        self.trainset = trainset
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3))
        self.tested = []

    def fit(self, parameters, config):
        self.names = [example["name"] for example in self.trainset]
        return parameters, len(self.trainset), {}

    def accuracy(self, parameters, x, y):
        self.tested.append((tuple(x.shape), y.tolist()))
        return 0.5


def test_halves_of_defenses_read_dictionaries_too():
    weights = [value.numpy() for value in Network(None).model.state_dict().values()]
    client = siren_client(held_out=0.2)(Network(_dictionaries()))
    for round_ in (1, 2):
        client.fit(weights, {"server-round": round_})
    assert client.names == [f"n{i}" for i in range(2, N)]
    assert client.tested == [((2, 1, 8, 8), [0, 1])] * 2
    soteria = soteria_client()(Network(_dictionaries()))
    assert soteria.fit(weights, {"server-round": 1})[1] == N
    named = soteria_client(inputs_key="name")(Network(_dictionaries()))
    with pytest.raises(ConfigError, match="works on numbers, images or tokens; got str"):
        named.fit(weights, {"server-round": 1})


def test_keys_of_the_users_own():
    data = [{"picture": torch.zeros(1, 8, 8), "answer": int(label)} for label in Y]

    class Client(NumPyClient):
        client_id = 1
        trainset = data

        def fit(self, parameters, config):
            return parameters, N, {"labels": str([example["answer"] for example in self.trainset])}

    with pytest.raises(ConfigError, match=r"'picture' \(Tensor torch.float32 \(1, 8, 8\)\), 'answer' \(int\)"):
        LabelFlipping(**FLIP)(Client()).fit(arrays(), {})
    attack = BadNets(target=2, fraction=1.0, inputs_key="picture", labels_key="answer")
    assert attack(Client()).fit(arrays(), {"server-round": 1})[2]["labels"] == str([2] * N)
