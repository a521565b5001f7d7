"""The pool of Ray actors: both Flower APIs, hostile and dying clients, state, time limits."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import ray
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp as ClassicServerApp
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg

from flsec.errors import ConfigError
from flsec.simulations.engines.grid import PartitionGrid
from flsec.simulations.engines.pooled import PooledGrid
from flsec.strategies import RobustStrategy
from tests.support import faulty

START = [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)]
EVERYBODY = faulty.NUM_CLIENTS


@pytest.fixture(scope="module", autouse=True)
def _one_ray_for_all() -> Any:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def context() -> Context:
    return Context(1, 1, {}, RecordDict(), {})


def test_message_api_survives_every_fault() -> None:
    grid = PooledGrid(faulty.message_app, EVERYBODY)
    nodes = PartitionGrid(grid, EVERYBODY, threading.Event())
    strategy = RobustStrategy(FedAvg(min_train_nodes=EVERYBODY, min_available_nodes=EVERYBODY))
    arrays: Any = ArrayRecord(START)
    for round_ in (1, 2, 3):
        replies = nodes.send_and_receive(strategy.configure_train(round_, arrays, ConfigRecord(), nodes), timeout=60)
        arrays, _ = strategy.aggregate_train(round_, replies)
        report = strategy.last_report
        assert report is not None
        hostile = list(range(faulty.HONEST, EVERYBODY)) if round_ == 2 else []
        assert sorted(entry.client_id for entry in report.quarantined) == hostile  # ids are partition ids
    for array, start in zip(arrays.to_numpy_ndarrays(), START, strict=True):
        np.testing.assert_allclose(array, start + 3 * faulty.STEP, rtol=1e-6)
    grid.close()


def test_a_rounds_messages_are_queued_together_so_that_the_first_calls_can_be_long() -> None:
    grid = PooledGrid(faulty.counting_app, 7)
    queued: list[int] = []
    push = grid.push_messages
    grid.push_messages = lambda batch: (queued.append(len(batch)), push(batch))[1]  # type: ignore[method-assign]
    replies = PartitionGrid(grid, 7, threading.Event()).send_and_receive(messages(1, range(7)), timeout=60)
    assert len(list(replies)) == 7
    assert queued == [7]
    grid.close()


def test_classic_api_survives_every_fault() -> None:
    final: list[Any] = []
    strategy = RobustStrategy(
        ClassicFedAvg(
            min_fit_clients=EVERYBODY,
            min_available_clients=EVERYBODY,
            fraction_evaluate=0.0,
            initial_parameters=ndarrays_to_parameters(START),
            evaluate_fn=lambda round_, arrays, config: final.append(arrays),
        )
    )
    server = ClassicServerApp(
        server_fn=lambda _: ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))
    )
    grid = PooledGrid(faulty.classic_app, EVERYBODY)
    server(grid, context())
    grid.close()
    for array, start in zip(final[-1], START, strict=True):
        np.testing.assert_allclose(array, start + 3 * faulty.STEP, rtol=1e-6)


def messages(round_: int, nodes: range, **config: Any) -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord(START), "config": ConfigRecord({"server-round": round_, **config})})
    return [Message(content, node, "train") for node in nodes]


def test_a_worker_that_dies_loses_what_it_had_in_hand_and_is_replaced() -> None:
    grid = PooledGrid(faulty.dying_app, 12)
    replies = list(grid.send_and_receive(messages(1, range(12)), timeout=60))
    failed = [reply for reply in replies if reply.has_error()]
    assert len(replies) == 12
    assert len(failed) == 1
    assert any(reply.metadata.src_node_id == 0 for reply in failed)
    again = list(grid.send_and_receive(messages(2, range(12)), timeout=60))
    assert [reply for reply in again if reply.has_error()] == []
    grid.close()


def test_quick_clients_share_calls_and_a_bad_reply_spoils_no_other() -> None:
    grid = PooledGrid(faulty.stowaway_app, 60)
    calls: list[int] = []
    submit = grid._submit
    grid._submit = lambda slot, batch: (calls.append(len(batch)), submit(slot, batch))[1]  # type: ignore[method-assign]
    for round_ in (1, 2, 3):
        calls.clear()
        replies = list(grid.send_and_receive(messages(round_, range(60)), timeout=60))
        failed = [reply.metadata.reply_to_message_id for reply in replies if reply.has_error()]
        assert len(replies) == 60
        assert len(failed) == (round_ > 1)
        assert max(calls) <= 60 // len(grid._slots)  # a worker's share
    assert max(calls) > 1
    assert not grid._alone
    grid.close()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_client_that_ends_or_blocks_its_worker_takes_no_others_with_it(hangs: bool) -> None:
    grid = PooledGrid(faulty.spoiling_app, 40, client_timeout=4)
    grid._paces["train"] = 0.001  # known to be quick
    shared: list[int] = []
    submit = grid._submit
    grid._submit = lambda slot, batch: (shared.append(len(batch)), submit(slot, batch))[1]  # type: ignore[method-assign]
    replies = list(grid.send_and_receive(messages(1, range(40), hangs=hangs), timeout=45 if hangs else 100))
    assert shared[0] == 40 // grid.num_workers  # with partition 9 among them
    assert sorted(r.metadata.src_node_id for r in replies if not r.has_error()) == [n for n in range(40) if n != 9]
    assert [r.metadata.src_node_id for r in replies if r.has_error()] == ([] if hangs else [9])
    grid.close()


def test_rounds_after_a_worker_was_replaced_are_whole() -> None:
    # A new worker once missed the call that another had taken over while it started; Ray then failed its later calls.
    grid = PooledGrid(faulty.counting_app, 12)
    ray.kill(grid._slots[0].actor)
    started, round_, with_all = time.monotonic(), 0, 0
    while with_all < 3:
        round_ += 1
        replies = list(grid.send_and_receive(messages(round_, range(12)), timeout=100))
        assert len(replies) == 12
        assert sum(reply.has_error() for reply in replies) <= (round_ == 1)
        with_all += round_ > 1 and all(slot.call is None for slot in grid._slots)  # the new worker is up
        assert time.monotonic() - started < 200
        time.sleep(0.2)
    grid.close()


def test_workers_that_cannot_start_again_fail_the_round_but_do_not_block_it() -> None:
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no room for me")

        def process(self, work: Any) -> None: ...

    grid = PooledGrid(faulty.counting_app, 6)
    new_actor, broken = grid._new_actor, ray.remote(Broken)
    grid._new_actor = lambda: broken.remote()
    for slot in list(grid._slots):
        grid._replace(slot, "is needed for a test")
    replies = list(grid.send_and_receive(messages(1, range(6)), timeout=100))
    assert [reply.has_error() for reply in replies] == [True] * 6
    assert all("no room for me" in str(reply.error.reason) for reply in replies)
    grid._new_actor = new_actor
    replies = list(grid.send_and_receive(messages(2, range(6)), timeout=100))
    assert [reply.has_error() for reply in replies] == [False] * 6
    grid.close()


def test_a_killed_worker_costs_its_share_of_the_round() -> None:
    grid = PooledGrid(faulty.slow_app, 8)
    done: list[Any] = []
    server = threading.Thread(target=lambda: done.extend(grid.send_and_receive(messages(1, range(8)), timeout=60)))
    server.start()
    time.sleep(0.6)  # in the middle of the first clients
    ray.kill(grid._slots[0].actor)
    server.join(timeout=60)
    failed = [reply for reply in done if reply.has_error()]
    assert len(done) == 8
    assert len(failed) == 1
    grid.close()


def test_a_client_that_is_too_slow_costs_its_timeout_and_the_next_round_is_whole() -> None:
    grid = PooledGrid(faulty.sleeping_app, 6)
    started = time.monotonic()
    replies = list(grid.send_and_receive(messages(1, range(6)), timeout=3))
    assert 3 <= time.monotonic() - started < 30
    assert sorted(reply.metadata.src_node_id for reply in replies) == [1, 2, 3, 4, 5]
    again = list(grid.send_and_receive(messages(2, range(6)), timeout=60))
    assert len([reply for reply in again if not reply.has_error()]) == 6
    grid.close()


def test_a_clients_state_comes_back_to_it_whatever_its_worker() -> None:
    grid = PooledGrid(faulty.counting_app, 5)
    for visit in range(1, 4):
        replies = grid.send_and_receive(messages(visit, range(5)), timeout=60)
        assert [reply.content["metrics"]["visits"] for reply in replies] == [visit] * 5
    grid.close()


def test_each_client_gets_its_own_settings_and_may_empty_its_message() -> None:
    grid = PooledGrid(faulty.greedy_app, 6)
    for round_ in (1, 2):
        sent = []
        for node, value in enumerate((1, 1, 1.0, True, 2, 1)):  # equal in part, but not of one type
            config = ConfigRecord({"value": value, "round": round_})
            sent.append(Message(RecordDict({"arrays": ArrayRecord(START), "config": config}), node, "train"))
        replies = sorted(grid.send_and_receive(sent, timeout=60), key=lambda reply: reply.metadata.src_node_id)
        got = [reply.content["config"] for reply in replies]
        assert [(type(c["value"]), c["value"], c["round"], c["arrays"]) for c in got] == [
            (type(v), v, round_, 2) for v in (1, 1, 1.0, True, 2, 1)
        ]
    grid.close()


@pytest.mark.parametrize(("cpus", "gpus"), [(64.0, 0.0), (1.0, 0.05)])
def test_what_ray_does_not_have_is_refused(cpus: float, gpus: float) -> None:
    with pytest.raises(ConfigError, match="a client asks for"):
        PooledGrid(faulty.message_app, 5, num_cpus=cpus, num_gpus=gpus)
