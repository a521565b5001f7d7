import copy

import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._state_files import load_state, save_state
from flsec.aggregation.fl_detector import fl_detector_change
from flsec.errors import ConfigError
from flsec.strategies.fl_detector import FLDetector
from tests.support.claims import HONEST, HOSTILE, Descent
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=6):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def play(defense, rows, ids=None, round=1, model=None):
    return defense.before_aggregation(cohort(rows, ids, round=round, model=model)).client_ids


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_are_removed_for_good_and_honest_clients_are_kept(attack):
    seeds, lost = range(8), 0
    for seed in seeds:
        descent, defense = Descent(seed, attack), FLDetector(FedAvg(), min_scores=5)
        kept = [descent.step(defense) for _ in range(12)]
        assert kept[:5] == [tuple(range(HONEST + HOSTILE))] * 5  # nobody has five scores yet
        assert not set(kept[-1]) & set(range(HONEST, HONEST + HOSTILE))
        assert not set(defense.clients) & set(defense.removed)
        lost += HONEST - len(kept[-1])
    assert lost <= 0.1 * HONEST * len(seeds)


def test_where_nobody_attacks_hardly_anybody_is_removed():
    removed = 0
    for seed in range(8):
        descent, defense = Descent(seed), FLDetector(FedAvg(), min_scores=5)
        for _ in range(20):
            descent.step(defense)
        removed += len(defense.removed)
    assert removed <= 0.1 * 8 * (HONEST + HOSTILE)


def test_scores_are_distances_from_what_is_foretold_over_their_mean():
    defense, models, rows = FLDetector(FedAvg(), window=3, min_scores=3), [], []
    scores = []
    for number in range(1, 7):
        models.append(updates(50 + number, 1)[0])
        rows.append(updates(number, 6))
        play(defense, rows[-1], round=number, model=models[-1])
        if number > 1:
            pairs = range(max(1, number - 4), number - 1)
            change = torch.zeros(SIZE)
            if number > 2:
                s = torch.stack([models[i] - models[i - 1] for i in pairs])
                y = torch.stack([rows[i].mean(dim=0) - rows[i - 1].mean(dim=0) for i in pairs])
                change = fl_detector_change(s, y, models[-1] - models[-2])
            distances = (rows[-1] - rows[-2] - change).double().norm(dim=1)
            scores.append(distances / distances.mean())
    assert defense.removed == {}
    found = torch.tensor([defense.clients[i]["scores"] for i in range(6)], dtype=torch.float64)
    torch.testing.assert_close(found, torch.stack(scores[-3:], dim=1), rtol=1e-4, atol=1e-4)


def test_a_client_that_was_away_is_foretold_from_its_own_last_update():
    defense = FLDetector(FedAvg(), window=2, min_scores=2)
    models = [updates(50 + number, 1)[0] for number in range(6)]
    play(defense, updates(1), range(6), 1, models[0])
    play(defense, updates(2, 3), range(3), 2, models[1])
    play(defense, updates(3, 3), range(3), 3, models[2])
    s, y = torch.stack(defense.model_steps), torch.stack(defense.update_steps)
    rows = updates(4)
    play(defense, rows, range(6), 4, models[3])
    near = rows[:3] - updates(3, 3) - fl_detector_change(s, y, models[3] - models[2])
    far = rows[3:] - updates(1)[3:] - fl_detector_change(s, y, models[3] - models[0])
    distances = torch.cat([near, far]).double().norm(dim=1)
    found = torch.tensor([defense.clients[i]["scores"][-1] for i in range(6)], dtype=torch.float64)
    torch.testing.assert_close(found, distances / distances.mean(), rtol=1e-4, atol=1e-4)
    for number in (5, 6, 7):
        play(defense, updates(number, 3), range(3), number, models[number - 2])
    play(defense, updates(8), range(6), 8, models[0])
    assert len(defense.clients[5]["scores"]) == 1  # away for longer than the window


def test_removed_clients_are_dropped_whenever_they_come_again():
    defense = FLDetector(FedAvg())
    defense.removed = {3: 1}
    assert play(defense, updates(1)) == (0, 1, 2, 4, 5)
    assert 3 not in defense.clients
    torch.testing.assert_close(defense.mean_update, updates(1)[[0, 1, 2, 4, 5]].mean(dim=0))
    assert play(defense, updates(2, 1), (3,)) == ()


def test_memory_is_bounded_copied_and_forgets_who_was_away_longest():
    defense, rows = FLDetector(FedAvg(), window=2, min_scores=1, max_clients=3), updates(1, 3)
    before = rows.clone()
    play(defense, rows, (4, 6, 9))
    rows.zero_()
    assert torch.equal(defense.clients[6]["update"], before[1])
    play(defense, updates(2, 2), (4, 20), 2)
    assert list(defense.clients) == [9, 4, 20]
    assert defense._facts["forgotten"] == 1
    for number in range(3, 9):
        play(defense, updates(number, 2), (4, 20), number)
    assert len(defense.model_steps) == len(defense.update_steps) == len(defense.clients[4]["scores"]) == 2


def test_goes_on_after_a_checkpoint(tmp_path):
    straight, resumed = (FLDetector(FedAvg(), min_scores=4) for _ in range(2))
    descent = Descent(7, "shift")
    for _ in range(3):
        descent.step(straight)
    save_state(tmp_path / "state.safetensors", straight.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "state.safetensors"))
    again = copy.deepcopy(descent)
    for _ in range(5):
        assert descent.step(straight) == again.step(resumed)
    assert straight.removed == resumed.removed == dict.fromkeys(range(HONEST, HONEST + HOSTILE), 5)


@pytest.mark.parametrize("rows", [torch.zeros(4, SIZE), torch.ones(4, SIZE), updates(3, 1), updates(3, 2)])
def test_equal_zero_and_few_rows_are_kept(rows):
    defense = FLDetector(FedAvg(), window=2, min_scores=1)
    for number in range(1, 6):
        assert len(play(defense, rows, round=number)) == len(rows)


def test_huge_opposite_updates_are_found_and_break_nothing():
    defense = FLDetector(FedAvg(), window=3, min_scores=3)
    for number in range(1, 8):
        rows = updates(1, 9) + 0.01 * updates(number, 9)
        rows[2] = 3e38 * (-1) ** number
        kept = play(defense, rows, round=number)
    assert kept == (0, 1, 3, 4, 5, 6, 7, 8)


def test_refuses_more_scores_than_are_remembered():
    with pytest.raises(ConfigError, match="min_scores <= window; got min_scores=11, window=10"):
        FLDetector(FedAvg(), min_scores=11)
