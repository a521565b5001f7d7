import torch
from flwr.server.strategy import FedAvg

from flsec._state_files import load_state, save_state
from flsec.aggregation.clipped_clustering import clipped_clustering
from flsec.strategies.clipped_clustering import ClippedClustering
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(n, SIZE, generator=generator)


def play(defense, rows, **facts):
    return defense.on_aggregation(defense.before_aggregation(cohort(rows, **facts)))


def test_the_bound_is_the_median_of_the_last_norms_of_all_clients():
    defense, history = ClippedClustering(FedAvg(), num_norms=13), torch.empty(0, dtype=torch.float64)
    for number in range(1, 6):
        rows = updates(number) * 0.5**number  # updates shrink
        rows[0] *= -100
        torch.testing.assert_close(play(defense, rows), clipped_clustering(rows, history))
        assert defense._facts["max_norm"] < 100 * rows[1:].norm(dim=1).max()
        history = torch.cat([history, rows.double().norm(dim=1)])[-13:]
    torch.testing.assert_close(defense.norms, history)


def test_a_round_of_more_clients_than_are_remembered_counts_in_full():
    few, many = ClippedClustering(FedAvg(), num_norms=2), ClippedClustering(FedAvg())
    assert torch.equal(play(few, updates(1)), play(many, updates(1)))
    assert len(few.norms) == 2


def test_an_attacker_is_dropped_and_the_rest_is_clipped():
    rows = updates(2)
    rows[3], rows[5] = -4 * rows[3], 50 * rows[5]
    defense = ClippedClustering(FedAvg())
    kept = defense.before_aggregation(cohort(rows))
    assert set(range(9)) - set(kept.client_ids) == {3}
    assert float(defense.on_aggregation(kept).norm()) <= defense._facts["max_norm"] * (1 + 1e-6)


def test_goes_on_after_a_checkpoint(tmp_path):
    straight, resumed = ClippedClustering(FedAvg(), num_norms=30), ClippedClustering(FedAvg(), num_norms=30)
    play(straight, updates(1))
    save_state(tmp_path / "state.safetensors", straight.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "state.safetensors"))
    assert torch.equal(play(straight, 0.1 * updates(2)), play(resumed, 0.1 * updates(2)))
