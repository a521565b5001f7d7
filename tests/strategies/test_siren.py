"""The Siren wrapper through real rounds of both Flower APIs: alarms, going back, bans, the delayed start, resuming."""

import numpy as np
import pytest
import torch

from flsec._contracts.server import (
    FLOWER,
    MODEL,
    ClassicServer,
    MessageServer,
    Reply,
    flower_strategy,
    identify,
    npy_bytes,
)
from flsec._state_files import load_state, save_state
from flsec.errors import ConfigError
from flsec.strategies import CenteredClipping, Krum, Median, Siren
from flsec.strategies.siren import _alarms

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
CLIENTS = (3, 5, 8, 2**60 + 1, 2**63 + 7)


class Network(torch.nn.Module):
    """Its accuracy on the root set is what its bias[3] says, in steps of 0.01."""

    def __init__(self):
        super().__init__()
        for name, array in MODEL.items():
            value = torch.from_numpy(array.copy())
            if value.is_floating_point():
                self.register_parameter(name, torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, x):
        return torch.stack([x[:, 0] - self.bias[3], torch.zeros(len(x))], dim=1)


ROOT = (torch.arange(100.0)[:, None] / 100 + 0.001, torch.ones(100, dtype=torch.int64))


@pytest.fixture(autouse=True)
def _flower_process():
    identify()


def siren(api="Message", flower="FedAvg", inner=None, **options):
    strategy = flower_strategy(api, flower, len(CLIENTS))
    strategy = strategy if inner is None else inner(strategy)
    return Siren(strategy, root_data=ROOT, model_factory=Network, **options)


def server(api="Message", flower="FedAvg", **options):
    return SERVERS[api](siren(api, flower, **options), CLIENTS)


def reply(shift, accuracy, alarm, sent=None, **changes):
    """A client's model: the initial one (or the one sent) with everything shifted, and an accuracy of its own."""
    base = list(MODEL.values()) if sent is None else sent
    arrays = [(a + shift).astype(a.dtype) if a.dtype.kind == "f" else a + 1 for a in base]
    arrays[1][3] = accuracy
    return Reply(tuple(map(npy_bytes, arrays)), 10, {"train-loss": 0.5, "siren-alarm": alarm}, **changes)


def same_for_all(shift, accuracy=0.8, alarm=0):
    return lambda round, client_id, arrays: [reply(shift, accuracy, alarm)]


def by_client(*plans):
    """Each client's (shift, accuracy, alarm), in the order of their ids; None sends nothing."""
    chosen = dict(zip(CLIENTS, plans, strict=True))
    return lambda round, client_id, arrays: [] if chosen[client_id] is None else [reply(*chosen[client_id])]


def notes(server):
    return server.strategy.last_report.verdicts[0].notes


def kept(server):
    return server.strategy.last_report.verdicts[0].kept


def same(a, b):
    assert all(np.array_equal(x, y) for x, y in zip(a.arrays, b.arrays, strict=True))
    assert [x.dtype for x in a.arrays] == [x.dtype for x in b.arrays]


# ---- the cases


@pytest.mark.parametrize("api", SERVERS)
def test_the_four_cases_in_one_run(api):
    run = server(api, penalty_threshold=None)
    run.play([1], same_for_all(0.1))  # case 1
    assert notes(run)["case"] == "case 1 or 2: no alarm"
    assert kept(run) == CLIENTS

    run.play([2], by_client((0.2, 0.8, 0), (-9.0, 0.1, 0), (-9.0, 0.1, 0), (-9.0, 0.1, 0), (-9.0, 0.1, 0)))  # case 2
    assert notes(run)["case"] == "case 1 or 2: no alarm"
    assert notes(run)["accuracies"] == {}
    assert run.arrays[0].max() < -5

    # case 4: the honest one alarms, and so does one of the attackers
    run.play([3], by_client((0.3, 0.8, 1), (-20.0, 0.1, 1), (-20.0, 0.1, 0), (-20.0, 0.1, 0), (-20.0, 0.1, 0)))
    assert notes(run)["case"] == "case 4: differing alarming clients"
    assert notes(run)["previous_round"] == "case 2: poisoned updates, no alarm"
    assert notes(run)["rolled_back"]
    assert notes(run)["alarms"] == [3, 5]
    assert notes(run)["accuracies"] == {3: 0.8, 5: 0.1}  # the silent ones need no evaluation
    assert kept(run) == (3,)
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.3), atol=1e-6)

    # case 3, false alarms: the model stays
    run.play([4], by_client((0.4, 0.8, 0), (0.0, 0.1, 1), (0.0, 0.1, 1), (0.4, 0.75, 0), (0.4, 0.1, 0)))
    assert notes(run)["case"] == "case 3: alike alarming clients, false alarms"
    assert not notes(run)["rolled_back"]
    assert kept(run) == (3, CLIENTS[3])
    assert notes(run)["dropped"] == {
        5: "false alarm",
        8: "false alarm",
        CLIENTS[4]: "accuracy 0.100, the best has 0.800",
    }

    # case 3, true alarms
    run.play([5], by_client((0.5, 0.8, 1), (-9.0, 0.1, 0), (-9.0, 0.1, 0), (0.7, 0.75, 1), (-9.0, 0.1, 0)))
    assert notes(run)["case"] == "case 3: alike alarming clients, silent ones malicious"
    assert "previous_round" not in notes(run)
    assert kept(run) == (3, CLIENTS[3])
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.6), atol=1e-6)
    assert notes(run)["penalties"] == {5: 3.0, 8: 3.0, CLIENTS[3]: 1.0, CLIENTS[4]: 3.0}


def test_plain_averaging_is_poisoned_by_the_same_round():
    run = MessageServer(flower_strategy("Message", "FedAvg", len(CLIENTS)), CLIENTS)
    plan = by_client((0.3, 0.8, 1), (-20.0, 0.1, 1), (-20.0, 0.1, 0), (-20.0, 0.1, 0), (-20.0, 0.1, 0))
    assert run.play([1], plan).arrays[0].max() < -10


# ---- going back


@pytest.mark.parametrize("flower", FLOWER)
@pytest.mark.parametrize("api", SERVERS)
def test_going_back_undoes_the_poisoned_round_and_the_server_optimizers_step(api, flower):
    """The run with a poisoned round 2 ends in round 3 as one that had no round 2."""
    poisoned = server(api, flower).play([1], same_for_all(0.1))
    sound = poisoned.arrays[0]
    poisoned.play([2], same_for_all(-30.0))
    assert (poisoned.arrays[0] < sound).all()
    poisoned.play([3], same_for_all(0.3, alarm=1))
    assert notes(poisoned)["rolled_back"]
    spared = server(api, flower).play([1], same_for_all(0.1)).play([3], same_for_all(0.3))
    same(poisoned, spared)
    for run in (poisoned, spared):  # and so it goes on
        run.play([4], same_for_all(0.4)).play([5], same_for_all(0.5))
    same(poisoned, spared)


@pytest.mark.parametrize("api", SERVERS)
def test_the_printed_rollback_adds_updates_measured_against_the_poisoned_model(api):
    run = server(api, rollback="paper").play([1], same_for_all(0.1, accuracy=0.5)).play([2], same_for_all(-3.0))
    run.play([3], same_for_all(0.3, alarm=1))
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.1 + (0.3 + 3.0)), atol=1e-5)


@pytest.mark.parametrize("api", SERVERS)
def test_two_rollbacks_in_a_row_go_back_to_the_same_model(api):
    run = server(api, "FedAvgM").play([1], same_for_all(0.1)).play([2], same_for_all(-30.0))
    run.play([3], same_for_all(-20.0, alarm=1)).play([4], same_for_all(0.3, alarm=1))
    spared = server(api, "FedAvgM").play([1], same_for_all(0.1)).play([4], same_for_all(0.3))
    same(run, spared)


@pytest.mark.parametrize("flower", FLOWER)
@pytest.mark.parametrize("api", SERVERS)
def test_the_earlier_model_takes_the_place_if_a_defense_inside_keeps_nobody(api, flower):
    """Krum inside needs five replies; the model must not stay the poisoned one."""
    run = server(api, flower, inner=lambda s: Krum(s, num_byzantine=1))
    run.play([1], same_for_all(0.1))
    sound = run.arrays
    run.play([2], same_for_all(-30.0))
    poisoned = run.arrays
    run.play([3], by_client((0.3, 0.8, 1), (-9, 0.1, 1), (-9, 0.1, 1), (-9, 0.1, 0), (-9, 0.1, 0)))
    assert "Krum needs at least 5" in run.strategy.last_report.kept_previous_model
    floats = [i for i, array in enumerate(sound) if array.dtype.kind == "f"]
    assert all(np.array_equal(run.arrays[i], sound[i]) for i in floats)
    assert not np.array_equal(run.arrays[0], poisoned[0])
    run.play([4], same_for_all(0.4))
    spared = server(api, flower, inner=lambda s: Krum(s, num_byzantine=1))
    spared.play([1], same_for_all(0.1)).play([4], same_for_all(0.4))
    same(run, spared)


@pytest.mark.parametrize("api", SERVERS)
def test_defenses_inside_see_updates_measured_against_the_earlier_model(api):
    seen = []

    class Spy(Median):
        def on_aggregation(self, cohort):
            seen.append(cohort)
            return super().on_aggregation(cohort)

    run = server(api, inner=Spy).play([1], same_for_all(0.1)).play([2], same_for_all(-3.0))
    run.play([3], same_for_all(0.3, alarm=1))
    assert torch.equal(seen[-1].global_parameters, seen[-2].global_parameters)
    weights = seen[-1].updates[:, :12]
    np.testing.assert_allclose(weights, 0.3 - 0.1, atol=1e-5)
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.3), atol=1e-5)


def test_an_alarm_in_the_first_round_has_nothing_to_go_back_to():
    run = server().play([1], same_for_all(0.3, alarm=1))
    assert notes(run)["case"].startswith("case 3")
    assert not notes(run)["rolled_back"]
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.3), atol=1e-6)


def test_clients_learn_their_settings_and_that_the_server_went_back():
    for api in SERVERS:
        run = server(
            api,
            held_out=0.2,
            client_tolerance=0.05,
            alarm_rule="relative",
            inner=lambda s: CenteredClipping(s, radius=5.0),
        )
        expected = {"siren-held-out": 0.2, "siren-client-tolerance": 0.05, "siren-alarm-rule": "relative"}
        for number, alarm, before in [(1, 0, 0), (2, 1, 0), (3, 0, 1), (4, 0, 0)]:
            run.play([number], same_for_all(0.1 * number, alarm=alarm))
            for config in run.configs.values():
                assert {**config, **expected, "siren-rolled-back": before, "server-round": number} == config


# ---- what a hostile client can say


@pytest.mark.parametrize("alarm", [0, 2, -1, 0.5, float("nan"), float("inf"), 10**12])
def test_only_a_one_is_an_alarm(alarm):
    run = server().play([1, 2], same_for_all(0.1, alarm=alarm))
    assert notes(run)["alarms"] == []
    assert server().play([1, 2], same_for_all(0.1, alarm=1.0)).strategy.last_case.startswith("case 3")


@pytest.mark.parametrize("alarm", ["1", True, b"1", None])
def test_alarms_that_only_the_classic_api_can_carry(alarm):
    assert _alarms({"siren-alarm": alarm}) is (alarm is True)
    assert not _alarms({})
    assert not _alarms({"siren-alarm": [1]})
    assert not _alarms({"siren-alarm": object()})


# ---- bans


@pytest.mark.parametrize("api", SERVERS)
def test_an_attacker_is_banned_and_a_misjudged_client_comes_back(api):
    run = server(api)  # C_p = 0.45 * 5 = 2.25 verdicts
    attacked = by_client((0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 1), (0.2, 0.8, 0), (0.2, 0.55, 0))
    run.play([1, 2], attacked)
    assert notes(run)["banned"] == []
    run.play([3], attacked)
    assert notes(run)["banned"] == [8, CLIENTS[4]]
    improved = by_client((0.3, 0.8, 0), (0.3, 0.8, 0), (-9, 0.1, 1), (0.3, 0.8, 0), (0.3, 0.75, 0))
    run.play([4], improved)
    assert notes(run)["case"] == "case 1 or 2: no alarm"  # a banned client's alarm does not count
    assert kept(run) == (3, 5, CLIENTS[3])
    assert notes(run)["dropped"] == {8: "banned", CLIENTS[4]: "banned"}
    run.play([5], improved)
    assert notes(run)["penalties"] == {8: 5.0, CLIENTS[4]: 2.0}
    run.play([6], improved)
    assert kept(run) == (3, 5, CLIENTS[3], CLIENTS[4])
    assert notes(run)["banned"] == [8]


def test_a_banned_client_that_goes_on_sending_is_not_forgotten():
    run = server(max_clients=1, award=0.0)  # banned clients are not judged again, but they are seen
    run.play([1, 2, 3], by_client((0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 1), (0.2, 0.8, 0), (0.2, 0.8, 0)))
    assert run.strategy.banned == (8,)
    assert "forgotten" not in notes(run)
    run.play([4, 5], by_client((0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 1), (0.2, 0.8, 0), (0.2, 0.8, 0)))
    assert run.strategy.banned == (8,)
    # one that stays away is, when others are judged malicious: 3 for a false alarm, and 5
    run.play([6], by_client((0.3, 0.8, 1), (-9, 0.1, 0), None, (0.3, 0.8, 0), (0.3, 0.8, 0)))
    assert run.strategy.penalties == {5: 1.0}
    assert run.strategy.banned == ()
    assert notes(run)["forgotten"] == 2


def test_without_an_award_nobody_comes_back_and_the_banned_are_not_evaluated():
    run = server(award=0.0, penalty_threshold=0.1)
    run.play([1], by_client((0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 1), (0.2, 0.8, 0), (0.2, 0.8, 0)))
    run.play([2, 3, 4], same_for_all(0.3))
    assert kept(run) == (3, 5, *CLIENTS[3:])
    assert notes(run)["accuracies"] == {}


@pytest.mark.parametrize("api", SERVERS)
def test_if_only_banned_clients_reply_the_model_is_kept(api):
    run = server(api, penalty_threshold=0.0)
    run.play([1], by_client((0.2, 0.8, 0), (-9, 0.1, 1), None, None, None))
    before = run.arrays
    run.play([2], by_client(None, (0.3, 0.8, 0), None, None, None))
    assert run.strategy.last_report.kept_previous_model == "Siren: accepted no client"
    assert all(np.array_equal(a, b) for a, b in zip(run.arrays, before, strict=True))
    run.play([3], same_for_all(0.4))
    assert kept(run) == (3, 8, *CLIENTS[3:])


@pytest.mark.parametrize("api", SERVERS)
def test_verdicts_follow_the_client_through_rounds_with_other_participants(api):
    run = server(api, penalty_threshold=0.34)  # with three replies C_p is 1.02, with two 0.68
    run.play([1], by_client((0.2, 0.8, 0), (-9, 0.1, 1), (0.2, 0.8, 0), None, None))
    run.play([2], by_client(None, None, (0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 1)))
    assert run.strategy.penalties == {5: 1.0, CLIENTS[4]: 1.0}
    run.play([3], by_client((0.2, 0.8, 0), (-9, 0.1, 1), None, (0.2, 0.8, 0), None))
    assert run.strategy.penalties == {5: 2.0, CLIENTS[4]: 1.0}
    assert run.strategy.banned == (5,)
    run.play([4], by_client(None, (0.2, 0.8, 1), None, None, (0.2, 0.8, 0)))
    assert kept(run) == (CLIENTS[4],)


# ---- the delayed start


@pytest.mark.parametrize("api", SERVERS)
def test_until_its_start_the_server_averages_and_then_it_recovers(api):
    run = server(api, start_round=3)
    run.play([1, 2], by_client((0.2, 0.8, 1), (0.2, 0.8, 1), (-9, 0.1, 1), (-9, 0.1, 0), (-9, 0.1, 0)))
    assert notes(run) == {"case": "not started"}
    assert kept(run) == CLIENTS
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32((2 * 0.2 - 27) / 5), atol=1e-5)
    run.play([3], by_client((0.2, 0.8, 1), (0.2, 0.8, 1), (-9, 0.1, 1), (-9, 0.1, 0), (-9, 0.1, 0)))
    assert notes(run)["rolled_back"]
    np.testing.assert_allclose(run.arrays[0], MODEL["weight"] + np.float32(0.2), atol=1e-5)


# ---- state


@pytest.mark.parametrize("flower", ["FedAvg", "FedAdam", "FedAvgM"])
@pytest.mark.parametrize("api", SERVERS)
def test_a_resumed_run_goes_back_to_the_same_model_and_bans_the_same_clients(api, flower, tmp_path):
    plans = [
        by_client((0.1, 0.8, 0), (0.1, 0.8, 0), (-9, 0.1, 1), (0.1, 0.8, 0), (0.1, 0.8, 0)),
        by_client((0.2, 0.8, 0), (0.2, 0.8, 0), (-9, 0.1, 0), (-9, 0.1, 0), (-9, 0.1, 0)),
        by_client((0.3, 0.8, 1), (0.3, 0.8, 1), (-9, 0.1, 1), (-9, 0.1, 0), (-9, 0.1, 0)),
        by_client((0.4, 0.8, 0), (0.4, 0.8, 0), (-9, 0.1, 1), (-9, 0.1, 0), (-9, 0.1, 0)),
        by_client((0.5, 0.8, 1), (0.5, 0.8, 1), (-9, 0.1, 1), (-9, 0.1, 1), (0.5, 0.8, 0)),
    ]
    whole = server(api, flower)
    for done, plan in enumerate(plans, start=1):
        whole.play([done], plan)
        save_state(tmp_path / f"{done}", [whole.arrays, whole.strategy.state_dict()])
    assert whole.strategy.banned
    for done in range(1, len(plans)):
        resumed = server(api, flower)
        arrays, state = load_state(tmp_path / f"{done}")
        resumed.tensors = [npy_bytes(array) for array in arrays]
        resumed.strategy.load_state_dict(state)
        for number in range(done + 1, len(plans) + 1):
            resumed.play([number], plans[number - 1])
        same(resumed, whole)
        assert resumed.strategy.penalties == whole.strategy.penalties
        assert notes(resumed) == notes(whole)


def test_the_memory_is_no_alias_of_the_round():
    strategy = siren()
    run = MessageServer(strategy, CLIENTS).play([1], same_for_all(0.1))
    state = strategy.state_dict()
    state["state"]["earlier"]["parameters"].zero_()
    assert strategy.earlier["parameters"].abs().sum() > 0
    run.play([2], same_for_all(0.2))
    assert strategy.penalties == {}


# ---- settings


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="root_data must be"):
        Siren(
            flower_strategy("classic", "FedAvg", 2),
            root_data=(torch.zeros(0, 1), torch.zeros(0)),
            model_factory=Network,
        )
    for options in ({"server_tolerance": 0.0}, {"award": -1.0}, {"start_round": 0}, {"rollback": "never"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            siren(**options)


def test_a_factory_of_another_model_is_named_when_it_matters():
    strategy = Siren(
        flower_strategy("Message", "FedAvg", len(CLIENTS)), root_data=ROOT, model_factory=lambda: torch.nn.Linear(1, 2)
    )
    run = MessageServer(strategy, CLIENTS)
    with pytest.raises(ConfigError, match="model_factory"):
        run.play([1], same_for_all(0.1, alarm=1))
