"""What people write at first: each message says what is wrong, where, and a form that would do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.server.strategy import FedAvg

from flsec.client_apps import ALIE, LabelFlipping, SignFlipping, numpy_client_app
from flsec.errors import ConfigError
from flsec.strategies import Adversary, Krum
from tests.client_apps.toys import Toy, arrays, message_app, toy_fn, train


class Reassigns(NumPyClient):
    def __init__(self) -> None:
        self.trainset = (np.ones((2, 2)), np.array([3, 9]))

    def fit(self, parameters: Any, config: Any) -> Any:
        self.trainset = (np.zeros((2, 2)), np.array([3, 3]))
        return parameters, len(self.trainset[1]), {}


class BuiltEarlier(Reassigns):
    def __init__(self) -> None:
        super().__init__()
        self.batches = [self.trainset[0][:1], self.trainset[0][1:]]

    def fit(self, parameters: Any, config: Any) -> Any:
        return parameters, sum(map(len, self.batches)), {}


def _trained(message: Message, context: Any) -> Message:
    return Message(message.content, reply_to=message)


def _fit(client: Any) -> Any:
    return client.fit([np.zeros(2)], {"server-round": 1})


FLIP = {"source": 3, "target": 9}
NO_MOD = "SignFlipping is no mod itself, its property mod is: mods=[SignFlipping(...).mod]."
AROUND = "SignFlipping takes its settings first, by name, and then what it attacks. For example: SignFlipping(...)"
NOT_READ = (
    "LabelFlipping replaces the client's attribute 'trainset' while it trains, but fit read nothing from it, so that "
    "it has no effect: fit trained on data made from it earlier, such as a DataLoader of __init__, loaded them anew, "
    "or gave the attribute another value. Make the DataLoader in fit, name the attribute that fit reads with "
    "data_attribute=, or have fit pass its data through flsec.client_apps.poisoned(...)."
)
anything: Any = SignFlipping
krum: Any = Krum
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a position": (
        lambda: anything(4.0),
        "SignFlipping takes keyword arguments only. For example: SignFlipping(scale=4.0).",
    ),
    "a typo": (lambda: anything(scael=4.0), "; it takes adversaries, attack_state, camp, data_attribute, inputs_key, "
               "labels_key, scale, seed, state_arrays. Did you mean 'scale'?"),
    "no parentheses above a class": (lambda: anything(Toy), f"{AROUND}(Toy), or @SignFlipping(...) above a class."),
    "a client at once": (lambda: anything(Toy()), f"{AROUND}(client), or @SignFlipping(...) above a class."),
    "a client_fn at once": (lambda: anything(toy_fn), f"{AROUND}(toy_fn), or @SignFlipping(...) above a class."),
    "an app": (
        lambda: SignFlipping()(ClientApp()),
        "An app takes it as a mod: ClientApp(..., mods=[SignFlipping(...).mod]).",
    ),
    "a train function": (
        lambda: SignFlipping()(_trained),
        "SignFlipping goes around a client_fn, which takes a context; this function takes a message as well. Give it "
        "as a mod: @app.train(mods=[SignFlipping(...).mod]).",
    ),
    "Krum by position": (
        lambda: krum(FedAvg(), 2),
        "Krum takes keyword arguments only after strategy. For example: Krum(strategy, num_byzantine=2).",
    ),
    "Krum without f": (
        lambda: krum(FedAvg()),
        "Krum needs num_byzantine (int, at least 0). For example: Krum(strategy, num_byzantine=...).",
    ),
    "Krum of a class": (
        lambda: krum(FedAvg),
        "Allowed: flwr.server.strategy.strategy.Strategy or flwr.serverapp.strategy.strategy.Strategy. Is it an "
        "instance that is meant, FedAvg(...)?",
    ),
    "an attack as a class": (
        lambda: Adversary(FedAvg(), attacks=[ALIE]),  # type: ignore[list-item]
        "Allowed: sequence of Attack. Is it an instance that is meant, ALIE(...)?",
    ),
    "classic mods, an instance": (lambda: _classic(SignFlipping()), NO_MOD),
    "classic mods, a class": (lambda: _classic(SignFlipping), NO_MOD),
    "mods of a function, an instance": (lambda: train(message_app([SignFlipping()]), arrays(), api="message"), NO_MOD),
    "mods of a function, a class": (lambda: train(message_app([SignFlipping]), arrays(), api="message"), NO_MOD),
    "numpy_client_app, an instance": (lambda: numpy_client_app(toy_fn, mods=[SignFlipping()]), NO_MOD),
    "numpy_client_app, a class": (lambda: numpy_client_app(toy_fn, mods=[SignFlipping]), NO_MOD),  # type: ignore[list-item]
    "ALIE alone": (
        lambda: _fit(ALIE()(Reassigns())),
        "ALIE needs the updates of several clients, which no client has. Put Adversary(strategy, attacks=[ALIE(...)]), "
        "of flsec.strategies, around the server's strategy, as simulations do by themselves; this server does not say "
        "that it has one.",
    ),
    "data reassigned": (lambda: _fit(LabelFlipping(**FLIP)(Reassigns())), NOT_READ),
    "data made before": (
        lambda: _fit(LabelFlipping(**FLIP)(BuiltEarlier())),
        f"{NOT_READ} The data may be in: batches (list).",
    ),
}  # fmt: skip


def _classic(mod: Any) -> Any:
    return train(ClientApp(toy_fn, mods=[mod]), arrays(), api="classic")


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_form_is_answered_with_a_right_one(call: str) -> None:
    wrong, sentence = CALLS[call]
    with pytest.raises(ConfigError) as caught:
        wrong()
    assert str(caught.value).endswith(sentence)
