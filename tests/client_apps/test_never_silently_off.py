"""An attack that cannot work where it is put says so: nobody completes it, or the client never reads its data."""

import inspect

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader, Dataset, TensorDataset

from flsec._contracts.attacks import AUXILIARY_DATA, AttackedNetwork
from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, honest, identify
from flsec.attacks.cohort_view import ADVERSARY
from flsec.client_apps import ATTACKS, Adversaries, Attack, LabelFlipping, SignFlipping, numpy_client_app, poisoned
from flsec.client_apps.base import forms_of
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.strategies import Adversary, Krum
from flsec.training import Training, get_weights
from tests.client_apps.toys import CLIENT, ROUND, Toy, arrays, context, data, message, message_app, same, toy_fn, train

GIVEN = {
    "auxiliary_data": AUXILIARY_DATA,
    "model_factory": AttackedNetwork,
    "training": Training(learning_rate=0.1, steps=1, batch_size=1.0),
    "source": 0,
    "target": 1,
    "epsilon": 1.0,
    "k": 2,
    "clients_per_round": 4,
    "learning_rate": 0.1,
    "tail": 1.0,
}


def made(name, **settings):
    """An attack of the registry, with something for each parameter that needs it."""
    attack = ATTACKS.get(name)
    return attack(**{key: value for key, value in GIVEN.items() if key in parameters_of(attack)}, **settings)


ON_TOKENS = {n for n, attack in ATTACKS.items() if getattr(attack, "fits_inputs", None) == "tokens"}
OTHERS = [n for n in ATTACKS.names() if n not in ON_TOKENS]  # test_attacks_on_tokens.py has those


class Client(NumPyClient):
    """Trains the network of the contracts' attacks by one step of its own."""

    def __init__(self, client_id=1):
        self.client_id = client_id
        self.trainset = ArrayDataset(np.random.default_rng(0).random((30, 1, 8, 8), np.float32), np.arange(30) ** 2 % 7)

    def fit(self, parameters, config):
        return _step(parameters, *self.trainset.tensors())


def _step(parameters, x, y):
    moved = np.asarray(x.double().mean() * (y.double() + 1).mean())
    new = [np.asarray(p + (1 if p.dtype.kind == "i" else moved), p.dtype) for p in parameters]
    return new, len(y), {"labels": int(y.sum())}


def weights():
    return get_weights(AttackedNetwork())


def function_app(mods):
    """An app of the Message API without any NumPyClient."""
    app = ClientApp()

    @app.train(mods=mods)
    def run(message, context):
        received = message.content["arrays"]
        x, y = poisoned(Client().trainset).tensors()
        new, n, metrics = _step([array.numpy() for array in received.values()], x, y)
        content = {
            "arrays": ArrayRecord({name: Array(array) for name, array in zip(received, new, strict=True)}),
            "metrics": MetricRecord({**metrics, "num-examples": n}),
        }
        return Message(RecordDict(content), reply_to=message)

    return app


def sent(app, config):
    reply = app(message("train", weights(), config), context(1))
    record = next(iter(reply.content.array_records.values()))
    metrics = dict(next(iter(reply.content.metric_records.values())))
    return [array.numpy() for array in record.values()], metrics


def _decorated(attack, config):
    new, n, metrics = attack(Client()).fit(weights(), config)
    return new, {**metrics, "num-examples": n}


USES = {
    "decorator": _decorated,
    "mod": lambda attack, config: sent(numpy_client_app(lambda context: Client(), mods=[attack.mod]), config),
    "Message API": lambda attack, config: sent(function_app([attack.mod]), config),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", OTHERS)
def test_each_claimed_form_works_and_each_other_is_refused(name, use):
    config = {"server-round": 2}
    forms = forms_of(ATTACKS.get(name))
    assert made(name).forms == forms
    if use not in forms:
        with pytest.raises(ConfigError, match=ATTACKS.get(name).__name__):
            USES[use](made(name), config)
        return
    attacked, honest_ = USES[use](made(name), config), _decorated(lambda client: client, config)
    changed = not same(attacked[0], honest_[0]) or attacked[1] != honest_[1]
    assert changed, f"{name} as {use} sends what an honest client sends"


def test_the_forms_follow_from_what_a_class_overrides_and_from_its_parameters():
    class Around(Attack):
        def fit(self, client, honest_fit, parameters, config):
            return honest_fit(parameters, config)

    assert forms_of(Around) == ("decorator", "mod")
    with pytest.raises(ConfigError, match="Around goes around a client's fit"):
        sent(function_app([Around().mod]), {})
    assert made("model_replacement", alpha=0.5).forms == ("decorator", "mod")
    assert made("model_replacement").forms == ("decorator", "mod", "Message API")
    assert made("adaptive_top_k", knowledge="all").forms == ("simulation only",)
    assert made("minimizing_distance_backdoor", knowledge="own").forms == ("decorator", "mod")
    assert "simulation only" in {form for name in ATTACKS.names() for form in forms_of(ATTACKS.get(name))}


# ---- attacks that need the updates of others

TOGETHER = [name for name in ATTACKS.names() if forms_of(ATTACKS.get(name)) == ("simulation only",)]


@pytest.mark.parametrize("config", [{}, {ADVERSARY: ""}, {ADVERSARY: "Other,Others"}])
@pytest.mark.parametrize("name", TOGETHER)
def test_without_an_adversary_an_attacking_client_refuses(name, config):
    who = Adversaries(num_clients=4, ids=[1], first_round=2, last_round=2)
    attack, config = made(name, adversaries=who), {**config, "server-round": 2}
    words = rf"{type(attack).__name__} needs .* Adversary\(strategy, attacks=\[{type(attack).__name__}"
    for use in USES:
        unreachable = use == "Message API" and attack.needs_client
        with pytest.raises(ConfigError, match="goes around a client's fit" if unreachable else words):
            USES[use](attack, config)
    for use in ("decorator", "mod"):  # behaves in other rounds, whatever the server says
        uploaded, _ = USES[use](attack, {**config, "server-round": 1})
        assert same(uploaded, Client().fit(weights(), {})[0])


def test_the_message_names_the_way_without_an_adversary_where_there_is_one():
    with pytest.raises(ConfigError, match=r"With knowledge='own' it needs none"):
        _decorated(made("minimizing_distance_backdoor"), {"server-round": 1})
    with pytest.raises(ConfigError) as caught:
        _decorated(made("ipm"), {"server-round": 1})
    assert "knowledge" not in str(caught.value)


@pytest.mark.parametrize("api", ["classic", "message"])
@pytest.mark.parametrize("names", [(), ("ipm",), ("ipm", "min_max", "label_flipping")])
def test_an_adversary_tells_the_clients_what_it_completes(api, names):
    identify()
    attacks = [made(name, adversaries=Adversaries(num_clients=8, ids=[1])) for name in names]
    strategy = Adversary(Krum(flower_strategy(api, "FedAvg", 8), num_byzantine=1), attacks=attacks)
    seen = strategy.client_config(1)
    wanted = [type(attack).__name__ for attack in attacks if attack.poisons_cohort]
    assert seen == ({ADVERSARY: ",".join(wanted)} if wanted else {})
    for attack in attacks:
        context_ = attack.context_for(Client(), {"server-round": 1, **seen})
        assert attack.acts(context_)
    server = {"classic": ClassicServer, "message": MessageServer}[api](strategy, range(8)).play([1], honest)
    assert len(server.arrays) == len(MODEL)


# ---- data that the client never reads


class Loaded(Client):
    """Makes its loader in the constructor; says in fit how long its data are."""

    def __init__(self, trainset=None):
        super().__init__()
        self.trainset = self.trainset if trainset is None else trainset
        self.trainloader = DataLoader(ArrayDataset(*data(30)), batch_size=5)
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 1))

    def fit(self, parameters, config):
        for _ in self.trainloader:
            pass
        return parameters, len(self.trainset), {}


class Reassigns(Client):
    def fit(self, parameters, config):
        self.trainset = ArrayDataset(*data(30))
        return super().fit(parameters, config)


class OtherAttribute(Client):
    def __init__(self):
        super().__init__()
        self.samples = (np.zeros((3, 2)), np.arange(3))

    def fit(self, parameters, config):
        return parameters, len(self.samples[1]), {}


class PairUnread(Client):
    def __init__(self):
        super().__init__()
        self.trainset = (np.zeros((3, 2)), np.arange(3))
        self.x, self.y = self.trainset

    def fit(self, parameters, config):
        return parameters, len(self.y), {}


UNREAD = [Loaded, Reassigns, OtherAttribute, PairUnread]
DATA_ATTACKS = [n for n in OTHERS if made(n).poisons_data and n not in TOGETHER]
DATA_ATTACKS.remove("chameleon")  # trains on the attribute itself, whatever the client reads


@pytest.mark.parametrize("how", ["class", "instance", "mod"])
@pytest.mark.parametrize("make", UNREAD)
def test_a_data_attack_that_the_client_never_reads_is_an_error(make, how):
    attack = LabelFlipping(source=0, target=1)
    fit = {
        "class": lambda: attack(make)().fit(weights(), {}),
        "instance": lambda: attack(make()).fit(weights(), {}),
        "mod": lambda: sent(numpy_client_app(lambda context: make(), mods=[attack.mod]), {"server-round": 1}),
    }[how]
    words = "LabelFlipping replaces the client's attribute 'trainset' .* read nothing from it.*data_attribute=.*poison"
    with pytest.raises(ConfigError, match=words):
        fit()


@pytest.mark.parametrize("name", DATA_ATTACKS)
def test_that_holds_for_every_attack_on_data(name):
    with pytest.raises(ConfigError, match="read nothing from it"):
        made(name)(Loaded()).fit(weights(), {"server-round": 1})


def test_the_message_names_where_the_data_may_be():
    with pytest.raises(ConfigError, match=r"The data may be in: trainloader \(DataLoader\)\.$"):
        LabelFlipping(source=0, target=1)(Loaded()).fit(weights(), {})
    with pytest.raises(ConfigError, match=r"no attribute 'trainset'.*may be in: trainloader \(DataLoader\)"):
        LabelFlipping(source=0, target=1)(_without_trainset()).fit(weights(), {})


def _without_trainset():
    class Bare(Loaded):
        def fit(self, parameters, config):
            return parameters, 1, {}

    client = Bare()
    del client.trainset
    return client


def test_in_the_right_attribute_the_loader_of_the_constructor_is_poisoned():
    class Counts(Loaded):
        def fit(self, parameters, config):
            return parameters, 1, {"ones": sum(int((y == 1).sum()) for _, y in self.trainloader)}

    attack = LabelFlipping(source=0, target=1, data_attribute="trainloader")
    assert attack(Counts()).fit(weights(), {})[2]["ones"] == 12
    assert Counts().fit(weights(), {})[2]["ones"] == 6


class Items(Dataset):
    def __init__(self, n=10):
        self.x, self.y = data(n)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]), int(self.y[i])


READS = {
    "items": (Items(), lambda d: d[0]),
    "a loader": (Items(), lambda d: list(DataLoader(d, batch_size=5))),
    "a loader of processes": (Items(), lambda d: list(DataLoader(d, batch_size=5, num_workers=2))),
    "a loader's": (DataLoader(Items(), batch_size=5), lambda d: next(iter(d))),
    "a loader's of processes": (DataLoader(Items(), batch_size=5, num_workers=1), lambda d: next(iter(d))),
    "a subset": (Items(), lambda d: torch.utils.data.Subset(d, [3])[0]),
    "all at once": (ArrayDataset(*data()), lambda d: d.tensors()),
    "tensors": (TensorDataset(*map(torch.from_numpy, data())), lambda d: d[2]),
    "a pair": (data(), lambda d: d[1]),
    "a list of two": (list(data()), lambda d: d[0]),
}


@pytest.mark.parametrize("how", READS)
def test_every_way_to_read_counts(how):
    class Reader(Toy):
        def fit(self, parameters, config):
            read(self.trainset)
            return parameters, 1, {}

    trainset, read = READS[how]
    client = Reader()
    client.trainset = trainset
    kind = type(attacked := LabelFlipping(source=0, target=1)(client))
    attacked.fit(arrays(), {})
    attacked.fit(arrays(), {})
    assert type(attacked) is kind
    assert attacked.trainset is trainset


def test_reading_by_another_name_counts():
    class Behind(Toy):
        trainset = property(lambda self: self._kept, lambda self, value: setattr(self, "_kept", value))

        def fit(self, parameters, config):
            return parameters, len(self._kept[1]), {"labels": int(self._kept[1].sum())}

    client = Behind()
    client.trainset = data()
    attacked = LabelFlipping(source=0, target=4)(client).fit(arrays(), {})[2]
    assert attacked["labels"] > int(data()[1].sum())


def test_a_stack_of_data_attacks_is_read_through_the_inner_one():
    outer, inner = LabelFlipping(source=0, target=1), LabelFlipping(source=1, target=2)
    with pytest.raises(ConfigError, match="LabelFlipping replaces"):
        outer(inner(Loaded())).fit(weights(), {})


@pytest.mark.parametrize("trainset", [data(0), ArrayDataset(*data(0)), DataLoader(ArrayDataset(*data(0)))])
def test_a_client_without_examples_has_nothing_to_read(trainset):
    honest_ = OtherAttribute().fit(weights(), {})
    client = OtherAttribute()
    client.trainset = trainset
    assert LabelFlipping(source=0, target=1)(client).fit(weights(), {})[1] == honest_[1]


def test_an_error_of_the_client_comes_first():
    class Fails(Loaded):
        def fit(self, parameters, config):
            raise InterruptedError("no power")

    with pytest.raises(InterruptedError):
        LabelFlipping(source=0, target=1)(Fails()).fit(weights(), {})


# ---- data that pass through ``poisoned``


class Passes(Toy):
    """Holds no training data."""

    def __init__(self):
        self.client_id = CLIENT

    def fit(self, parameters, config):
        _, y = poisoned(ArrayDataset(*data())).tensors()
        return parameters, len(y), {"labels": y.tolist()}


class PassesWhatItHolds(Toy):
    def fit(self, parameters, config):
        _, y = poisoned(self.trainset).tensors()
        return parameters, len(y), {"labels": y.tolist()}


class PassesALoader(Toy):
    def fit(self, parameters, config):
        loader = poisoned(DataLoader(self.trainset, batch_size=12))
        return parameters, 12, {"labels": next(iter(loader))[1].tolist()}


class PassesAPair(Toy):
    def __init__(self):
        super().__init__()
        self.trainset = data()

    def fit(self, parameters, config):
        x, y = self.trainset
        x, y = poisoned((x, y))
        return parameters, len(y), {"labels": y.tolist()}


class PassesALoadersData(Toy):
    def __init__(self):
        super().__init__()
        self.trainset = DataLoader(ArrayDataset(*data()), batch_size=12)

    def fit(self, parameters, config):
        _, y = poisoned(self.trainset.dataset).tensors()
        return parameters, len(y), {"labels": y.tolist()}


@pytest.mark.parametrize("make", [Passes, PassesWhatItHolds, PassesALoader, PassesAPair, PassesALoadersData])
@pytest.mark.parametrize("how", ["decorator", "two decorators", "mod", "mod and decorator", "Message API"])
def test_data_that_pass_through_poisoned_are_poisoned_once(make, how):
    """An exchange of labels that is done twice is no attack."""
    swap, other = LabelFlipping(pairs=[(0, 1), (1, 0)]), LabelFlipping(pairs=[(2, 3), (3, 2)])
    clean = data()[1]
    one = np.array([1, 0, 2, 3, 4])[clean].tolist()
    both = np.array([1, 0, 3, 2, 4])[clean].tolist()
    if how == "decorator":
        assert swap(make()).fit(arrays(), {})[2]["labels"] == one
    elif how == "two decorators":
        assert swap(other(make())).fit(arrays(), {})[2]["labels"] == both
    else:
        mods = [] if how == "Message API" else [swap.mod]
        wrap = {"mod": make, "mod and decorator": other(make), "Message API": swap(make)}[how]
        _, report = train(numpy_client_app(lambda context: wrap(), mods=mods), arrays(), api="message")
        assert report["labels"] == (both if "and" in how else one)


def test_an_app_whose_client_fn_passes_its_data_is_poisoned_once():
    swap = LabelFlipping(pairs=[(0, 1), (1, 0)])

    def client_fn(context):
        client = Toy()
        client.trainset = poisoned(client.trainset)
        return client

    _, report = train(numpy_client_app(client_fn, mods=[swap.mod]), arrays(), api="message")
    assert report["labels"] == int(np.array([1, 0, 2, 3, 4])[data()[1]].sum())


# ---- the wrong form


@pytest.mark.parametrize("app", [numpy_client_app, ClientApp])
def test_an_attack_in_place_of_its_mod_names_the_mod(app):
    with pytest.raises(ConfigError, match=r"SignFlipping is no mod itself.*mods=\[SignFlipping\(\.\.\.\)\.mod\]"):
        app(toy_fn, mods=[SignFlipping()])(message("train", arrays(), {"server-round": ROUND}), context())
    with pytest.raises(ConfigError, match="LabelFlipping is no mod itself"):
        message_app([LabelFlipping(source=0, target=1)])(message("train", arrays(), {}), context())


def test_positional_arguments_are_shown_by_name():
    cases = {
        "SignFlipping(scale=4.0)": lambda: SignFlipping(4.0),
        "LabelFlipping(source=3, target=9)": lambda: LabelFlipping(3, 9),
        "LabelFlipping(target=9, source=3)": lambda: LabelFlipping(3, target=9),
        "ZeroAttack(adversaries=": lambda: ATTACKS.get("zero_attack")(7),
        "Krum(strategy, num_byzantine=2)": lambda: Krum(flower_strategy("classic", "FedAvg", 8), 2),
    }
    for right, wrong in cases.items():
        name = right.partition("(")[0]
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert f"{name} takes keyword arguments only" in str(caught.value)
        assert set(right.rstrip(")").partition("(")[2].split(", ")) <= set(
            str(caught.value).rpartition(f"{name}(")[2].rstrip(").").split(", ")
        )


@pytest.mark.parametrize("name", ATTACKS.names())
def test_no_attack_takes_positional_arguments(name):
    attack = ATTACKS.get(name)
    call = attack.__name__
    with pytest.raises(ConfigError, match=rf"{call} takes keyword arguments only. For example: {call}\(\w+="):
        attack(object())
    kinds = {parameter.kind for parameter in inspect.signature(attack).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_a_strategy_class_in_place_of_an_instance_is_named():
    base = type(flower_strategy("classic", "FedAvg", 8))
    with pytest.raises(ConfigError, match=r"Is it an instance that is meant, FedAvg\(\.\.\.\)\?"):
        Krum(base, num_byzantine=1)
