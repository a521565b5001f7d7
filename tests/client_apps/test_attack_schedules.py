"""Who attacks, and when: as ``Adversaries`` says, in every form; all others behave as if nothing were there."""

import numpy as np
import pytest
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from flsec.attacks import sign_flipping
from flsec.client_apps import (
    Adversaries,
    Attack,
    BadNets,
    GaussianAttack,
    LabelFlipping,
    SignFlipping,
    numpy_client_app,
)
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from tests.client_apps.toys import Toy, arrays, context, data, message, message_app, same, step, train


class Nameless(NumPyClient):
    """Does not know its id."""

    def __init__(self):
        self.trainset = ArrayDataset(*data())

    fit = Toy.fit


class Named(Nameless):
    def __init__(self, partition_id):
        super().__init__()
        self.partition_id = partition_id


def nameless_fn(context):
    return Nameless().to_client()


def named_fn(context):
    return Named(str(context.node_config["partition-id"])).to_client()


def _class(attack):
    make = attack(type("Mine", (Named,), {}))
    return lambda context: make(context.node_config["partition-id"])


FORMS = {
    "class, by partition_id": lambda a: ("classic", ClientApp(lambda context: _class(a)(context).to_client())),
    "class, by Flower's id": lambda a: ("message", numpy_client_app(lambda context: a(Nameless)())),
    "instance, by Flower's id": lambda a: ("message", numpy_client_app(lambda context: a(Nameless()))),
    "client_fn, by Flower's id": lambda a: ("classic", ClientApp(a(nameless_fn))),
    "client_fn, by partition_id": lambda a: ("classic", ClientApp(a(named_fn))),
    "client_fn, twice": lambda a: ("classic", ClientApp(BadNets(fraction=0.0)(a(nameless_fn)))),
    "client_fn, Message API": lambda a: ("message", numpy_client_app(a(nameless_fn))),
    "mod": lambda a: ("classic", ClientApp(nameless_fn, mods=[a.mod])),
    "mod, Message API": lambda a: ("message", numpy_client_app(nameless_fn, mods=[a.mod])),
    "mod of a function": lambda a: ("message", message_app([a.mod])),
}

SCHEDULES = {
    "ids": Adversaries(num_clients=5, ids=[1, 4]),
    "fraction": Adversaries(num_clients=5, fraction=0.4, seed=1),
    "redrawn": Adversaries(num_clients=5, count=2, redraw="every_round", seed=2),
    "persistent": Adversaries(num_clients=5, probability=0.4, persistence=2, seed=3),
    "rounds": Adversaries(num_clients=5, count=3, first_round=2, last_round=3),
    "single shot": Adversaries(num_clients=5, count=3, rounds=[2]),
    "every other round": Adversaries(num_clients=5, count=3, every=2),
    "last round": Adversaries(num_clients=5, fraction=0.6, last_round_only=True, num_rounds=3),
}


def honest():
    return step(arrays(), *data())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_clients_attack_in_their_rounds_and_in_no_others(schedule, form):
    who = SCHEDULES[schedule]
    attack = SignFlipping(scale=4.0, adversaries=who)
    api, app = FORMS[form](attack)
    hostile, expected = sign_flipping(arrays(), honest(), scale=4.0), []
    for round in range(1, 5):
        for client_id in range(5):
            uploaded, _ = train(app, arrays(), api=api, round=round, client_id=client_id)
            expected.append(who.is_adversary(client_id, round))
            assert same(uploaded, hostile if expected[-1] else honest())
    assert 0 < sum(expected) < 20


def test_camps_divide_the_work():
    who = Adversaries(num_clients=6, count=4, camps={"loud": 0.5, "quiet": 0.5}, seed=5)
    loud = SignFlipping(adversaries=who, camp="loud")
    quiet = LabelFlipping(source=0, target=4, adversaries=who, camp="quiet")
    x, y = data()
    uploads = {
        "loud": sign_flipping(arrays(), honest()),
        "quiet": step(arrays(), x, np.where(y == 0, 4, y)),
        None: honest(),
    }
    app = numpy_client_app(quiet(loud(nameless_fn)))
    for client_id in range(6):
        uploaded, _ = train(app, arrays(), api="message", client_id=client_id)
        assert same(uploaded, uploads[who.camp(client_id, 3)])
    assert {who.camp(client_id, 3) for client_id in range(6)} == set(uploads)


@pytest.mark.parametrize(
    ("adversaries", "has"),
    [
        (None, "none"),
        (Adversaries(num_clients=2, count=1), "none"),
        (Adversaries(num_clients=4, count=2, camps={"a": 0.5, "b": 0.5}), "'a', 'b'"),
    ],
)
def test_a_camp_that_nobody_belongs_to_is_refused(adversaries, has):
    with pytest.raises(ConfigError, match=f"SignFlipping: camp must name one of the camps .*{has}; got 'loud'"):
        SignFlipping(adversaries=adversaries, camp="loud")


# ---- a client that is no adversary in this round

NOBODY = Adversaries(num_clients=5, count=0)


class Everything(Attack):
    """Changes all that it can, whenever it acts."""

    def poison(self, num_examples, context):
        raise AssertionError("acted")

    def poison_update(self, global_, local, context):
        raise AssertionError("acted")


class Observer(Toy):
    def fit(self, parameters, config):
        self.given = parameters, config, self.trainset
        return parameters, 1, {"same": True}


@pytest.mark.parametrize("attack", [Everything(adversaries=NOBODY), GaussianAttack(adversaries=NOBODY)])
@pytest.mark.parametrize("how", ["class", "instance"])
def test_an_inactive_client_gets_and_returns_the_very_same_objects(how, attack):
    client = attack(Observer)() if how == "class" else attack(Observer())
    trainset, parameters, config = client.trainset, arrays(), {"server-round": 1}
    result = client.fit(parameters, config)
    assert result[0] is parameters
    assert result[1:] == (1, {"same": True})
    assert all(a is b for a, b in zip(client.given, (parameters, config, trainset), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_an_inactive_clients_reply_is_the_same_byte_for_byte(form):
    api, attacked = FORMS[form](Everything(adversaries=NOBODY))
    _, plain = FORMS[form](lambda target: target) if "mod" not in form else (api, _without_mods(form))
    config = {"server-round": 2, "lr": 0.5}
    replies = [app(message("train", arrays(), config, api), context()) for app in (attacked, plain)]
    assert _bytes(replies[0]) == _bytes(replies[1])


def _without_mods(form):
    if form == "mod of a function":
        return message_app([])
    return (numpy_client_app if "Message" in form else ClientApp)(nameless_fn)


def _bytes(reply):
    records = reply.content.items()
    return {key: {k: getattr(v, "data", v) for k, v in record.items()} for key, record in records}


# ---- what is missing is named


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_round_is_named(form):
    api, app = FORMS[form](BadNets(adversaries=SCHEDULES["ids"]))
    with pytest.raises(ConfigError, match=r"BadNets: adversaries are chosen by round, but .* no 'server-round'"):
        train(app, arrays(), api=api, round=None)


UNKNOWN = {
    "class": lambda a: ("classic", ClientApp(lambda context: a(Nameless)().to_client())),
    "instance": lambda a: ("classic", ClientApp(lambda context: a(Nameless()).to_client())),
    "no number": lambda a: ("classic", ClientApp(lambda context: a(Named("hospital 3")).to_client())),
    **{name: make for name, make in FORMS.items() if "partition_id" not in name},
}


@pytest.mark.parametrize("form", UNKNOWN)
def test_a_missing_id_is_named(form):
    api, app = UNKNOWN[form](BadNets(adversaries=SCHEDULES["ids"]))
    with pytest.raises(ConfigError, match=r"BadNets: adversaries are chosen by client, but .* attribute client_id"):
        train(app, arrays(), api=api, client_id=None)


def test_a_client_fn_finds_the_id_of_a_client_whose_own_is_no_number():
    attack = SignFlipping(adversaries=SCHEDULES["ids"])
    app = ClientApp(attack(lambda context: Named("hospital 3").to_client()))
    for client_id in range(5):
        uploaded, _ = train(app, arrays(), api="classic", client_id=client_id)
        assert same(uploaded, sign_flipping(arrays(), honest()) if client_id in (1, 4) else honest())


@pytest.mark.parametrize("key", ["server-round", "server_round", "current_round", "round"])
def test_names_of_the_round(key):
    attack = SignFlipping(adversaries=Adversaries(num_clients=3, ids=[2], first_round=2))
    assert same(attack(Toy()).fit(arrays(), {key: 1})[0], honest())
    assert same(attack(Toy()).fit(arrays(), {key: 2})[0], sign_flipping(arrays(), honest()))


def test_without_adversaries_neither_round_nor_id_is_needed():
    api, app = UNKNOWN["no number"](SignFlipping())
    uploaded, _ = train(app, arrays(), api=api, round=None, client_id=None)
    assert same(uploaded, sign_flipping(arrays(), honest()))


def test_an_id_that_is_no_partition_is_named():
    attack = SignFlipping(adversaries=SCHEDULES["ids"])
    with pytest.raises(ConfigError, match="partition id, 0 to 4; got 12345"):
        attack(Toy(12345)).fit(arrays(), {"server-round": 1})


@pytest.mark.parametrize("form", ["client_fn", "client_fn, Message API", "mod"])
def test_one_client_object_for_all_nodes_is_another_client_for_each(form):
    shared = Nameless()
    attack = SignFlipping(adversaries=SCHEDULES["ids"])
    api, app = {
        "client_fn": ("classic", ClientApp(attack(lambda context: shared.to_client()))),
        "client_fn, Message API": ("message", numpy_client_app(attack(lambda context: shared))),
        "mod": ("classic", ClientApp(lambda context: shared.to_client(), mods=[attack.mod])),
    }[form]
    for client_id in (0, 1, 2, 4):
        uploaded, _ = train(app, arrays(), api=api, client_id=client_id)
        assert same(uploaded, sign_flipping(arrays(), honest()) if client_id in (1, 4) else honest())
    assert vars(shared).keys() == {"trainset"}
