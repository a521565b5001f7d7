import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.foolsgold import foolsgold_similarities
from flsec.strategies.three_sigma import ThreeSigma
from tests.support.cohorts import OUTPUT_LAYER, SIZE, cohort


def updates(seed, n):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def kept(defense, rows, ids=None, **facts):
    return defense.before_aggregation(cohort(rows, ids, **facts)).client_ids


@pytest.mark.parametrize("score", ["plain", "geometric_median"])
@pytest.mark.parametrize("size", [30.0, 1e30])
@pytest.mark.parametrize("f", [1, 3])
def test_outliers_are_dropped_among_10(score, size, f):
    rows = updates(1, 10)
    rows[:f] = size
    defense = ThreeSigma(FedAvg(), score=score)
    survivors = kept(defense, rows)
    assert not set(range(f)) & set(survivors)
    assert len(survivors) >= 9 - f
    assert (defense._facts["scores"][:f] > defense._facts["bound"]).all()
    assert rows.mean(dim=0).abs().min() > 1  # the plain mean must not pass


def test_three_sigmas_of_moments_find_nobody_among_10_and_fewer_sigmas_do():
    rows = updates(2, 10)
    rows[4] = 1e6
    assert 4 in kept(ThreeSigma(FedAvg(), estimate="moments"), rows)
    for num_sigmas in (1.0, 2.0):  # FedML's values
        assert 4 not in kept(ThreeSigma(FedAvg(), estimate="moments", num_sigmas=num_sigmas), rows)


def test_the_usual_is_estimated_anew_in_each_round():
    defense = ThreeSigma(FedAvg())
    for number, scale in enumerate((1.0, 1e-3, 10.0), start=1):  # updates shrink, or grow again after a schedule's step
        rows = scale * updates(number, 9)
        rows[0] += 100 * scale
        survivors = kept(defense, rows, round=number)
        assert 0 not in survivors  # a bound of round 1 would keep it in round 2 ...
        assert len(survivors) >= 6  # ... and drop everybody in round 3
    assert defense.histories == {}


def test_honest_clients_are_kept():
    dropped = sum(12 - len(kept(ThreeSigma(FedAvg()), updates(seed, 12))) for seed in range(30))
    assert dropped / 360 < 0.05


def test_sybils_that_lie_in_the_middle_are_found_by_similarity_only():
    honest = torch.eye(12, SIZE).roll(8, dims=1) + 0.05 * updates(3, 12)
    sybils = honest.mean(dim=0).repeat(4, 1)
    rows = torch.cat([honest, sybils])
    assert not set(range(12, 16)) & set(kept(ThreeSigma(FedAvg(), score="foolsgold"), rows))
    assert set(range(12, 16)) <= set(kept(ThreeSigma(FedAvg()), rows))


def test_foolsgolds_memory_is_by_client_id_and_resumes():
    defense = ThreeSigma(FedAvg(), score="foolsgold")
    first, second = updates(4, 3), updates(5, 3)
    kept(defense, first, (1, 2, 3))
    resumed = ThreeSigma(FedAvg(), score="foolsgold")
    resumed.load_state_dict(defense.state_dict())
    expected = foolsgold_similarities(torch.stack([first[2] + second[0], second[1], first[0] + second[2]]))
    for each in (defense, resumed):
        kept(each, second, (3, 7, 1), round=2)
        torch.testing.assert_close(each._facts["scores"], expected)
        assert set(each.histories) == {1, 2, 3, 7}


def test_only_the_chosen_features_are_scored():
    rows = updates(6, 9)
    rows[0, :8] += 1e3  # outside of the output layer
    assert 0 not in kept(ThreeSigma(FedAvg()), rows)
    narrow = ThreeSigma(FedAvg(), features="output_layer", score="plain")
    kept(narrow, rows)
    part = rows[:, OUTPUT_LAYER].double()
    torch.testing.assert_close(narrow._facts["scores"], (part - part.mean(dim=0)).norm(dim=1))


def test_one_or_two_clients_are_always_kept():
    for score in ("plain", "geometric_median", "foolsgold"):
        for n in (1, 2):
            assert len(kept(ThreeSigma(FedAvg(), score=score), updates(7, n))) == n


@pytest.mark.parametrize(
    "parameters", [{"score": "krum"}, {"num_sigmas": 0.0}, {"estimate": "mad"}, {"features": "first"}]
)
def test_refuses_settings_before_the_run(parameters):
    name = next(iter(parameters))
    with pytest.raises(ValueError, match=name):
        ThreeSigma(FedAvg(), **parameters)


def test_who_was_away_longest_is_forgotten_first():
    defense = ThreeSigma(FedAvg(), score="foolsgold", max_clients=3)
    for number, ids in enumerate([(1, 2, 3), (1,), (9,)], start=1):
        rows = torch.randn(len(ids), SIZE, generator=torch.Generator().manual_seed(number))
        defense.before_aggregation(cohort(rows, ids, round=number))
    assert list(defense.histories) == [3, 1, 9]
