"""Nodes of a deployment by what they say of themselves, whatever they do."""

import itertools
import logging
import threading
import time
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from flsec._contracts.server import identify
from flsec.client_apps.partition import QUESTION
from flsec.errors import ConfigError
from flsec.simulations.engines import seats
from flsec.simulations.engines.grid import PartitionGrid
from flsec.strategies import partition_ids
from tests.support.deployed import IDS, Deployed, Node, UnreadableReply, deployed, echo, silent


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    identify()
    monkeypatch.setattr(seats, "_PAUSE", 0.01)


def view(grid: Deployed, num_clients: int = 4, timeout: float = 0.2) -> PartitionGrid:
    return PartitionGrid(grid, num_clients, threading.Event(), 0.2, asks=True, timeout=timeout)


def seated(grid: PartitionGrid, num_clients: int = 4) -> list[int | None]:
    return [grid._seats.node_of(partition) for partition in range(num_clients)]


def train(grid: PartitionGrid, *partitions: int, timeout: float = 0.2) -> dict[int, Message]:
    """Return the replies of one round, by the partition that they are signed by."""
    grid.selected = partitions
    messages = [Message(RecordDict(), partition, "train") for partition in partitions]
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    assert len({reply.metadata.src_node_id for reply in replies}) == len(replies)
    for message in messages:  # strategies look up there whom they have asked
        assert message.metadata.dst_node_id in partitions
        assert message.metadata.message_id
    answered = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    for reply in replies:
        assert answered[reply.metadata.reply_to_message_id] == reply.metadata.src_node_id
    return {reply.metadata.src_node_id: reply for reply in replies}


def sound(replies: dict[int, Message]) -> set[int]:
    return {partition for partition, reply in replies.items() if not reply.has_error()}


# --- who is who -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_registration_says_nothing(order: tuple[int, ...]) -> None:
    grid = deployed(*order)
    right = [IDS[order.index(partition)] for partition in range(4)]
    assert seated(view(grid)) == right
    assert partition_ids(grid) == {node_id: right.index(node_id) for node_id in right}
    assert all(node.asked == [QUESTION] * 2 for node in grid.nodes.values())  # once each


WRONG = {
    "a duplicate and a gap": (
        (0, 1, 1, 3),
        [r"partition 1 is claimed by nodes 17, 4611686018427387909", "partition 2"],
    ),
    "two duplicates": (
        (0, 0, 3, 3),
        ["partition 0 is claimed", "partition 3 is claimed", "no node has partition 1, 2"],
    ),
    "nothing": ((0, None, 2, 3), [r"node 17 has partition-id no instead of one of 0 to 3", "no node has partition 1"]),
    "too high": ((0, 4, 2, 3), ["node 17 has partition-id 4"]),
    "too low": ((0, -1, 2, 3), ["node 17 has partition-id -1"]),
    "a fraction": ((0, 1.0, 2, 3), ["node 17 has partition-id 1.0"]),
    "a text": ((0, "1", 2, 3), ["node 17 has partition-id '1'"]),
    "true": ((0, True, 2, 3), ["node 17 has partition-id True"]),
}


@pytest.mark.parametrize(("said", "words"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("ask", [view, lambda grid: partition_ids(grid)], ids=["server", "helper"])
def test_what_contradicts_itself_is_one_error_that_lists_everything(said: Any, words: list[str], ask: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(deployed(*said))
    for part in (*words, "They said: ", "--node-config 'partition-id=0 num-partitions=4'"):
        assert part in str(caught.value)
    for node_id in IDS[:4]:
        assert f"{node_id}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_number_of_partitions_is_refused() -> None:
    grid = deployed(0, 1, 2, 3, count=5)
    with pytest.raises(ConfigError, match="node 17 counts 5 partitions instead of 4; node 903 counts 5"):
        view(grid)
    with pytest.raises(ConfigError, match="counts 5 partitions instead of 4"):
        partition_ids(grid)
    with pytest.raises(ConfigError, match="no node has partition 4"):
        partition_ids(grid, num_partitions=5)
    for node in grid.nodes.values():
        del node.config["num-partitions"]  # who says nothing of it contradicts nobody
    assert len(partition_ids(grid)) == 4


def test_too_few_nodes_are_an_error_after_a_while() -> None:
    with pytest.raises(ConfigError, match=r"no node has partition 2, 3\. They said: 17: partition-id=1"):
        view(deployed(0, 1, count=4))
    with pytest.raises(ConfigError, match="nothing, none is connected"):
        view(Deployed())


def test_a_node_that_comes_before_the_start_is_waited_for() -> None:
    grid = deployed(3, 1, 0, count=4)
    late = Node(IDS[3], {"partition-id": 2, "num-partitions": 4}, echo())
    threading.Timer(0.1, lambda: grid.nodes.__setitem__(late.node_id, late)).start()
    found = PartitionGrid(grid, 4, threading.Event(), 10.0, asks=True)
    assert seated(found) == [IDS[2], IDS[1], IDS[3], IDS[0]]


# --- what goes wrong ----------------------------------------------------------------------------------------------


def garbage(message: Message, context: Any) -> Message:
    return Message(RecordDict({"partition": ConfigRecord({"partition-id": [1, 2]})}), reply_to=message)


def no_content(message: Message, context: Any) -> Message:
    reply = Message(RecordDict(), reply_to=message)
    reply.__dict__["_content"] = None
    return reply


def unreadable(message: Message, context: Any) -> Message:
    raise UnreadableReply("bytes that are no message")


def raising(message: Message, context: Any) -> Message:
    raise RuntimeError("broken")


@pytest.mark.parametrize("client", [silent, raising, unreadable, no_content])
def test_a_client_that_fails_at_the_start_costs_itself_alone_and_may_come_back(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid = deployed(2, 0, 3, 1)
    grid.nodes[17].client = client
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "flsec"):
        found = view(grid)
    assert time.monotonic() - started < 2
    assert [record.getMessage() for record in caplog.records if "starting without partitions [0]" in record.message]
    replies = train(found, 0, 1, 2, 3)
    assert sound(replies) == {1, 2, 3}
    assert "no connected node has this partition" in replies[0].error.reason
    grid.nodes[17].client = echo()
    time.sleep(0.25)  # the question that it was asked meanwhile is given up
    train(found, 1)  # asked again
    train(found, 1)  # and heard, at the latest
    assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}


def test_an_answer_that_is_nonsense_is_said() -> None:
    grid = deployed(2, 0, 3, 1)
    grid.nodes[17].client = garbage
    with pytest.raises(ConfigError, match=r"node 17 has partition-id \[1, 2\]"):
        view(grid)


def test_where_nobody_answers_nothing_starts() -> None:
    grid = deployed(0, 1, 2, 3)
    for node in grid.nodes.values():
        node.client = raising
    with pytest.raises(ConfigError, match=r"gave no answer \(RuntimeError: broken\)"):
        view(grid)
    with pytest.raises(ConfigError, match=r"gave no answer \(RuntimeError: broken\)"):
        partition_ids(grid)


@pytest.mark.parametrize("client", [silent, raising, unreadable, no_content])
def test_a_client_that_fails_in_a_round_costs_itself_alone(client: Any) -> None:
    grid = deployed(2, 0, 3, 1)
    found = view(grid)
    grid.nodes[17].client = client
    started = time.monotonic()
    replies = train(found, 0, 1, 2, 3, timeout=0.3)
    assert time.monotonic() - started < 2
    assert {1, 2, 3} <= set(replies) <= {0, 1, 2, 3}
    assert sound(replies) - {0} == {1, 2, 3}
    assert found._sent == {}  # nothing is left of what never came
    grid.nodes[17].client = echo()
    assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}


def test_an_error_of_the_superlink_is_that_of_the_client_it_is_about() -> None:
    grid = deployed(2, 0, 3, 1)
    found = view(grid)
    grid.nodes[17].online = False
    replies = train(found, 0, 1, 2, 3)
    assert sorted(replies) == [0, 1, 2, 3]
    assert replies[0].error.reason == "Node Unavailable"
    grid.nodes[17].restart()
    train(found, 1)
    assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}


def test_a_reply_that_stops_half_way_keeps_nobody_waiting() -> None:
    grid = deployed(2, 0, 3, 1)
    found = view(grid)
    stuck, pull = threading.Event(), grid.pull_messages

    def slow(message_ids: Any) -> Any:  # the second to be asked for, whoever that is
        if list(message_ids) == [blocked]:
            stuck.wait(20)
            return []
        return pull(message_ids)

    blocked = f"message-{grid._count + 2}"
    grid.pull_messages = slow  # type: ignore[method-assign]
    started = time.monotonic()
    replies = train(found, 0, 1, 2, 3, timeout=3.0)
    assert time.monotonic() - started < 10
    assert sound(replies) == {0, 2, 3}
    stuck.set()
    assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}


def test_the_superlink_that_cannot_be_reached_is_no_clients_fault() -> None:
    import httpx

    grid = deployed(0, 1, 2, 3)
    found = view(grid)

    def lost(message_ids: Any) -> Any:
        raise httpx.ConnectError("refused")

    grid.pull_messages = lost  # type: ignore[method-assign]
    with pytest.raises(httpx.ConnectError):
        train(found, 0)


def test_another_key_takes_a_place_only_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    grid = deployed(0, 1, 2, 3)
    found = view(grid)
    newcomer = Node(77, {"partition-id": 1, "num-partitions": 4}, echo())
    grid.nodes[77] = newcomer
    with caplog.at_level(logging.WARNING, "flsec"):
        for _ in range(3):
            train(found, 0, 1)
    assert [r.getMessage() for r in caplog.records] == ["node 77 has no place: it says partition-id=1 num-partitions=4"]
    caplog.clear()
    assert seated(found) == list(IDS[:4])
    assert "train" not in newcomer.asked
    grid.nodes[17].online = False
    with caplog.at_level(logging.WARNING, "flsec"):
        assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}
    assert seated(found) == [IDS[0], 77, *IDS[2:4]]
    assert [record.getMessage() for record in caplog.records] == ["partition 1: node 77 takes the place of node 17"]
    grid.nodes[17].restart()  # it has to wait now
    for _ in range(3):
        assert sound(train(found, 0, 1, 2, 3)) == {0, 1, 2, 3}
    assert seated(found)[1] == 77


def test_a_supernode_that_is_started_anew_is_asked_anew() -> None:
    grid = deployed(0, 1, 2, 3)
    found = view(grid)
    first, second = grid.nodes[IDS[0]], grid.nodes[IDS[1]]
    first.restart(**{"partition-id": 1})
    second.restart(**{"partition-id": 0})
    train(found, 2)
    train(found, 2)
    assert seated(found) == [IDS[1], IDS[0], *IDS[2:4]]


def test_nothing_is_kept_of_nodes_that_come_and_go() -> None:
    grid = deployed(0, 1, 2, 3)
    found = view(grid)
    kinds = [echo(), silent, raising, garbage]
    for node_id in range(1000, 1040):
        grid.nodes[node_id] = Node(node_id, {"partition-id": node_id % 6}, kinds[node_id % 4])
        train(found, 0)
        grid.nodes[node_id].online = False
    train(found, 0)
    assert seated(found) == list(IDS[:4])
    assert set(found._seats._claims) == set(found._seats._started) == set(IDS[:4])  # type: ignore[union-attr]
    assert found._seats._asked == found._pulls._running == {}  # type: ignore[union-attr]


def test_messages_do_not_outlive_their_round() -> None:
    grid = deployed(0, 1, 2, 3)
    found = view(grid)
    seen = []
    grid.nodes[17].client = lambda message, context: seen.append(message.metadata.ttl)  # type: ignore[func-returns-value]
    train(found, 1, timeout=0.25)
    assert 0.25 < seen[0] < 10


def test_a_forged_sender_is_not_believed() -> None:
    def forge(message: Message, context: Any) -> Message:
        reply = Message(Error(2, "I am somebody else"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = IDS[2]
        return reply

    grid = deployed(0, 1, 2, 3)
    found = view(grid)
    grid.nodes[17].client = forge
    replies = train(found, 0, 1, 2, 3)
    assert sound(replies) == {0, 2, 3}
