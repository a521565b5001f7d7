"""Attacks on the upload leave BatchNorm's statistics and counters alone, unless they say that they do not."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from torch import nn

from flsec._numbers import in_dtype, widened
from flsec.client_apps import ATTACKS, Attack, LazyWorker, SignFlipping, numpy_client_app
from flsec.client_apps.base import forms_of
from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.training import get_weights, weight_names
from tests.client_apps.toys import context, same

STATE = ("running_mean", "running_var", "num_batches_tracked")
ON_UPLOADS = [
    name
    for name in ATTACKS.names()
    if "Message API" in forms_of(ATTACKS.get(name))
    and ATTACKS.get(name).poison_update is not Attack.poison_update
    and "auxiliary_data" not in parameters_of(ATTACKS.get(name))
]

FREE_RIDERS = {"lazy_worker", "adam_free_rider"}
PICKS = "neurotoxin"  # changes some entries of the whole model, and leaves other arrays as they were trained


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2))


NAMES = weight_names(network())
IS_STATE = [name.rpartition(".")[2] in STATE for name in NAMES]


RAW = np.dtype("V2")  # bfloat16


def from_float32(values):
    return in_dtype(values, values.shape, RAW)


def to_float32(array):
    return widened([array])[0]


class Client(NumPyClient):
    """Moves everything up by one; variances stay positive."""

    client_id = 1

    def fit(self, parameters, config):
        return [np.asarray(p + 1, p.dtype) for p in parameters], 8, {}


class WithModel(Client):
    """Its arrays have neither names nor BatchNorm's pattern."""

    def __init__(self):
        self.other = nn.Linear(2, 2)
        self.model = Reordered()


class Reordered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(3))
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("running_var", torch.ones(4))
        self.bias = nn.Parameter(torch.ones(4))


def made(name, **settings):
    given = {"model_replacement": {"scale": 3.0}, "neurotoxin": {"ratio": 0.4}}.get(name, {})
    return ATTACKS.get(name)(**given, **settings)


def sent(app, arrays, names, api):
    records = {
        "message": {"arrays": ArrayRecord({n: Array(a) for n, a in zip(names, arrays, strict=True)})},
        "classic": {"fitins.parameters": ArrayRecord({str(i): Array(a) for i, a in enumerate(arrays)})},
    }[api]
    config = {"message": "config", "classic": "fitins.config"}[api]
    records[config] = ConfigRecord({"server-round": 2})
    reply = app(Message(RecordDict(records), 99, "train"), context(1))
    return [array.numpy() for array in next(iter(reply.content.array_records.values())).values()]


def _function_app(attack):
    app = ClientApp()

    @app.train(mods=[attack.mod])
    def run(message, context):
        record = message.content["arrays"]
        new = {name: Array(np.asarray(a.numpy() + 1, a.numpy().dtype)) for name, a in record.items()}
        return Message(RecordDict({"arrays": ArrayRecord(new)}), reply_to=message)

    return app


FORMS = {
    "decorator": lambda a, w: a(Client)().fit(w, {"server-round": 2})[0],
    "mod": lambda a, w: sent(numpy_client_app(lambda _: Client(), mods=[a.mod]), w, NAMES, "message"),
    "mod, classic": lambda a, w: sent(ClientApp(lambda _: Client().to_client(), mods=[a.mod]), w, NAMES, "classic"),
    "Message API": lambda a, w: sent(_function_app(a), w, NAMES, "message"),
}


@pytest.mark.parametrize("name", ON_UPLOADS)
def test_bfloat16_and_complex_models_are_attacked_too(name):
    """Raw bfloat16 is what ``np.save`` and so Flower make of it."""
    w = np.linspace(-2, 2, 6, dtype=np.float32)

    class Half(Client):
        def fit(self, parameters, config):
            return [from_float32(to_float32(p) + 1) for p in parameters], 8, {}

    (attacked,) = made(name)(Half)().fit([from_float32(w)], {"server-round": 2})[0]
    assert attacked.dtype == RAW
    assert not same([attacked], [from_float32(w + 1)])
    (attacked,) = made(name)(Client)().fit([w + 1j * w], {"server-round": 2})[0]
    assert attacked.dtype == np.complex64
    assert not same([attacked], [w + 1 + 1j * w])


def test_bfloat16_is_flipped_as_float32_is():
    w = np.array([1.0, 2.0], np.float32)

    class Half(Client):
        def fit(self, parameters, config):
            return [from_float32(to_float32(p) + 1) for p in parameters], 8, {}

    (attacked,) = SignFlipping()(Half)().fit([from_float32(w)], {})[0]
    assert to_float32(attacked).tolist() == [0.0, 1.0]


def test_a_lazy_worker_remembers_a_bfloat16_model():
    class Half(Client):
        def fit(self, parameters, config):
            return parameters, 8, {}

    client = LazyWorker(mode="delta")(Half())
    for round_, value, wanted in ((1, 1.0, 1.0), (2, 3.0, 5.0)):
        sent_ = [from_float32(np.full(2, value, np.float32))]
        (uploaded,) = client.fit(sent_, {"server-round": round_})[0]
        assert to_float32(uploaded).tolist() == [wanted] * 2


@pytest.mark.parametrize("name", ON_UPLOADS)
@pytest.mark.parametrize("model", [[np.arange(3)], [np.frombuffer(b"a tree", np.uint8)], []])
def test_a_model_without_floating_parameters_is_refused(name, model):
    with pytest.raises(ConfigError, match=r"floating parameters, and this client's has none.*training data"):
        made(name)(Client)().fit(model, {"server-round": 2})


def test_there_are_attacks_to_test():
    assert {"sign_flipping", "gaussian_attack", "zero_attack", "lazy_worker", "model_replacement"} <= set(ON_UPLOADS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ON_UPLOADS)
def test_state_is_the_honest_clients_and_weights_are_not(name, form):
    before = get_weights(network())
    honest = Client().fit(before, {})[0]
    uploaded = FORMS[form](made(name), before)
    for own, state, attacked, given in zip(honest, IS_STATE, uploaded, before, strict=True):
        if name in FREE_RIDERS and own.dtype.kind == "f":  # did not train
            assert same([attacked], [given])
        elif state or name != PICKS:
            assert same([attacked], [own]) == state
    assert not same(uploaded, honest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name in ON_UPLOADS if name not in FREE_RIDERS | {PICKS}])
def test_with_attack_state_statistics_are_attacked_and_counters_are_not(name, form):
    before = get_weights(network())
    honest = Client().fit(before, {})[0]
    for own, attacked in zip(honest, FORMS[form](made(name, attack_state=True), before), strict=True):
        assert same([attacked], [own]) == (own.dtype.kind == "i")


def test_noise_of_a_lazy_worker_leaves_statistics_alone():
    before = get_weights(network())
    uploaded = LazyWorker(mode="noise", std=5.0)(Client)().fit(before, {"server-round": 1})[0]
    for name, attacked, given in zip(NAMES, uploaded, before, strict=True):
        if "running" in name:
            assert same([attacked], [given])
        elif "num" not in name:
            assert not same([attacked], [given])


def test_the_clients_own_torch_module_tells_where_the_arrays_have_no_names():
    before = get_weights(Reordered())
    uploaded = SignFlipping()(WithModel()).fit(before, {})[0]
    assert [array.tolist() for array in uploaded] == [[0] * 4, [0] * 4, 4, [2] * 4]
    without = SignFlipping()(Client()).fit(before, {})[0]
    assert without[3].tolist() == [0] * 4  # nothing tells that these are variances


@pytest.mark.parametrize("given", [[2, 3], (3,), Reordered()])
def test_what_the_user_names_goes_first(given):
    uploaded = SignFlipping(state_arrays=given)(Client()).fit(get_weights(Reordered()), {})[0]
    assert [array.tolist() for array in uploaded] == [[0] * 4, [0] * 4, 4, [2] * 4]


def test_the_user_may_say_that_there_is_no_state():
    before = get_weights(network())
    honest = Client().fit(before, {})[0]
    uploaded = SignFlipping(state_arrays=[])(Client()).fit(before, {})[0]
    for own, attacked in zip(honest, uploaded, strict=True):
        assert same([attacked], [own]) == (own.dtype.kind == "i")


@pytest.mark.parametrize("given", [[-1], ["running_mean"], 3, "ab", [0.5]])
def test_wrong_places_are_named(given):
    with pytest.raises(ConfigError, match="SignFlipping: state_arrays"):
        SignFlipping(state_arrays=given)


def test_a_place_that_there_is_not_is_named_in_the_round():
    with pytest.raises(ConfigError, match=r"state_arrays must be positions among the model's 4 arrays.*got 7"):
        SignFlipping(state_arrays=[0, 7])(Client()).fit(get_weights(Reordered()), {})
