"""What a client keeps from round to round: in files, in Flower's context, or on itself."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from flsec.client_apps import ClientState, check_states, prune_states, state_folder
from flsec.client_apps._around import flower_context
from flsec.errors import ConfigError
from tests.client_apps.toys import arrays, context, same


@pytest.fixture(params=["folder", "context", "object"])
def at_work(request, tmp_path):
    """Return a function: run something as client i in a round, wherever state is kept."""
    contexts, clients = {}, {}

    def run(client_id, round, work):
        if request.param == "folder":  # a new object and a new context each time, as in another process
            with state_folder(tmp_path / "states"), flower_context(context(client_id)):
                return work(ClientState(SimpleNamespace(), {"server-round": round}))
        if request.param == "context":
            again = pickle.dumps(contexts.get(client_id, context(client_id)))
            contexts[client_id] = pickle.loads(again)  # it travels to the worker and back
            with flower_context(contexts[client_id]):
                return work(ClientState(SimpleNamespace(), {"server-round": round}))
        client = clients.setdefault(client_id, SimpleNamespace(client_id=client_id))
        return work(ClientState(client, {"server-round": round}))

    return run


def test_what_was_saved_is_found_in_later_rounds_bit_for_bit(at_work):
    assert at_work(2, 1, lambda state: state.load("own")) is None
    at_work(2, 1, lambda state: state.save("own", arrays()))
    assert same(at_work(2, 2, lambda state: state.load("own")), arrays())
    assert same(at_work(2, 9, lambda state: state.load("own")), arrays())


def test_names_and_clients_are_apart(at_work):
    for client_id in (0, 1, 12):
        at_work(client_id, 1, lambda state, c=client_id: state.save("own", [np.array(c)]))
        at_work(client_id, 1, lambda state, c=client_id: state.save("own-step", [np.array(c + 100), np.zeros(0)]))
    for client_id in (0, 1, 12):
        assert at_work(client_id, 2, lambda state: state.load("own")) == [client_id]
        assert at_work(client_id, 2, lambda state: state.load("own-step"))[0] == client_id + 100
    assert at_work(2, 2, lambda state: state.load("own")) is None


def test_the_newest_counts_and_a_round_does_not_see_itself_or_the_future(at_work):
    for round in (1, 4):
        at_work(2, round, lambda state, r=round: state.save("own", [np.array(r)]))
    assert at_work(2, 5, lambda state: state.load("own")) == [4]
    assert at_work(2, 4, lambda state: state.load("own")) != [4]
    at_work(2, 4, lambda state: state.save("own", [np.array(44)]))
    assert at_work(2, 5, lambda state: state.load("own")) == [44]


def test_what_is_kept_is_a_copy(at_work):
    ours = [np.zeros(3)]
    at_work(2, 1, lambda state: state.save("own", ours))
    ours[0][:] = 7
    loaded = at_work(2, 2, lambda state: state.load("own"))
    loaded[0][:] = 8
    assert not at_work(2, 2, lambda state: state.load("own"))[0].any()


def test_objects_are_refused(at_work):
    with pytest.raises(TypeError, match="arrays of numbers"):
        at_work(2, 1, lambda state: state.save("own", [np.array([object()])]))
    assert at_work(2, 2, lambda state: state.load("own")) is None


def test_without_rounds_the_last_is_the_last():
    client = SimpleNamespace()
    ClientState(client, {}).save("own", [np.ones(1)])
    assert ClientState(client, {}).load("own") == [1]
    assert ClientState(client, {"server-round": 1}).load("own") == [1]


# ---- files


def at(folder, client_id, round):
    with state_folder(folder):
        return ClientState(SimpleNamespace(client_id=client_id), {"server-round": round})


def test_a_resumed_run_sees_what_was_there_then(tmp_path):
    for round in range(1, 6):
        at(tmp_path, 7, round).save("own", [np.array(round)])
    assert at(tmp_path, 7, 3).load("own") == [2]  # resumed from the checkpoint of round 2
    at(tmp_path, 7, 3).save("own", [np.array(33)])
    assert at(tmp_path, 7, 4).load("own") == [33]


def test_pruning_keeps_what_checkpoints_need(tmp_path):
    for round in (1, 2, 4, 5, 8, 9):
        at(tmp_path, 7, round).save("own", [np.array(round)])
    at(tmp_path, 7, 1).save("other", [np.array(1)])
    at(tmp_path, 8, 1).save("own", [np.array(1)])
    prune_states(tmp_path, [7, 99], [3, 6, 8])  # 99 saved nothing
    assert sorted(path.name for path in (tmp_path / "7").iterdir()) == [
        "other-000001.state",
        "own-000002.state",
        "own-000005.state",
        "own-000008.state",
        "own-000009.state",  # newer than all: of a round in progress
    ]
    for checkpoint, expected in ((3, 2), (6, 5), (8, 8)):
        assert at(tmp_path, 7, checkpoint + 1).load("own") == [expected]
        assert at(tmp_path, 7, checkpoint + 1).load("other") == [1]
    prune_states(tmp_path, [7, 8], [9])
    assert [path.name for path in sorted((tmp_path / "7").iterdir())] == ["other-000001.state", "own-000009.state"]
    assert at(tmp_path, 8, 10).load("own") == [1]
    prune_states(tmp_path, [7], [])
    assert at(tmp_path, 7, 10).load("own") == [9]


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path, monkeypatch):
    at(tmp_path, 7, 1).save("own", [np.ones(2)])

    def half(file, *arrays):
        file.write(b"PK")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        for round in (1, 2):
            with pytest.raises(OSError, match="disk full"):
                at(tmp_path, 7, round).save("own", [np.zeros(2)])
    assert same(at(tmp_path, 7, 3).load("own"), [np.ones(2)])


def test_nothing_is_made_before_something_is_saved(tmp_path):
    assert at(tmp_path / "states", 7, 1).load("own") is None
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize(("client_id", "round"), [(None, 1), (3, 0)])
def test_who_and_when_must_be_known(tmp_path, client_id, round):
    with pytest.raises(ConfigError, match="partition id and the server's round"):
        at(tmp_path, client_id, round)


def test_a_folder_is_for_a_while_and_none_changes_nothing(tmp_path):
    client = SimpleNamespace(client_id=1)
    with state_folder(tmp_path), state_folder(None):
        ClientState(client, {"server-round": 1}).save("own", [np.ones(1)])
    assert (tmp_path / "1").is_dir()
    assert ClientState(client, {"server-round": 2}).load("own") is None


def test_files_are_the_owners_and_damage_is_noticed(tmp_path):
    at(tmp_path / "states", 7, 1).save("own", [np.arange(3)])
    at(tmp_path / "states", 7, 4).save("own", [np.arange(4)])
    at(tmp_path / "states", 8, 2).save("own", [np.arange(5)])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.pop("states") == modes.pop("7") == modes.pop("8") == 0o700
    assert set(modes.values()) == {0o600}
    path = tmp_path / "states/7/own-000004.state"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"what client 7 has kept is lost: own-000004\.state .* cut off"):
        at(tmp_path / "states", 7, 5).load("own")
    assert len(at(tmp_path / "states", 7, 4).load("own")[0]) == 3
    for round in range(4):
        check_states(tmp_path / "states", round)
    with pytest.raises(ValueError, match=r"what client 7 has kept: own-000004\.state"):
        check_states(tmp_path / "states", 4)
    check_states(tmp_path / "none", 4)
