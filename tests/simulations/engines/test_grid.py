import threading
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flsec.simulations.engines.grid import InProcessGrid, PartitionGrid
from flsec.simulations.engines.interrupted import Interrupted


def app_of(function: Any) -> ClientApp:
    app = ClientApp()
    app.train()(function)
    return app


def echo(message: Message, context: Context) -> Message:
    count = context.state.get("visits", MetricRecord({"n": 0}))["n"] + 1
    context.state["visits"] = MetricRecord({"n": count})
    metrics = MetricRecord({"partition": context.node_config["partition-id"], "visits": count})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def messages(*nodes: int) -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord([np.zeros(2)])})  # one record for all, as Flower's strategies do
    return [Message(content, node, "train") for node in nodes]


def grid_of(function: Any, n: int = 3) -> InProcessGrid:
    return InProcessGrid(app_of(function), n)


def test_clients_keep_their_state_and_reply_in_order() -> None:
    grid = grid_of(echo)
    grid.send_and_receive(messages(2))
    replies = list(grid.send_and_receive(messages(2, 0)))
    assert [r.metadata.src_node_id for r in replies] == [2, 0]
    assert [dict(r.content["metrics"]) for r in replies] == [
        {"partition": 2, "visits": 2},
        {"partition": 0, "visits": 1},
    ]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (lambda m, c: None, "NoneType instead of a reply"),
        (lambda m, c: 1 / 0, "ZeroDivisionError"),
        (lambda m, c: exec("raise SystemExit(3)"), "SystemExit"),
    ],
)
def test_a_client_that_fails_becomes_an_error_reply(behaviour: Any, words: str) -> None:
    (reply,) = grid_of(behaviour).send_and_receive(messages(1))
    assert reply.has_error()
    assert words in reply.error.reason
    assert reply.metadata.src_node_id == 1


def test_a_client_that_empties_its_message_empties_no_other() -> None:
    def greedy(message: Message, context: Context) -> Message:
        size = len(message.content["arrays"])
        del message.content["arrays"]
        return Message(RecordDict({"metrics": MetricRecord({"size": size})}), reply_to=message)

    replies = grid_of(greedy).send_and_receive(messages(0, 1, 2))
    assert [r.content["metrics"]["size"] for r in replies] == [1, 1, 1]


class RandomIds(InProcessGrid):
    """A grid whose node ids are neither small nor in order, as Flower's are; registered in partition order."""

    IDS = (900, 17, 444)

    def get_node_ids(self) -> Any:
        return {444, 900, 17}

    def get_nodes(self) -> Any:
        class Node:
            def __init__(self, node_id: int, when: int) -> None:
                self.node_id, self.registered_at = node_id, when

        return [Node(node_id, when) for when, node_id in reversed(list(enumerate(self.IDS)))]

    def _deliver(self, message: Message) -> str:
        real = message.metadata.dst_node_id
        assert real in self.IDS
        return super()._deliver(message)


def test_partition_ids_stand_for_node_ids_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def note(message: Message, context: Context) -> Message:
        seen.append(context.node_id)
        return Message(RecordDict(), reply_to=message)

    monkeypatch.setattr(
        "flsec.simulations.engines.grid.OwnGrid", type("Other", (), {})
    )  # take the road of Flower's grids
    grid = PartitionGrid(RandomIds(app_of(note), 3), 3, threading.Event())
    assert list(grid.get_node_ids()) == [0, 1, 2]
    grid.selected = [1, 2]
    assert list(grid.get_node_ids()) == [1, 2]
    sent = messages(2, 1)
    replies = list(grid.send_and_receive(sent))
    assert seen == [444, 17]
    assert sorted(r.metadata.src_node_id for r in replies) == [1, 2]
    assert [m.metadata.dst_node_id for m in sent] == [2, 1]  # strategies look up there whom an error is about
    assert {m.metadata.message_id for m in sent} == {r.metadata.reply_to_message_id for r in replies}


def test_missing_clients_are_an_error_after_a_while() -> None:
    with pytest.raises(TimeoutError, match="only 3 of 5 clients"):
        PartitionGrid(grid_of(echo), 5, threading.Event(), patience=0.05)


def test_a_stopped_run_stops_before_the_next_client() -> None:
    stop = threading.Event()
    worked = []

    def work(message: Message, context: Context) -> Message:
        worked.append(context.node_id)
        stop.set()
        return Message(RecordDict(), reply_to=message)

    grid = PartitionGrid(grid_of(work), 3, stop)
    with pytest.raises(Interrupted):
        grid.send_and_receive(messages(0, 1, 2))
    assert worked == [0]
