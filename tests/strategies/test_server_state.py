"""What a wrapped strategy remembers: taken and put back whatever it is, or refused by name, never lost in silence."""

import logging
import pickle
import random
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.common import Parameters, ndarrays_to_parameters
from flwr.server.strategy import FedAdam, FedAvg
from flwr.serverapp.strategy import FedAdam as MessageFedAdam
from hypothesis import given
from hypothesis import strategies as st

from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, identify
from flsec._state_files import load_state, save_state
from flsec.errors import ConfigError
from flsec.strategies import CRFL, Median, NormClipping, RobustStrategy, Siren
from flsec.strategies._rehearsal import rehearse
from flsec.strategies._server_state import put_back, take, tell_changed_model
from tests.support.tiny_rounds import Network, cohort, examples, start

CLIENTS = (3, 5, 8, 12, 14)
SERVERS = {"classic": ClassicServer, "Message": MessageServer}
both_apis = pytest.mark.parametrize("api", SERVERS)


@pytest.fixture(autouse=True)
def _flower_process():
    identify()


class Holder:
    """Something with attributes, as a strategy is."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def through_a_file(state, tmp_path):
    save_state(tmp_path / "state.safetensors", state)
    return load_state(tmp_path / "state.safetensors")


arrays = st.builds(
    lambda dtype, shape, seed: (100 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype),
    st.sampled_from(("float16", "float32", ">f4", "float64", "complex64", "int8", "int64", "uint16", "bool")),
    st.sampled_from(((), (0,), (3,), (2, 3))),
    st.integers(0, 99),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary(), arrays)
keys = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.tuples(st.integers(0, 3), st.text(max_size=2)))
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)), max_leaves=9
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(values, values)
def test_any_plain_value_comes_back_whatever_stands_there_meanwhile(value, meanwhile):
    holder = Holder(memory=value)
    state = take(holder)
    holder.memory = meanwhile
    put_back(holder, state)
    assert same(holder.memory, take_back(state))


def take_back(state):
    fresh = Holder(memory=None)
    put_back(fresh, state)
    return fresh.memory


@given(values)
def test_a_fresh_strategy_is_given_the_same_values(value):
    assert same(take_back(take(Holder(memory=value))), value)


@given(values)
def test_a_state_is_a_copy(value):
    holder = Holder(memory=value, beside=[1, [2]])
    state = take(holder)
    holder.beside[1].append(3)
    holder.beside.append(4)
    put_back(holder, state)
    assert holder.beside == [1, [2]]


def test_collections_of_every_kind_come_back_as_they_were(tmp_path):
    holder = Holder(
        history=deque([1.5, 2.5], maxlen=3),
        seen={3, 1},
        frozen=frozenset({"a"}),
        best=(0.5, np.ones(2, np.float32)),
        ordered=OrderedDict(b=1, a=2),
        record=ArrayRecord({"w": Array(np.arange(3.0))}),
        metrics=MetricRecord({"loss": 0.5}),
        parameters=ndarrays_to_parameters([np.ones(2)]),
        scalar=np.float32(1.25),
        tensor=torch.arange(3),
    )
    expected = pickle.loads(pickle.dumps({k: v for k, v in vars(holder).items() if k not in ("record", "metrics")}))
    state = through_a_file(take(holder), tmp_path)
    for changed in (Holder(**dict.fromkeys(vars(holder))), holder):
        holder.history.append(9.0)
        holder.seen.add(7)
        put_back(changed, state)
        for name, value in expected.items():
            found = getattr(changed, name)
            assert type(found) is type(value), name
            if name in ("best", "tensor", "parameters"):
                assert str(found) == str(value)
            else:
                assert found == value
        assert changed.history.maxlen == 3
        np.testing.assert_array_equal(changed.record["w"].numpy(), np.arange(3.0))
        assert dict(changed.metrics) == {"loss": 0.5}


def test_random_generators_go_on_where_they_were(tmp_path):
    def generators():
        return Holder(
            a=np.random.default_rng(3),
            b=random.Random(3),
            c=torch.Generator().manual_seed(3),
            d=np.random.RandomState(3),
        )

    def draw(h):
        return [h.a.random(), h.b.random(), torch.rand(1, generator=h.c).item(), h.d.random_sample()]

    used = generators()
    draw(used)
    state = through_a_file(take(used), tmp_path)
    expected = draw(used)
    fresh = generators()
    put_back(fresh, state)
    assert draw(fresh) == expected


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5


@dataclass
class Schedule:
    step: int = 0
    settings: Settings = field(default_factory=Settings)


def test_objects_are_looked_into_and_those_with_state_dict_are_asked(tmp_path):
    def make():
        network = torch.nn.Linear(2, 1)
        return Holder(
            schedule=Schedule(),
            network=network,
            optimizer=torch.optim.Adam(network.parameters(), lr=0.1),
            callback=lambda: None,
            bound=partial(print, 3),
            logger=logging.getLogger("x"),
            lock=threading.Lock(),
            folder=Path("x"),
            data=torch.utils.data.TensorDataset(torch.zeros(2)),
            kind=Schedule,
            callbacks=[print, 1],
        )

    def advance(h):
        h.schedule.step += 1
        h.callbacks[1] += 1
        h.optimizer.zero_grad()
        h.network(torch.ones(1, 2)).sum().backward()
        h.optimizer.step()

    used = make()
    advance(used)
    state = through_a_file(take(used), tmp_path)
    fresh = make()
    put_back(fresh, state)
    for h in (used, fresh):
        advance(h)
    assert fresh.schedule == used.schedule == Schedule(step=2)
    assert fresh.callbacks == [print, 3]
    assert all(torch.equal(a, b) for a, b in zip(fresh.network.parameters(), used.network.parameters(), strict=True))
    assert isinstance(fresh.schedule.settings, Settings)


@pytest.mark.parametrize(
    "memory", [iter([1, 2]), (i for i in range(3)), np.array([None, 1]), memoryview(b"x"), object()]
)
def test_what_cannot_be_copied_is_refused_by_name(memory):
    with pytest.raises(ConfigError, match=r"Holder\.inner\['memory'\] may be memory.*state_dict"):
        take(Holder(inner={"memory": memory}))


def test_something_that_holds_itself_is_refused():
    holder = Holder(rounds=[])
    holder.rounds.append(holder.rounds)
    with pytest.raises(ConfigError, match="holds itself"):
        take(holder)


def test_what_came_into_being_since_is_gone_again():
    holder = Holder(rounds=1)
    state = take(holder)
    holder.momentum = np.ones(3)
    put_back(holder, state)
    assert vars(holder) == {"rounds": 1}


def test_a_state_of_something_else_is_refused():
    with pytest.raises(ConfigError, match="Resume with the strategy that it was taken of"):
        put_back(Holder(), take(FedAvg()))


# --- a user's own strategy -------------------------------------------------------------------------------------------


class Momentum(FedAvg):
    """A server optimizer with memory under names of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.velocity = None
        self.rounds = []
        self.noise = np.random.default_rng(1)

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        new = [np.load(__import__("io").BytesIO(data)) for data in parameters.tensors]
        old = self.velocity or [np.zeros_like(a, dtype=np.float64) for a in new]
        self.velocity = [0.5 * v + a for v, a in zip(old, new, strict=True)]
        self.rounds.append(server_round)
        moved = [
            (a + 0.01 * v + 0.001 * self.noise.random()).astype(a.dtype)
            for a, v in zip(new, self.velocity, strict=True)
        ]
        return ndarrays_to_parameters(moved), metrics


def own(**options):
    n = len(CLIENTS)
    first = ndarrays_to_parameters(list(MODEL.values()))
    return Momentum(min_fit_clients=n, min_available_clients=n, initial_parameters=first, **options)


def test_a_users_own_strategy_resumes_to_the_same_numbers(tmp_path):
    whole = ClassicServer(Median(own()), CLIENTS).play([1, 2])
    state = through_a_file(whole.strategy.state_dict(), tmp_path)
    resumed = ClassicServer(Median(own()), CLIENTS)
    resumed.tensors = list(whole.tensors)
    resumed.strategy.load_state_dict(state)
    assert resumed.strategy.base.rounds == [1, 2]
    for server in (whole, resumed):
        server.play([3, 4])
    for a, b in zip(whole.arrays, resumed.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_strategy_that_cannot_be_resumed_says_so_when_its_state_is_asked_for():
    class Lazy(FedAvg):
        def __init__(self, **options):
            super().__init__(**options)
            self.schedule = iter(range(100))

    strategy = Median(Lazy())
    with pytest.raises(ConfigError, match=r"Lazy\.schedule"):
        strategy.state_dict()
    examples_ = (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"Lazy\.schedule"):  # a defense that goes back refuses it at once
        Siren(Lazy(), root_data=examples_, model_factory=lambda: torch.nn.Linear(1, 1))


class Explodes(Momentum):
    """Its own step overflows in round 2."""

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if server_round == 2:
            arrays = [np.full(a.shape, np.inf, a.dtype) if a.dtype.kind == "f" else a for a in MODEL.values()]
            return ndarrays_to_parameters(arrays), metrics
        return parameters, metrics


def test_a_step_that_is_not_finite_leaves_no_trace_in_anybodys_memory():
    n = len(CLIENTS)
    make = partial(Explodes, min_fit_clients=n, min_available_clients=n)
    exploded = ClassicServer(Median(make()), CLIENTS).play([1])
    before = exploded.arrays
    exploded.play([2])
    assert "not finite" in exploded.strategy.last_report.kept_previous_model
    for a, b in zip(exploded.arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    spared = ClassicServer(Median(make()), CLIENTS).play([1])
    for server in (exploded, spared):
        server.play([3])
    assert exploded.strategy.base.rounds == [1, 3]
    for a, b in zip(exploded.arrays, spared.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_strategy_that_remembers_its_model_is_told_of_the_changed_one():
    """By value, whatever the attribute is called, and inside another strategy as well."""
    model = [np.ones((2, 2)), np.zeros(3, np.float32)]
    other = [np.full((2, 2), 5.0), np.zeros(3, np.float32)]
    inner = FedAvg()
    inner.anything = [a.copy() for a in model]
    inner.as_dict = dict(zip("ab", model, strict=True))
    inner.as_parameters = ndarrays_to_parameters(model)
    inner.as_record = ArrayRecord({name: Array(a) for name, a in zip("ab", model, strict=True)})
    inner.other = [np.ones((2, 2)), np.ones(3, np.float32)]
    outer = FedAvg()
    outer.strategy = inner
    tell_changed_model(outer, model, other)
    np.testing.assert_array_equal(inner.anything[0], other[0])
    np.testing.assert_array_equal(inner.as_dict["a"], other[0])
    np.testing.assert_array_equal(inner.as_record["a"].numpy(), other[0])
    assert isinstance(inner.as_parameters, Parameters)
    assert inner.as_parameters.tensors == ndarrays_to_parameters(other).tensors
    assert inner.other[1][0] == 1


# --- a rehearsal leaves no trace -----------------------------------------------------------------------------


@pytest.mark.parametrize("fed_adam", [FedAdam, MessageFedAdam])
def test_a_rehearsal_that_goes_back_leaves_the_server_optimizer_alone(fed_adam):
    arrays = list(start().values())
    given_ = {"initial_parameters": ndarrays_to_parameters(arrays)} if fed_adam is FedAdam else {}
    inner = fed_adam(**given_)
    inner.m_t = [np.ones(3)]
    inner.v_t = [np.full(3, 2.0)]
    siren = Siren(inner, root_data=examples(0), model_factory=Network)
    rows = torch.randn(5, cohort(torch.zeros(0, 21)).layout.size, generator=torch.Generator().manual_seed(0))
    alarmed = cohort(rows, round=2).replace(metrics=({"siren-alarm": 1},) * 5)
    siren.earlier = {
        "parameters": torch.zeros(rows.shape[1]),
        "state": [],
        "optimizer": take(fed_adam(**given_)),
    }
    memory, own_state = take(inner), siren.state_dict()
    change, _ = rehearse([siren], alarmed)
    assert bool(change.any())
    assert str(take(inner)) == str(memory)
    assert str(siren.state_dict()["state"]) == str(own_state["state"])


@both_apis
def test_server_state_of_nested_wrappers_is_one_value(api, tmp_path):
    def make():
        inner = flower_strategy(api, "FedAdam", len(CLIENTS))
        return NormClipping(CRFL(Median(inner), max_norm=2.0, std=0.01, num_rounds=9), max_norm=3.0)

    whole = SERVERS[api](make(), CLIENTS).play([1, 2])
    state = through_a_file(whole.strategy.state_dict(), tmp_path)
    resumed = SERVERS[api](make(), CLIENTS)
    resumed.tensors = list(whole.tensors)
    resumed.strategy.load_state_dict(state)
    for server in (whole, resumed):
        server.play([3, 4])
    for a, b in zip(whole.arrays, resumed.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_patience_goes_on_after_a_resume():
    strategy = RobustStrategy(own(), patience=3)
    server = ClassicServer(strategy, CLIENTS).play([1, 2], lambda *_: [])
    resumed = RobustStrategy(own(), patience=3)
    resumed.load_state_dict(server.strategy.state_dict())
    with pytest.raises(RuntimeError, match="3 rounds in a row"):
        ClassicServer(resumed, CLIENTS).play([3], lambda *_: [])
