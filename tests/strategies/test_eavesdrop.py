"""Eavesdrop: the model is the same to the last bit, and what is rebuilt comes from what the server holds alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from flsec._contracts.server import ClassicServer, MessageServer, Reply, flower_strategy, honest, identify, npy_bytes
from flsec.client_apps import TorchClient
from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.reconstruction import Observation, Reconstruction, invert_observation
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.simulations.supplies import SUPPLIED_TO_DEFENSES
from flsec.strategies import Eavesdrop, Krum, Median, NormClipping, RobustStrategy
from flsec.strategies._rehearsal import rehearse
from flsec.strategies.replies import GlobalModel
from flsec.training import Training, get_weights, weight_names
from tests.reconstruction.problems import SHAPE, examples, lenet

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
CLIENTS = (3, 5, 8, 2**60 + 1, 2**63 + 7)
FORM = {"input_shape": SHAPE, "num_classes": 10}


@pytest.fixture(autouse=True)
def _flower_process():
    identify()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_attack(model, observation):
    """Draw from the global random state, then fail for one client."""
    torch.rand(3)
    if observation.learning_rate == 0.25:
        raise RuntimeError("does not converge")
    inputs = torch.rand(observation.examples, 2)
    return Reconstruction(inputs=inputs, labels=torch.zeros(1), loss=0.5, restarts=1, history=((0.5,),))


def blind(api, flower, inner=None, **options):
    strategy = flower_strategy(api, flower, len(CLIENTS))
    strategy = strategy if inner is None else inner(strategy)
    return Eavesdrop(strategy, **{"learning_rate": 0.5, **options})


class _Structure(torch.nn.Module):
    """The contracts' model as a network."""

    def __init__(self):
        super().__init__()
        torch.rand(7)  # a factory without a seed of its own
        for name, shape in (("weight", (3, 4)), ("bias", (4,)), ("scale", ())):
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape)))
        self.register_buffer("steps", torch.tensor(0))


# --- nothing changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", SERVERS)
@pytest.mark.parametrize("flower", ["FedAvg", "FedAdam"])
@pytest.mark.parametrize(
    "inner",
    [
        lambda s: RobustStrategy(s, weighting="examples"),
        lambda s: Krum(s, num_byzantine=1),
        lambda s: NormClipping(s, max_norm=0.3),
        Median,
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_the_same_to_the_last_bit(api, flower, inner, fails):
    attack = {"attack": random_attack, "model_factory": _Structure, "learning_rate": 0.25 if fails else 0.5}
    listening = blind(api, flower, inner, rounds=None, **attack)
    deaf = inner(flower_strategy(api, flower, len(CLIENTS)))
    state = torch.random.get_rng_state()
    heard, plain = (SERVERS[api](s, CLIENTS).play([1, 2, 3], honest, arrival=4) for s in (listening, deaf))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert heard.tensors == plain.tensors
    assert heard.metrics["train-loss"] == plain.metrics["train-loss"]
    keys = {(round_, client) for round_ in (1, 2, 3) for client in CLIENTS}
    assert set(listening.observations) == keys
    assert set(listening.failures if fails else listening.reconstructions) == keys


@pytest.mark.parametrize("api", SERVERS)
def test_around_flowers_own_strategy_too(api):
    bare = SERVERS[api](flower_strategy(api, "FedAvg", len(CLIENTS)), CLIENTS).play([1, 2, 3], honest)
    heard = SERVERS[api](blind(api, "FedAvg", rounds=None), CLIENTS).play([1, 2, 3], honest)
    for a, b in zip(heard.arrays, bare.arrays, strict=True):
        if a.dtype.kind == "f":  # what averaging makes of counters differs
            np.testing.assert_array_equal(a, b)


def test_an_inversion_that_fails_stops_nothing(tmp_path, caplog):
    def impossible(model, observation):
        raise MemoryError("40 GB")

    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for options in (
        {"attack": impossible},
        {"attack": lambda model, observation: None, "folder": tmp_path},
        {"attack": random_attack, "folder": in_the_way},
        {"attack": random_attack, "model_factory": lambda: torch.nn.Linear(1, 1)},
        {"attack": random_attack, "max_examples": 9},
        {"attack": "deep_leakage", **FORM},
    ):
        strategy = blind("Message", "FedAvg", **{"model_factory": _Structure, "clients": CLIENTS[:1], **options})
        server = SERVERS["Message"](strategy, CLIENTS).play([1], honest)
        assert server.arrays[0][0, 0] != -1  # the model moved
        assert list(strategy.failures) == [(1, 3)]
        assert "nothing rebuilt of client 3" in caplog.text
        assert strategy.last_report.verdicts[0].notes["failed"] == {"3": strategy.failures[1, 3]}
        assert strategy.last_report.kept_previous_model is None


def test_it_judges_nobody_and_hears_no_garbage():
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        if client_id == 5:
            return [dataclasses.replace(reply, tensors=(npy_bytes(arrays[0] * np.nan), *reply.tensors[1:]))]
        return [reply]

    strategy = blind("Message", "FedAvg")
    SERVERS["Message"](strategy, CLIENTS).play([1], answer)
    assert [entry.client_id for entry in strategy.last_report.quarantined] == [5]
    assert {client for _, client in strategy.observations} == set(CLIENTS) - {5}
    verdict = strategy.last_report.verdicts[0]
    assert verdict.kept == verdict.participants
    assert not verdict.judges


def test_an_attacker_who_tries_the_defenses_out_is_not_heard():
    strategy = blind("Message", "FedAvg", rounds=None)
    server = SERVERS["Message"](strategy, CLIENTS).play([1], honest)
    model = GlobalModel(server.tensors)
    cohort, _, _ = model.parse([], round=2, max_num_examples=10)
    cohort = cohort.replace(
        updates=torch.ones(1, model.layout.size),
        num_examples=torch.ones(1, dtype=torch.float64),
        client_ids=(3,),
        metrics=({},),
        buffers=((np.array(7),),),
        sources=(0,),
    )
    change, _ = rehearse([strategy], cohort)
    assert bool(change.any())
    assert {round_ for round_, _ in strategy.observations} == {1}


# --- what is heard ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", SERVERS)
def test_holds_what_was_sent_and_what_came_back(api):
    sent, received = {}, {}

    def answer(round, client_id, arrays):
        replies = honest(round, client_id, arrays)
        sent[round, client_id], received[round, client_id] = arrays, replies[0].arrays
        return replies

    strategy = blind(api, "FedAvg", clients=[5, 2**63 + 7], rounds=[2, 3], steps=3, batch_size=4)
    SERVERS[api](strategy, CLIENTS).play([1, 2, 3, 4], answer)
    assert set(strategy.observations) == {(2, 5), (3, 5), (2, 2**63 + 7), (3, 2**63 + 7)}
    assert not strategy.reconstructions
    for key, observation in strategy.observations.items():
        assert len(observation.sent) == len(sent[key])
        for mine, theirs in zip(observation.sent, sent[key], strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        for mine, theirs in zip(observation.received, received[key], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-7)  # updates are float32
            assert mine.dtype == theirs.dtype
        assert int(observation.received[3]) == int(observation.sent[3]) + 1  # the integer buffer of this client
        claimed = 10 + key[1] % 5
        assert (observation.learning_rate, observation.steps, observation.batch_size) == (0.5, 3, 4)
        assert observation.examples == min(12, claimed)


def test_inside_a_defense_it_hears_what_that_one_hands_on():
    inner = Eavesdrop(flower_strategy("Message", "FedAvg", len(CLIENTS)), learning_rate=1.0)
    SERVERS["Message"](NormClipping(inner, max_norm=0.01), CLIENTS).play([1], honest)
    for observation in inner.observations.values():
        moved = [b.astype(float) - a for a, b in zip(observation.sent[:3], observation.received[:3], strict=True)]
        assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("training", "options", "expected"),
    [  # (learning rate, steps, batch size, examples) of a client that claims 13
        ({"learning_rate": 0.1, "epochs": 2, "batch_size": 5}, {}, (0.1, 6, 5, 13)),
        ({"learning_rate": 0.1, "steps": 2, "batch_size": 5}, {}, (0.1, 2, 5, 10)),
        ({"learning_rate": 0.1, "schedule": "inverse_sqrt"}, {}, (0.05, 1, 13, 13)),
        ({"learning_rate": 0.1, "batch_size": 1.0}, {"num_examples": 4}, (0.1, 1, 4, 4)),
        ({"learning_rate": 0.1, "steps": 9}, {"learning_rate": 2.0, "steps": 1, "batch_size": 2}, (2.0, 1, 2, 2)),
        (None, {"learning_rate": 0.3}, (0.3, 1, 13, 13)),
        (None, {"learning_rate": 0.3, "batch_size": 4}, (0.3, 4, 4, 13)),
    ],
)
def test_assumes_what_training_and_the_reply_say_where_nothing_is_given(training, options, expected):
    settings = None if training is None else Training(**training)
    inner = flower_strategy("Message", "FedAvg", len(CLIENTS))
    strategy = Eavesdrop(inner, training=settings, rounds=[4], clients=[8], **options)
    SERVERS["Message"](strategy, CLIENTS).play([4], honest)
    (observation,) = strategy.observations.values()
    found = (observation.learning_rate, observation.steps, observation.batch_size, observation.examples)
    assert found == pytest.approx(expected)
    assert observation.examples <= observation.steps * observation.batch_size  # its steps reach all examples


# --- what is rebuilt --------------------------------------------------------------------------------------------


class _Guarded(Tensor):
    """A client's data: once locked, every look at it raises."""

    locked = False

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if cls.locked:
            raise AssertionError("somebody reads a client's data")
        return super().__torch_function__(function, types, args, kwargs or {})


class _Data:
    def __init__(self, index):
        x, y = examples([index])
        self.x, self.y = x.clone().as_subclass(_Guarded), y.clone().as_subclass(_Guarded)

    def tensors(self):
        return self.x, self.y


TRAINING = Training(learning_rate=0.1, batch_size=1)


@pytest.mark.parametrize(
    ("api", "attack"), [("classic", "deep_leakage"), ("Message", "deep_leakage"), ("Message", "invert_gradients")]
)
def test_rebuilds_the_clients_digits_and_never_reads_them(api, attack):
    """The data is poisoned as soon as the clients have trained: whoever reads it then raises."""
    data = {client: _Data(40 + place) for place, client in enumerate(CLIENTS)}

    def answer(round, client_id, arrays):
        _Guarded.locked = False
        client = TorchClient(lenet(seed=5), data[client_id], TRAINING, client_id=client_id)
        trained, count, metrics = client.fit(arrays, {"server-round": round})
        _Guarded.locked = True
        return [Reply(tuple(map(npy_bytes, trained)), count, metrics)]

    strategy = Eavesdrop(
        flower_strategy(api, "FedAvg", len(CLIENTS)),
        attack,
        clients=CLIENTS[1:3],
        model_factory=lambda: build_model("dlg_lenet", SHAPE, 10, seed=77),  # its weights do not matter
        training=TRAINING,
        settings={"total_variation": 1e-3, "max_iterations": 120} if attack == "invert_gradients" else None,
        **FORM,
    )
    model = lenet(seed=1)
    arrays = dict(zip(weight_names(model), get_weights(model), strict=True))
    try:
        SERVERS[api](strategy, CLIENTS, arrays).play([1], answer)
        with pytest.raises(AssertionError, match="reads a client's data"):
            data[5].x.sum()  # the guard works
    finally:
        _Guarded.locked = False
    assert not strategy.failures
    assert set(strategy.reconstructions) == {(1, 5), (1, 8)}
    for place, client in enumerate(CLIENTS[1:3], start=1):
        x, y = examples([40 + place])
        result = strategy.reconstructions[1, client]
        assert torch.equal(result.labels, y)
        assert (result.inputs - x).square().mean() < (1e-3 if attack == "deep_leakage" else 1e-2)
    notes = strategy.last_report.verdicts[0].notes
    assert notes["observed"] == [5, 8]
    assert set(notes["rebuilt"]) == {"5", "8"}


def test_the_folder_allows_to_invert_after_the_run(tmp_path):
    model = lenet(seed=1)
    x, y = examples([40])

    def answer(round, client_id, arrays):
        dataset = type("Data", (), {"tensors": lambda self: (x, y)})()
        trained, count, metrics = TorchClient(lenet(), dataset, TRAINING, client_id=3).fit(arrays, {"server-round": 1})
        return [Reply(tuple(map(npy_bytes, trained)), count, metrics)]

    arrays = dict(zip(weight_names(model), get_weights(model), strict=True))
    strategy = Eavesdrop(
        flower_strategy("Message", "FedAvg", 1),
        "deep_leakage",
        training=TRAINING,
        labels={3: y.tolist()},
        model_factory=lenet,
        settings={"restarts": 1, "max_iterations": 10},
        folder=tmp_path / "heard",
        **FORM,
    )
    SERVERS["Message"](strategy, [3], arrays).play([1], answer)
    files = sorted(path.name for path in (tmp_path / "heard").iterdir())
    assert files == [
        "round-000001-client-3.observation.safetensors",
        "round-000001-client-3.reconstruction.safetensors",
    ]
    observation = Observation.load(tmp_path / "heard" / files[0])
    held = strategy.observations[1, 3]
    for side in ("sent", "received"):
        for a, b in zip(getattr(observation, side), getattr(held, side), strict=True):
            np.testing.assert_array_equal(a, b)
    assert observation.labels == (int(y),)
    assert (observation.steps, observation.learning_rate) == (1, 0.1)
    saved = Reconstruction.load(tmp_path / "heard" / files[1])
    assert torch.equal(saved.inputs, strategy.reconstructions[1, 3].inputs)
    assert saved.history == strategy.reconstructions[1, 3].history
    later = invert_observation(lenet(seed=9), observation, **FORM, attack="deep_leakage")  # with all its iterations
    assert (later.inputs - x).square().mean() < 1e-3


def test_random_starts_follow_the_seed_the_round_and_the_client():
    seen = {}
    for seed in (0, 0, 1):
        strategy = Eavesdrop(
            flower_strategy("Message", "FedAvg", 2),
            "invert_gradients",
            learning_rate=0.1,
            rounds=None,
            model_factory=lenet,
            settings={"max_iterations": 1, "total_variation": 0.0},
            seed=seed,
            num_examples=1,
            **FORM,
        )
        model = lenet(seed=1)
        arrays = dict(zip(weight_names(model), get_weights(model), strict=True))
        SERVERS["Message"](strategy, [3, 5], arrays).play([1, 2], honest)
        found = {key: result.inputs for key, result in strategy.reconstructions.items()}
        assert len({tuple(inputs.flatten().tolist()) for inputs in found.values()}) == 4
        if seed in seen:
            assert all(torch.equal(found[key], seen[seed][key]) for key in found)
        seen[seed] = found
    assert not any(torch.equal(seen[0][key], seen[1][key]) for key in seen[0])


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "learning_rate is needed"),
        ({"learning_rate": 0.1, "attack": "invert_gradients", **FORM}, "model_factory is needed"),
        ({"learning_rate": 0.1, "attack": "deep_leakage", "model_factory": lenet, "num_classes": 10}, "input_shape"),
        ({"learning_rate": 0.1, "attack": "deep_leakage", "model_factory": lenet, "input_shape": SHAPE}, "num_classes"),
        (
            {"learning_rate": 0.1, "attack": "dep_leakage", "model_factory": lenet, **FORM},
            "Did you mean 'deep_leakage'",
        ),
        (
            {
                "learning_rate": 0.1,
                "attack": "deep_leakage",
                "model_factory": lenet,
                **FORM,
                "settings": {"restart": 1},
            },
            "no parameter 'restart'. Did you mean 'restarts'",
        ),
        (
            {"learning_rate": 0.1, "attack": "deep_leakage", "model_factory": lenet, **FORM, "settings": {"seed": 1}},
            "no parameter 'seed'",
        ),
        ({"learning_rate": 0.1, "attack": random_attack, "model_factory": lenet, "settings": {"a": 1}}, "settings"),
        ({"learning_rate": 0.0}, "Eavesdrop: learning_rate must be greater than 0"),
        ({"learning_rate": 0.1, "rounds": [0]}, r"rounds\[0\]"),
    ],
)
def test_refuses_settings_that_cannot_work(options, words):
    with pytest.raises(ConfigError, match=words):
        Eavesdrop(flower_strategy("Message", "FedAvg", 5), **options)


def test_is_named_in_an_experiment(tmp_path):
    form = {} if "input_shape" in SUPPLIED_TO_DEFENSES else {"input_shape": [1, 8, 8], "num_classes": 10}
    config = make_config(
        {
            "name": "heard",
            "model": {"name": "dlg_lenet"},
            "training": {"learning_rate": 0.1, "steps": 1, "batch_size": 2},
            "defenses": [
                {
                    "name": "eavesdrop",
                    "attack": "invert_gradients",
                    "clients": [0],
                    "rounds": [1],
                    "settings": {"max_iterations": 5},
                    **form,
                    "folder": str(tmp_path / "heard"),
                },
                {"name": "median"},
            ],
            "simulation": {"engine": "inprocess", "num_clients": 3, "num_rounds": 2},
            "output": {"folder": str(tmp_path / "runs"), "plots": False},
        }
    )
    folder = engine.run(config)
    notes = [record["defenses"][0]["notes"] for record in folder.rounds()[1:]]
    assert [entry["observed"] for entry in notes] == [[0], []]
    assert set(notes[0]["rebuilt"]) == {"0"}
    saved = Reconstruction.load(tmp_path / "heard" / "round-000001-client-0.reconstruction.safetensors")
    assert saved.inputs.shape == (2, 1, 8, 8)
    deaf = make_config({**config.to_dict(), "defenses": [{"name": "median"}]})
    other = engine.run(deaf)
    assert (folder.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()
