import copy

import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._state_files import load_state, save_state
from flsec.aggregation.flanders import flanders_forecast
from flsec.strategies.flanders import Flanders
from tests.support.claims import HONEST, HOSTILE, Descent
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=5):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def play(defense, rows, ids=None, round=1, **facts):
    return defense.before_aggregation(cohort(rows, ids, round=round, **facts)).client_ids


@pytest.mark.parametrize("attack", ["sign_flip", "shift"])
def test_colluders_who_begin_later_are_dropped_and_honest_clients_are_kept(attack):
    for seed in range(5):
        descent, defense = Descent(seed, attack, first_round=5), Flanders(FedAvg(), num_byzantine=HOSTILE)
        kept = [descent.step(defense) for _ in range(12)]
        assert kept[:2] == [tuple(range(HONEST + HOSTILE))] * 2  # warming up
        assert kept[4:] == [tuple(range(HONEST))] * 8


def test_where_nobody_attacks_all_but_f_are_kept():
    descent, defense = Descent(1), Flanders(FedAvg(), num_byzantine=2)
    assert [len(descent.step(defense)) for _ in range(6)] == [20, 20, 18, 18, 18, 18]


def test_scores_are_distances_of_models_from_the_forecast():
    defense, past = Flanders(FedAvg(), num_byzantine=0, window=3, num_parameters=100), []
    for number in range(1, 6):
        model = updates(50 + number, 1)[0]
        play(defense, updates(number), round=number, model=model)
        models = (model + updates(number)).double()
        if number > 2:
            expected = (models - flanders_forecast(torch.stack(past[-3:]).mT).T).norm(dim=1)
            torch.testing.assert_close(defense._facts["scores"], expected, rtol=1e-5, atol=1e-5)
        else:
            assert defense._facts["warm_up"] is True
        past.append(models)
    assert len(defense.rounds) == 3


def test_who_was_away_or_dropped_has_the_mean_of_those_kept_in_its_place():
    defense = Flanders(FedAvg(), num_byzantine=1, num_parameters=100)
    first = 1 + updates(1, 4)
    play(defense, first - 1, (1, 2, 3, 4))
    play(defense, updates(2, 4), (1, 2, 3, 4), 2)
    bad = updates(3, 4)
    bad[1] += 100
    assert play(defense, bad, (1, 2, 3, 9), 3) == (1, 3, 9)
    mean = (1 + bad[[0, 2, 3]]).mean(dim=0)
    torch.testing.assert_close(defense.rounds[-1]["models"][1], mean)
    rows = defense._models_of((3, 7), defense.rounds[0])
    torch.testing.assert_close(rows, torch.stack([first[2], first.mean(dim=0)]))


def test_looks_at_the_same_drawn_parameters_in_every_round():
    defense = Flanders(FedAvg(), num_byzantine=1, num_parameters=6, seed=2)
    columns = defense._columns(SIZE)
    assert len(set(columns.tolist())) == 6
    play(defense, updates(1))
    torch.testing.assert_close(defense.rounds[0]["models"], 1 + updates(1)[:, columns])
    assert torch.equal(Flanders(FedAvg(), num_byzantine=1, num_parameters=6, seed=2)._columns(SIZE), columns)
    assert not torch.equal(Flanders(FedAvg(), num_byzantine=1, num_parameters=6)._columns(SIZE), columns)


def test_goes_on_after_a_checkpoint(tmp_path):
    straight, resumed = (Flanders(FedAvg(), num_byzantine=HOSTILE) for _ in range(2))
    descent = Descent(3, "shift", first_round=4)
    for _ in range(3):
        descent.step(straight)
    save_state(tmp_path / "state.safetensors", straight.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "state.safetensors"))
    again = copy.deepcopy(descent)
    for _ in range(3):
        assert descent.step(straight) == again.step(resumed)
        torch.testing.assert_close(straight._facts["scores"], resumed._facts["scores"])


@pytest.mark.parametrize(
    "rows", [torch.zeros(4, SIZE), torch.ones(4, SIZE), updates(3, 1), 3e38 * updates(3, 2).sign()]
)
def test_equal_zero_few_and_huge_rows_never_raise(rows):
    defense = Flanders(FedAvg(), num_byzantine=0)
    for number in range(1, 6):
        assert len(play(defense, rows, round=number)) == len(rows)
