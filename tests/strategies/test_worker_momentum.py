import copy

import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._contracts.server import flower_strategy, identify
from flsec._state_files import load_state, save_state
from flsec.errors import ConfigError
from flsec.strategies import Bucketing, CenteredClipping, Krum, Median, WorkerMomentum
from tests.strategies.test_pre_aggregation import assert_resumes
from tests.support.boundary import both_apis, nan, play, sends
from tests.support.cohorts import SIZE, cohort

N = 11


def updates(seed, n):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def test_momenta_are_kept_by_client_id_with_other_clients_in_each_round():
    defense, known = WorkerMomentum(FedAvg(), beta=0.8), {}
    rounds = [((4, 9, 11), updates(1, 3)), ((9, 30), updates(2, 2)), ((4, 9, 11, 30), updates(3, 4))]
    for number, (ids, rows) in enumerate(rounds, start=1):
        given = cohort(rows, ids, round=number)
        result = defense.before_aggregation(given)
        for client_id, row in zip(ids, rows.double(), strict=True):
            known[client_id] = 0.8 * known[client_id] + 0.2 * row if client_id in known else row
        expected = torch.stack([known[client_id] for client_id in ids])
        torch.testing.assert_close(result.updates.double(), expected, rtol=1e-6, atol=1e-6)
        assert result.client_ids == ids
        assert result.modified
    assert set(defense.by_client) == {4, 9, 11, 30}


def test_memory_aliases_nothing_and_the_updates_are_left_alone():
    defense, rows = WorkerMomentum(FedAvg()), updates(4, 3)
    before = rows.clone()
    first = defense.before_aggregation(cohort(rows))
    state = defense.state_dict()
    frozen = copy.deepcopy(state)
    rows.zero_()
    first.updates.zero_()
    torch.testing.assert_close(torch.stack(list(defense.by_client.values())), before)
    defense.before_aggregation(cohort(-before))
    assert torch.equal(state["state"]["by_client"][0], frozen["state"]["by_client"][0])


def test_who_was_away_longest_is_forgotten_first_and_begins_anew():
    defense = WorkerMomentum(FedAvg(), max_clients=3)
    defense.before_aggregation(cohort(updates(1, 3), (4, 6, 9)))
    assert "forgotten" not in defense._facts
    defense.before_aggregation(cohort(updates(2, 2), (4, 20), round=2))
    assert list(defense.by_client) == [9, 4, 20]
    assert defense._facts["forgotten"] == 1
    rows = updates(3, 1)
    torch.testing.assert_close(defense.before_aggregation(cohort(rows, (6,), round=3)).updates, rows)


def test_it_shows_attackers_who_hide_in_the_noise_of_each_round():
    """Small against the noise of a round, but always the same way."""
    direction = torch.ones(SIZE) / SIZE**0.5
    defense = WorkerMomentum(FedAvg(), beta=0.95)
    for number in range(1, 101):
        rows = updates(number, 20)
        rows[:4] += 2.5 * direction
        momenta = defense.before_aggregation(cohort(rows, round=number)).updates

    def shown(rows):
        along = rows @ direction
        return float(along[:4].mean() - along[4:].mean()) / float(rows[4:].norm(dim=1).mean())

    assert shown(momenta) > 2 * shown(rows)


@both_apis
def test_a_quarantined_update_leaves_the_momentum_as_it_is(api):
    identify()
    strategy = WorkerMomentum(Krum(flower_strategy(api, "FedAvg", N), num_byzantine=2))
    server = play(api, strategy, N, [1])
    before = {i: momentum.clone() for i, momentum in strategy.by_client.items()}
    server.play([2], sends({3: nan}))
    assert torch.equal(strategy.by_client[3], before[3])
    assert not torch.equal(strategy.by_client[4], before[4])
    assert all(momentum.isfinite().all() for momentum in strategy.by_client.values())


@both_apis
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(api):
    identify()
    assert_resumes(api, lambda: WorkerMomentum(CenteredClipping(flower_strategy(api, "FedAdam", N), radius=0.5)))


def test_a_checkpoint_keeps_the_order_of_forgetting(tmp_path):
    straight, resumed = (WorkerMomentum(FedAvg(), max_clients=3) for _ in range(2))
    for number, ids in enumerate([(1, 2, 9), (1, 5), (9,)], start=1):
        straight.before_aggregation(cohort(updates(number, len(ids)), ids, round=number))
    save_state(tmp_path / "state.safetensors", straight.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "state.safetensors"))
    for defense in (straight, resumed):
        defense.before_aggregation(cohort(updates(7, 2), (2, 7), round=4))
    assert list(straight.by_client) == list(resumed.by_client) == [9, 2, 7]
    assert all(torch.equal(straight.by_client[i], resumed.by_client[i]) for i in straight.by_client)


def test_it_stands_outside_of_buckets():
    """As Karimireddy et al. (2022) do: momenta of clients, then buckets of these."""
    identify()
    WorkerMomentum(Bucketing(Median(FedAvg())))
    with pytest.raises(ConfigError, match="WorkerMomentum goes by client id"):
        Bucketing(WorkerMomentum(Median(FedAvg())))


@pytest.mark.parametrize("beta", [-0.1, 1.0, "0.9", None])
def test_beta_out_of_range(beta):
    with pytest.raises(ConfigError, match="beta"):
        WorkerMomentum(FedAvg(), beta=beta)
