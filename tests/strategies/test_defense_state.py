"""DefenseState: a server that was stopped anywhere and started again ends with the model of one that never stopped."""

import copy
import errno
import io
import random
import signal
import subprocess
import sys

import flwr.server.server
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import Code, EvaluateRes, FitRes, Parameters, Status
from flwr.server import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.server import Server
from flwr.serverapp.strategy import FedAvg

from flsec import _files
from flsec._checkpoints import Checkpoints
from flsec._contracts.battery import quiet
from flsec._contracts.defenses import DefenseBattery
from flsec._contracts.server import APIS, MODEL, flower_array, flower_strategy, honest, identify, npy_bytes
from flsec.errors import ConfigError, SaveError
from flsec.strategies import (
    CRFL,
    Adversary,
    CenteredClipping,
    DefenseState,
    Flanders,
    FoolsGold,
    Krum,
    Median,
    NormClipping,
    RobustStrategy,
    WeakDP,
)

CLIENTS = tuple(range(3, 12))
DEFENSES = {
    "krum": lambda inner: Krum(inner, num_byzantine=2),
    "clipping": lambda inner: CenteredClipping(inner, radius=1.0),
    "foolsgold": FoolsGold,
    "flanders": lambda inner: Flanders(inner, num_byzantine=2),
    "noise": lambda inner: WeakDP(inner, max_norm=1.0, std=0.1, seed=3),
    "crfl": lambda inner: CRFL(NormClipping(inner, max_norm=0.5), max_norm=5.0, std=0.01, seed=1),
    "bare": lambda inner: inner,
}


class Killed(BaseException):
    """The process ends here."""


class Clients:
    """What clients of both APIs answer; the process ends when a given stage of a given round begins."""

    def __init__(self, stop=(0, "")):
        self.stop, self.asked = stop, []

    def reply(self, stage, number, client_id, arrays=()):
        if (number, stage) == self.stop:
            raise Killed
        self.asked.append((stage, number, client_id))
        return honest(number, client_id, list(arrays))[0]


class Proxy(ClientProxy):
    def __init__(self, client_id, clients):
        super().__init__(str(client_id))
        self.node_id, self._clients = client_id, clients

    def fit(self, ins, timeout, group_id):
        arrays = [np.load(io.BytesIO(data)) for data in ins.parameters.tensors]
        reply = self._clients.reply("train", group_id, self.node_id, arrays)
        result = Parameters(list(reply.tensors), "numpy.ndarray")
        return FitRes(Status(Code.OK, ""), result, reply.num_examples, reply.metrics)

    def evaluate(self, ins, timeout, group_id):
        reply = self._clients.reply("evaluate", group_id, self.node_id)
        return EvaluateRes(Status(Code.OK, ""), reply.loss, reply.num_examples, reply.metrics)

    def get_properties(self, *args): ...

    def get_parameters(self, *args): ...

    def reconnect(self, *args): ...


class Grid:
    def __init__(self, clients):
        self._clients = clients

    def get_node_ids(self):
        return list(CLIENTS)

    def send_and_receive(self, messages, *, timeout=None):
        return [self._answer(message) for message in list(messages)]

    def _answer(self, message):
        stage, number = message.metadata.message_type, int(message.content["config"]["server-round"])
        arrays = next(iter(message.content.array_records.values())).to_numpy_ndarrays()
        reply = self._clients.reply(stage, number, message.metadata.dst_node_id, arrays)
        content = reply.content(list(MODEL)) if stage == "train" else reply.evaluation()
        return Message(content, reply_to=message)


def first_model():
    return ArrayRecord({name: flower_array(npy_bytes(array)) for name, array in MODEL.items()})


def serve(api, strategy, num_rounds, clients):
    """Run Flower's own loop; return the model as {position: bytes} and what was evaluated on the server."""
    identify()
    evaluated = {}
    if api == "Message":

        def evaluate(number, arrays):
            evaluated[number] = [array.data for array in arrays.values()]
            return MetricRecord({"norm": 1.0})

        result = strategy.start(Grid(clients), first_model(), num_rounds, evaluate_fn=evaluate)
        return [array.data for array in result.arrays.values()], evaluated
    manager = SimpleClientManager()
    for client_id in CLIENTS:
        manager.register(Proxy(client_id, clients))
    server = Server(client_manager=manager, strategy=strategy)
    server.set_max_workers(1)
    strategy.base.evaluate_fn = lambda number, arrays, config: (evaluated.update({number: arrays}), (0.5, {}))[1]
    server.fit(num_rounds, timeout=None)
    return server.parameters.tensors, {number: [npy_bytes(a) for a in arrays] for number, arrays in evaluated.items()}


def inner(api, name="FedAdam", share=1.0):
    strategy = flower_strategy(api, name, 7)
    keys = ("fraction_fit", "fraction_evaluate") if api == "classic" else ("fraction_train", "fraction_evaluate")
    for key in keys:
        setattr(strategy, key, share)
    return strategy


@pytest.fixture(autouse=True)
def _raise_in_threads(monkeypatch):
    """Flower's classic server asks clients in threads and keeps what they raise; a process that is killed does not."""

    def at_once(strategy_call, instructions, group_id):
        return [(proxy, strategy_call(proxy)(ins, None, group_id)) for proxy, ins in instructions], []

    monkeypatch.setattr(
        flwr.server.server,
        "fit_clients",
        lambda client_instructions, max_workers, timeout, group_id: at_once(
            lambda proxy: proxy.fit, client_instructions, group_id
        ),
    )
    monkeypatch.setattr(
        flwr.server.server,
        "evaluate_clients",
        lambda client_instructions, max_workers, timeout, group_id: at_once(
            lambda proxy: proxy.evaluate, client_instructions, group_id
        ),
    )


def uninterrupted(api, make, rounds, share):
    random.seed(5)
    strategy = make(inner(api, share=share))
    if not isinstance(strategy, RobustStrategy):
        strategy = RobustStrategy(strategy, weighting="examples", patience=None)
    clients = Clients()
    model, evaluated = serve(api, strategy, rounds, clients)
    return model, evaluated, clients.asked


def killed_while_writing(monkeypatch, number):
    """Have the process end after the aggregation of a round and before its state is saved."""
    saved = Checkpoints.save

    def save(self, round, state, keep):
        if round == number:
            raise Killed
        saved(self, round, state, keep)

    monkeypatch.setattr(Checkpoints, "save", save)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", DEFENSES)
def test_stopped_anywhere_it_ends_with_the_model_of_one_that_never_stopped(api, name, tmp_path):
    make, rounds, chance = DEFENSES[name], 5, random.Random(f"{api} {name}")
    for trial in range(3):
        share = chance.choice([1.0, 0.8])  # 7 of 9, drawn by Flower
        expected, evaluated, asked = uninterrupted(api, make, rounds, share)
        heard, seen = [], {}
        random.seed(5)
        for attempt in range(4):
            stages = ["train", "evaluate", "write"]
            stop = (chance.randint(2, rounds), chance.choice(stages)) if attempt < 3 else (0, "")
            clients = Clients(stop)
            strategy = DefenseState(make(inner(api, share=share)), tmp_path / str(trial))
            try:
                with pytest.MonkeyPatch.context() as patch:
                    if stop[1] == "write":
                        killed_while_writing(patch, stop[0])
                    model, values = serve(api, strategy, rounds, clients)
                    seen.update(values)
                    break
            except Killed:
                pass
            finally:
                strategy.close()
                heard += clients.asked
            random.seed(attempt)  # a new process has other random numbers
        assert model == expected
        assert {number: seen[number] for number in seen} == {number: evaluated[number] for number in seen}
        assert rounds in seen
        assert set(heard) == set(asked)  # the same clients in the same rounds, and nobody beside them


@pytest.mark.parametrize("api", APIS)
def test_it_changes_no_number_and_num_rounds_is_the_total(api, tmp_path):
    expected, evaluated, asked = uninterrupted(api, DEFENSES["krum"], 4, 1.0)
    clients = Clients()
    strategy = DefenseState(DEFENSES["krum"](inner(api)), tmp_path)
    random.seed(5)
    model, seen = serve(api, strategy, 4, clients)
    assert (model, seen, clients.asked) == (expected, evaluated, asked)
    assert [v.defense for v in strategy.last_report.verdicts] == ["Krum"]
    again = Clients()
    for _ in range(2):
        strategy.close()
        strategy = DefenseState(DEFENSES["krum"](inner(api)), tmp_path)
        assert strategy.rounds_done == 4
        model, seen = serve(api, strategy, 4, again)
        assert model == expected
        assert seen == {4: evaluated[4]}
    assert {stage for stage, _, _ in again.asked} == {"evaluate"}
    strategy.close()
    longer, _, _ = uninterrupted(api, DEFENSES["krum"], 6, 1.0)
    assert serve(api, DefenseState(DEFENSES["krum"](inner(api)), tmp_path), 6, Clients())[0] == longer


def test_the_comparison_sees_a_server_that_forgets(tmp_path):
    """Without what FedAdam remembers the model is another one."""
    expected, _, _ = uninterrupted("Message", DEFENSES["krum"], 4, 1.0)
    strategy = DefenseState(DEFENSES["krum"](inner("Message")), tmp_path)
    serve("Message", strategy, 2, Clients())
    strategy.close()
    strategy = DefenseState(DEFENSES["krum"](inner("Message")), tmp_path)
    strategy.base.m_t = strategy.base.v_t = None
    assert serve("Message", strategy, 4, Clients())[0] != expected


def test_a_start_of_the_strategys_own_goes_on_too(tmp_path):
    class Own(FedAvg):
        def start(self, grid, initial_arrays, num_rounds):
            arrays, self.played = initial_arrays, []
            for number in range(1, num_rounds + 1):
                messages = self.configure_train(number, arrays, ConfigRecord(), grid)
                arrays, _ = self.aggregate_train(number, grid.send_and_receive(messages))
                self.played.append(number)
            return arrays

    def play(strategy, rounds, stop=(0, "")):
        identify()
        return strategy.start(Grid(Clients(stop)), first_model(), num_rounds=rounds)

    def own():
        return Own(min_train_nodes=9, min_available_nodes=9)

    expected = play(Median(own()), 4)
    strategy = DefenseState(Median(own()), tmp_path)
    with pytest.raises(Killed):
        play(strategy, 4, (3, "train"))
    strategy.close()
    model = play(DefenseState(Median(own()), tmp_path), 4)
    assert [a.data for a in model.values()] == [a.data for a in expected.values()]


# --- what is refused ------------------------------------------------------------------------------------------


def saved(api, tmp_path, make=DEFENSES["krum"], rounds=3, name="FedAdam"):
    strategy = DefenseState(make(inner(api, name)), tmp_path)
    model, _ = serve(api, strategy, rounds, Clients())
    strategy.close()
    return model


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("make", "flower", "words"),
    [
        (Median, "FedAdam", "of Krum; it cannot continue Median.* Or name another folder"),
        (lambda i: NormClipping(Krum(i, num_byzantine=2), max_norm=1.0), "FedAdam", "of Krum; .* NormClipping"),
        (DEFENSES["krum"], "FedAvgM", "has a FedAdam for FedAvgM"),
        (DEFENSES["bare"], "FedAdam", "of Krum; it cannot continue FedAdam"),
    ],
)
def test_a_state_of_something_else_is_refused_by_name(api, make, flower, words, tmp_path):
    saved(api, tmp_path)
    for _ in range(2):  # the refusal lets go of the folder
        with pytest.raises(ConfigError, match=words):
            DefenseState(make(inner(api, flower)), tmp_path)


def test_a_state_of_no_defense_is_refused_by_one(tmp_path):
    saved("Message", tmp_path, DEFENSES["bare"])
    with pytest.raises(ConfigError, match="of FedAdam; it cannot continue Krum"):
        DefenseState(DEFENSES["krum"](inner("Message")), tmp_path)


def test_a_state_of_the_other_api_is_refused(tmp_path):
    saved("classic", tmp_path)
    with pytest.raises(ConfigError, match="other API"):
        DefenseState(DEFENSES["krum"](inner("Message")), tmp_path)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: model.update(bias=np.zeros(5, np.float32)), r"float32\[4\], and the app .*float32\[5\]"),
        (lambda model: model.update(bias=np.zeros(4)), r"float32\[4\], and the app .*float64\[4\]"),
        (lambda model: model.pop("steps"), "4 arrays, and the app 3"),
    ],
)
def test_a_state_of_another_model_is_refused_before_anybody_is_asked(api, change, words, tmp_path, monkeypatch):
    saved(api, tmp_path)
    model = dict(MODEL)
    change(model)
    strategy, clients = DefenseState(DEFENSES["krum"](inner(api)), tmp_path), Clients()
    strategy.base.initial_parameters = Parameters([npy_bytes(a) for a in model.values()], "numpy.ndarray")
    monkeypatch.setattr(
        sys.modules[__name__],
        "first_model",
        lambda: ArrayRecord({name: flower_array(npy_bytes(array)) for name, array in model.items()}),
    )
    with pytest.raises(ConfigError, match=f"of another model.*{words}"):
        serve(api, strategy, 4, clients)
    assert not clients.asked


def test_what_changes_the_model_outside_is_refused(tmp_path):
    identify()
    strategy, grid = DefenseState(Median(inner("Message")), tmp_path), Grid(Clients())
    arrays, _ = strategy.aggregate_train(
        1, grid.send_and_receive(strategy.configure_train(1, first_model(), ConfigRecord(), grid))
    )
    same = ArrayRecord({name: flower_array(bytes(array.data)) for name, array in arrays.items()})
    assert list(strategy.configure_train(2, same, ConfigRecord(), grid))
    noisy = ArrayRecord({name: flower_array(npy_bytes(array.numpy() * 2)) for name, array in arrays.items()})
    with pytest.raises(ConfigError, match="something outside changes it"):
        strategy.configure_train(2, noisy, ConfigRecord(), grid)


def test_it_stands_around_all_others(tmp_path):
    strategy = DefenseState(Median(inner("Message")), tmp_path)
    for outer in (Median, lambda inner: Adversary(inner, attacks=[])):
        with pytest.raises(ConfigError, match=r"DefenseState stands around .*\. Put it outside: DefenseState\("):
            outer(strategy)


def test_settings_are_those_of_the_defense_inside(tmp_path):
    reports = []
    options = {"patience": 3, "evaluation": "median", "max_num_examples": 77, "on_verdict": reports.append}
    defense = Krum(inner("Message"), num_byzantine=2, **options)
    defense.partition_ids = {3: 0}
    strategy = DefenseState(defense, tmp_path)
    assert strategy.partition_ids is defense.partition_ids
    assert (strategy.patience, strategy.evaluation, strategy.max_num_examples) == (3, "median", 77)
    assert strategy.weighting == "uniform"
    assert strategy.num_byzantine == 2
    serve("Message", strategy, 2, Clients())
    assert [report.round for report in reports] == [1, 2]  # once each


def test_a_copy_would_write_beside_it_and_is_refused(tmp_path):
    strategy = DefenseState(Median(inner("Message")), tmp_path)
    with pytest.raises(TypeError, match="copy the strategy inside"):
        copy.deepcopy(strategy)


def test_two_at_one_path_are_refused(tmp_path):
    first = DefenseState(Median(inner("Message")), tmp_path)
    with pytest.raises(ConfigError, match=r"process \d+ on .* is at work in"):
        DefenseState(Median(inner("Message")), tmp_path)
    first.close()
    second = DefenseState(Median(inner("Message")), tmp_path)
    with pytest.raises(ConfigError, match="was closed"):
        serve("Message", first, 1, Clients())
    del second
    DefenseState(Median(inner("Message")), tmp_path).close()  # what nobody holds lets go by itself


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="path must be a folder"):
        DefenseState(Median(inner("Message")), tmp_path / "file")


# --- damage, and a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("api", APIS)
def test_a_damaged_state_gives_way_to_the_one_before_and_the_model_is_the_same(api, tmp_path, caplog):
    expected = saved(api, tmp_path / "whole", rounds=4)
    saved(api, tmp_path / "damaged", rounds=3)
    newest = tmp_path / "damaged/round-000003.state"
    newest.write_bytes(newest.read_bytes()[:-40])
    with caplog.at_level("WARNING", "flsec"):
        strategy = DefenseState(DEFENSES["krum"](inner(api)), tmp_path / "damaged")
    assert strategy.rounds_done == 2
    assert "lost, and run again: round 3: round-000003.state holds" in caplog.text
    assert serve(api, strategy, 4, Clients())[0] == expected


def test_without_a_state_that_is_whole_it_does_not_begin_anew(tmp_path):
    saved("Message", tmp_path, rounds=2)
    for path in tmp_path.glob("*.state"):
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of the states .* round 2: .*; round 1: "):
        DefenseState(DEFENSES["krum"](inner("Message")), tmp_path)


def test_a_full_disk_ends_the_run_and_what_was_saved_still_is(tmp_path, monkeypatch):
    expected = saved("Message", tmp_path / "whole", rounds=4)
    strategy = DefenseState(DEFENSES["krum"](inner("Message")), tmp_path / "full")
    serve("Message", strategy, 2, Clients())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(SaveError, match="No space left on device"):
            serve("Message", strategy, 4, Clients())
    strategy.close()
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["lock", "round-000001.state", "round-000002.state"]
    strategy = DefenseState(DEFENSES["krum"](inner("Message")), tmp_path / "full")
    assert serve("Message", strategy, 4, Clients())[0] == expected


def test_only_the_owner_may_read_it(tmp_path):
    saved("Message", tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "new").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


# --- the process itself ---------------------------------------------------------------------------------------

SERVER = """
import os, signal, sys
import tests.strategies.test_defense_state as t
class Deadly(t.Clients):
    def reply(self, *args):
        try:
            return super().reply(*args)
        except t.Killed:
            os.kill(os.getpid(), signal.SIGKILL)
strategy = t.DefenseState(t.DEFENSES["foolsgold"](t.inner("Message")), sys.argv[1])
model, _ = t.serve("Message", strategy, 5, Deadly((int(sys.argv[2]), sys.argv[3])))
print(b"".join(model).hex())
"""


def test_killed_by_sigkill_and_started_again(tmp_path):
    expected, _, _ = uninterrupted("Message", DEFENSES["foolsgold"], 5, 1.0)
    for stop in (["3", "train"], ["4", "evaluate"]):
        done = subprocess.run([sys.executable, "-c", SERVER, str(tmp_path), *stop], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = subprocess.run([sys.executable, "-c", SERVER, str(tmp_path), "0", ""], capture_output=True, text=True)
    assert done.stdout.strip() == b"".join(expected).hex(), done.stderr


# --- the contract of every wrapper ----------------------------------------------------------------------------


class Battery(DefenseBattery):
    """All that is asked of a defense, but for a copy by pickle: it would hold the same folder, and is refused."""

    def survives_pickling(self):
        with pytest.raises(TypeError, match="copy the strategy inside"):
            copy.deepcopy(self._probe)


def test_contract(tmp_path_factory):
    def at_new_folder(strategy):
        return DefenseState(Median(strategy), tmp_path_factory.mktemp("state"))

    probe = at_new_folder(flower_strategy("classic", "FedAvg", 2))
    battery = Battery(at_new_folder, probe, max(w.minimum_clients for w in probe.chain()), 8)
    checks = [name for name in vars(DefenseBattery) if not name.startswith("_")]
    assert len(checks) > 20
    with quiet("flwr", "flsec"):
        for name in checks:
            getattr(battery, name)()
