"""Issue point B6: other people's strategies inside: their start(), setters, attributes, keys and odd answers."""

import copy
import inspect
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp.strategy import FedAdagrad as MessageFedAdagrad
from flwr.serverapp.strategy import FedAvg as MessageFedAvg
from flwr.serverapp.strategy import Result
from flwr.serverapp.strategy import Strategy as MessageStrategy

from flsec._contracts.compatibility import MODEL as MATRIX_MODEL
from flsec._contracts.compatibility import OWN, build
from flsec._contracts.server import MODEL, flower_array, from_npy, honest, npy_bytes
from flsec.errors import NoProgressError
from flsec.strategies import Krum, Median, MultiKrum, NormClipping, RobustStrategy, WeakDP
from tests.support.boundary import (
    assert_kept,
    assert_moved,
    both_apis,
    counts,
    fedavg,
    nan,
    parameters,
    play,
    report,
    sends,
    server,
)

N = 7
WRAPPED = {
    "MultiKrum": lambda s: MultiKrum(s, num_byzantine=2),
    "Median": Median,
    "NormClipping(Krum)": lambda s: NormClipping(Krum(s, num_byzantine=2), max_norm=5.0),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


# --- the strategy's own start() -----------------------------------------------------------------------------------


def record(model=MODEL):
    return ArrayRecord({name: flower_array(npy_bytes(array)) for name, array in model.items()})


class Grid:
    """Sends messages to clients 1 to n in this process; client 2 is hostile."""

    def __init__(self, n=N):
        self.ids = list(range(1, n + 1))
        self.run = SimpleNamespace(run_id=1)
        self.trained = 0

    def get_node_ids(self):
        return list(self.ids)

    def send_and_receive(self, messages, timeout=None):
        return [Message(self._content(message), reply_to=message) for message in messages]

    def _content(self, message):
        client = message.metadata.dst_node_id
        arrays = [a.numpy() for a in next(iter(message.content.array_records.values())).values()]
        number = int(next(iter(message.content.config_records.values()), {}).get("server-round", 1))
        reply = honest(number, client, arrays)[0]
        if message.metadata.message_type == "evaluate":
            return reply.evaluation()
        self.trained += 1
        if client == 2:
            reply = replace(
                reply,
                tensors=tuple(
                    npy_bytes(a + 1000) if a.dtype.kind == "f" else t
                    for a, t in zip(arrays, reply.tensors, strict=True)
                ),
            )
        return reply.content(list(MODEL))


def assert_honest(arrays, rounds):
    """Every honest step is about 0.1."""
    for name, start in MODEL.items():
        if start.dtype.kind == "f":
            moved = np.abs(arrays[name].numpy() - start)
            assert (moved < 0.4 * rounds).all(), f"{name} moved by {moved.max()}"
            assert moved.max() > 0


class SavesAfterTheRun(MessageFedAdagrad):
    """As Flower's advanced examples: a strategy with a setter, whose start() does something around the run."""

    def set_save_path(self, path):
        self.save_path = path

    def start(self, *args, **kwargs):
        self.started = getattr(self, "started", 0) + 1
        result = super().start(*args, **kwargs)
        self.saved = (self.save_path, result)
        return result


class SavesTheBest(MessageFedAvg):
    """A start() that is a loop of the user's own."""

    def start(self, grid, initial_arrays, num_rounds=3, timeout=3600, **_):
        arrays, result, self.losses = initial_arrays, Result(), []
        for number in range(1, num_rounds + 1):
            replies = grid.send_and_receive(self.configure_train(number, arrays, ConfigRecord(), grid), timeout=timeout)
            new, metrics = self.aggregate_train(number, replies)
            arrays = arrays if new is None else new
            replies = grid.send_and_receive(
                self.configure_evaluate(number, arrays, ConfigRecord(), grid), timeout=timeout
            )
            self.losses.append(self.aggregate_evaluate(number, replies)["loss"])
            self.best = arrays
            result.train_metrics_clientapp[number] = metrics
        result.arrays = arrays
        return result


@wrapped
def test_start_of_the_wrapped_strategy_runs_and_its_rounds_are_defended(wrap):
    inner = SavesAfterTheRun(eta=0.1, tau=1.0, **counts("Message", N))
    inner.set_save_path("here")
    strategy = wrap(inner)
    result = strategy.start(grid=Grid(), initial_arrays=record(), num_rounds=2)
    assert inner.started == 1
    assert inner.saved == ("here", result)
    assert strategy.last_report.round == 2
    assert strategy.last_report.kept_previous_model is None
    assert_honest(result.arrays, 2)
    assert "flsec-kept" in result.train_metrics_clientapp[2]


@wrapped
def test_a_loop_of_the_users_own_is_defended(wrap):
    inner = SavesTheBest(**counts("Message", N))
    strategy = wrap(inner)
    result = strategy.start(grid=Grid(), initial_arrays=record(), num_rounds=3)
    assert len(inner.losses) == 3
    assert all(0 <= loss <= 1 for loss in inner.losses)
    assert strategy.last_report.round == 3
    assert_honest(result.arrays, 3)
    assert_honest(inner.best, 3)


@wrapped
def test_start_can_be_called_again_and_the_strategy_alone_is_as_before(wrap):
    inner = SavesTheBest(**counts("Message", N))
    methods = {name: getattr(inner, name) for name in ("configure_train", "aggregate_train", "start")}
    strategy = wrap(inner)
    first = strategy.start(grid=Grid(), initial_arrays=record(), num_rounds=1)
    again = strategy.start(grid=Grid(), initial_arrays=record(), num_rounds=1)
    for name in MODEL:
        np.testing.assert_array_equal(first.arrays[name].numpy(), again.arrays[name].numpy())
    for name, method in methods.items():
        assert getattr(inner, name) == method, f"{name} of the wrapped strategy is still replaced"
    bare = inner.start(grid=Grid(), initial_arrays=record(), num_rounds=1)
    assert np.abs(bare.arrays["weight"].numpy()).max() > 100, "alone, the hostile client decides"


@wrapped
def test_a_start_that_raises_leaves_the_strategy_as_it_was(wrap):
    class Raises(SavesTheBest):
        def start(self, *args, **kwargs):
            super().start(*args, **kwargs)
            raise InterruptedError("disk full")

    inner = Raises(**counts("Message", N))
    before = inner.aggregate_train
    with pytest.raises(InterruptedError, match="disk full"):
        wrap(inner).start(grid=Grid(), initial_arrays=record(), num_rounds=1)
    assert inner.aggregate_train == before


@wrapped
def test_flowers_own_start_takes_all_its_arguments(wrap):
    strategy = wrap(MessageFedAvg(**counts("Message", N)))
    seen = []

    def evaluate_fn(number, arrays):
        seen.append(number)
        return MetricRecord({"central": 1.0})

    result = strategy.start(
        grid=Grid(),
        initial_arrays=record(),
        num_rounds=2,
        timeout=10,
        train_config=ConfigRecord({"lr": 0.1}),
        evaluate_config=ConfigRecord({"x": 1}),
        evaluate_fn=evaluate_fn,
    )
    assert seen == [0, 1, 2]
    assert result.evaluate_metrics_serverapp[2]["central"] == 1.0
    assert_honest(result.arrays, 2)


def test_start_takes_positional_arguments_as_flowers_does():
    result = Median(MessageFedAvg(**counts("Message", N))).start(Grid(), record(), 1)
    assert_honest(result.arrays, 1)


def test_an_end_for_want_of_progress_leaves_start():
    class Garbage(Grid):
        def _content(self, message):
            content = super()._content(message)
            if message.metadata.message_type == "train":
                content["arrays"] = ArrayRecord({k: flower_array(b"") for k in content["arrays"]})
            return content

    strategy = Median(MessageFedAvg(**counts("Message", N)), patience=3)
    grid = Garbage()
    with pytest.raises(NoProgressError):
        strategy.start(grid=grid, initial_arrays=record(), num_rounds=50)
    assert grid.trained == 3 * N


# --- every public method of Flower's base classes ------------------------------------------------------------------


@pytest.mark.parametrize("base", [ClassicStrategy, MessageStrategy])
def test_every_public_method_of_flowers_base_classes_is_our_own(base):
    """What RobustStrategy merely inherits would run without the wrapped strategy being asked."""
    public = {
        name
        for cls in base.__mro__
        if cls.__module__.startswith("flwr")
        for name, value in vars(cls).items()
        if not name.startswith("_") and callable(value)
    }
    assert len(public) >= 5
    owners = {name: next(cls for cls in RobustStrategy.__mro__ if name in vars(cls)) for name in public}
    inherited = {name for name, owner in owners.items() if not owner.__module__.startswith("flsec.")}
    assert not inherited, f"RobustStrategy inherits {sorted(inherited)} from Flower; the wrapped strategy's are ignored"


@pytest.mark.parametrize("base", [ClassicStrategy, MessageStrategy])
def test_our_methods_take_what_flowers_take(base):
    """Flower's servers call by keyword."""
    for name in vars(base):
        if name.startswith("_") or not callable(getattr(base, name)):
            continue
        theirs = inspect.signature(getattr(base, name)).parameters
        ours = inspect.signature(getattr(RobustStrategy, name)).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in ours.values())
        assert open_ended or set(theirs) <= set(ours), f"{name}: {set(theirs) - set(ours)} is not taken"


def test_should_stop_of_newer_flower_versions_is_the_wrapped_strategys():
    class Stops(MessageFedAvg):
        def should_stop(self, server_round, result):
            return server_round >= 2

    strategy = NormClipping(Median(Stops(**counts("Message", N))), max_norm=1.0)
    assert strategy.should_stop(1, Result()) is False
    assert strategy.should_stop(2, Result()) is True
    assert strategy.should_stop(server_round=3, result=Result()) is True


# --- attributes, both ways -----------------------------------------------------------------------------------------


def attentive(api):
    base = ClassicFedAvg if api == "classic" else MessageFedAvg

    class Attentive(base):
        level = 1

        def set_level(self, level):
            self.level = level
            return self

        @property
        def doubled(self):
            return 2 * self.level

        @doubled.setter
        def doubled(self, value):
            self.level = value // 2

    return Attentive(**counts(api, N))


@both_apis
@wrapped
def test_attributes_and_setters_reach_the_wrapped_strategy(api, wrap):
    inner = attentive(api)
    strategy = wrap(inner)
    assert strategy.level == 1
    strategy.set_level(5)
    assert inner.level == 5
    assert strategy.level == 5
    strategy.level = 7
    assert inner.level == 7
    strategy.doubled = 20
    assert inner.level == 10
    assert strategy.doubled == 20
    inner.level = 3
    assert strategy.level == 3
    fraction = "fraction_fit" if api == "classic" else "fraction_train"
    setattr(strategy, fraction, 0.5)
    assert getattr(inner, fraction) == 0.5


@both_apis
@wrapped
def test_what_neither_has_is_an_attribute_error_with_its_name(api, wrap):
    strategy = wrap(attentive(api))
    assert not hasattr(strategy, "no_such_thing")
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = strategy.no_such_thing


@both_apis
def test_a_defenses_own_attributes_stay_its_own(api):
    inner = attentive(api)
    inner.num_byzantine = 99
    inner.last_report = "theirs"
    strategy = MultiKrum(inner, num_byzantine=2)
    assert strategy.num_byzantine == 2
    assert strategy.last_report is None
    strategy.num_byzantine = 1
    assert (strategy.num_byzantine, inner.num_byzantine) == (1, 99)
    play(api, strategy, N)
    assert inner.last_report == "theirs"
    assert strategy.last_report.round == 1


@both_apis
@wrapped
def test_a_defense_with_forwarding_can_be_copied_and_pickled(api, wrap):
    strategy = wrap(fedavg(api, N))
    for copied in (copy.copy(strategy), copy.deepcopy(strategy), pickle.loads(pickle.dumps(strategy))):
        assert type(copied) is type(strategy)
        assert_moved(play(api, copied, N))


@both_apis
def test_a_new_attribute_of_the_users_is_kept(api):
    """What neither has yet: either place will do, as long as it can be read again."""
    strategy = Median(fedavg(api, N))
    strategy.note = "mine"
    assert strategy.note == "mine"


# --- strategies written from scratch ---------------------------------------------------------------------------------


@both_apis
@wrapped
def test_a_strategy_derived_from_strategy_itself_keeps_its_metrics(api, wrap):
    """Case 03: it has neither weighted_by_key nor metrics functions."""
    inner = build(api, OWN)
    played = play(api, wrap(inner), 10, [1, 2], sends({2: nan}), MATRIX_MODEL)
    assert_moved(played, MATRIX_MODEL)
    assert played.metrics["mine"] == 1.0
    assert "flsec-kept" in played.metrics


@wrapped
def test_other_record_keys_and_weights_in_the_message_api(wrap):
    """The keys under which the strategy asks are the keys that its clients answer with."""
    keys = {"arrayrecord_key": "model", "configrecord_key": "cfg", "weighted_by_key": "n"}
    inner = MessageFedAvg(**counts("Message", N), **keys)

    def rename(content):
        content["model"], content["m"] = content.pop("arrays"), content.pop("metrics")
        content["m"]["n"] = content["m"].pop("num-examples")

    played = play(
        "Message", wrap(inner), N, [1, 2], sends({i: lambda r: replace(r, records=rename) for i in range(1, N + 1)})
    )
    assert_moved(played)
    assert report(played).quarantined == ()
    assert all(config["server-round"] == 2 for config in played.configs.values())
    assert "train-loss" in played.metrics


def test_weights_under_the_strategys_own_key_are_the_ones_that_count():
    inner = MessageFedAvg(**counts("Message", 3), weighted_by_key="n")

    def rename(content):
        content["metrics"]["n"] = content["metrics"].pop("num-examples")

    def weighing(count):
        return lambda r: replace(r, records=rename, num_examples=count)

    played = play(
        "Message",
        RobustStrategy(inner, weighting="examples"),
        3,
        [1],
        sends({1: weighing(10), 2: weighing(10**6), 3: weighing(10)}),
    )
    only = honest(1, 2, list(MODEL.values()))[0].arrays
    np.testing.assert_allclose(played.arrays[0], only[0], atol=1e-3)


@both_apis
def test_a_strategy_that_saves_what_it_aggregates_saves_the_defended_model(api):
    """The commonest pattern in people's servers: aggregate_fit, overridden, that keeps the best parameters."""

    class Saves(type(fedavg(api, N))):
        def aggregate_fit(self, server_round, results, failures):
            parameters, metrics = super().aggregate_fit(server_round, results, failures)
            self.saved = parameters
            return parameters, {**metrics, "saved": server_round}

        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            self.saved = arrays
            metrics["saved"] = server_round
            return arrays, metrics

    inner = Saves(**counts(api, N))
    played = play(api, Median(inner), N, [1, 2], sends({2: nan}))
    assert played.metrics["saved"] == 2
    saved = from_npy(inner.saved.tensors) if api == "classic" else [a.numpy() for a in inner.saved.values()]
    for a, b in zip(played.arrays[:3], saved[:3], strict=True):  # the counter is put in afterwards
        np.testing.assert_allclose(a, b, rtol=1e-6)


# --- configure_* that return None ------------------------------------------------------------------------------------


@wrapped
def test_a_round_without_training_is_no_error(wrap):
    """Flower's classic server accepts None for "nobody trains this round"."""

    class Rests(ClassicFedAvg):
        def configure_fit(self, server_round, parameters, client_manager):
            return None if server_round == 2 else super().configure_fit(server_round, parameters, client_manager)

    played = server("classic", wrap(Rests(**counts("classic", N))), N).play([1], honest)
    before = played.tensors
    played.play([2], honest)
    assert played.tensors == before
    played.play([3], honest)
    assert played.tensors != before


@both_apis
@wrapped
def test_no_evaluation_is_no_error(api, wrap):
    class Unmeasured(type(fedavg(api, N))):
        def configure_evaluate(self, *args, **kwargs):
            return None if api == "classic" else []

    played = play(api, wrap(Unmeasured(**counts(api, N))), N)
    assert played.evaluate(1, honest) is None
    assert_moved(played)


@wrapped
def test_none_for_an_evaluation_in_the_message_api(wrap):
    class Unmeasured(MessageFedAvg):
        def configure_evaluate(self, *args, **kwargs):
            return None

    strategy = wrap(Unmeasured(**counts("Message", N)))
    result = strategy.start(grid=Grid(), initial_arrays=record(), num_rounds=1)
    assert_honest(result.arrays, 1)


@both_apis
def test_rest_for_ever_ends_the_run(api):
    class Rests(type(fedavg(api, N))):
        resting = False

        def configure_fit(self, *args, **kwargs):
            return None if self.resting else super().configure_fit(*args, **kwargs)

        def configure_train(self, *args, **kwargs):
            return [] if self.resting else super().configure_train(*args, **kwargs)

    inner = Rests(**counts(api, N))
    played = server(api, Median(inner, patience=3), N).play([1])
    inner.resting = True
    with pytest.raises(NoProgressError):
        played.play([2, 3, 4, 5])


# --- where the two meet -----------------------------------------------------------------------------------------------


@both_apis
def test_a_wrapped_strategy_that_returns_nothing_keeps_the_model_and_says_so(api):
    class Nothing(type(fedavg(api, N))):
        def aggregate_fit(self, server_round, results, failures):
            return None, {}

        def aggregate_train(self, server_round, replies):
            return None, None

    assert_kept(play(api, Median(Nothing(**counts(api, N))), N), "Nothing")


@both_apis
def test_a_wrapped_strategy_that_raises_is_not_hidden(api):
    """A fault of the user's own program: their exception, not a kept model."""

    class Broken(type(fedavg(api, N))):
        def aggregate_fit(self, server_round, results, failures):
            raise InterruptedError("no disk")

        def aggregate_train(self, server_round, replies):
            raise InterruptedError("no disk")

    with pytest.raises(InterruptedError, match="no disk"):
        play(api, Median(Broken(**counts(api, N))), N)


def test_central_evaluation_is_the_wrapped_strategys():
    seen = []

    def evaluate_fn(number, arrays, config):
        seen.append((number, len(arrays)))
        return 0.25, {"accuracy": 0.75}

    strategy = WeakDP(Median(fedavg("classic", N, evaluate_fn=evaluate_fn)), max_norm=1.0, std=0.0)
    assert strategy.evaluate(server_round=3, parameters=parameters(MODEL)) == (0.25, {"accuracy": 0.75})
    assert seen == [(3, len(MODEL))]
