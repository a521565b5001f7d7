import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.strategies.cross_round import CrossRound
from tests.support.cohorts import OUTPUT_LAYER, SIZE, cohort


def updates(seed, n, scale=0.1):
    return scale * torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def kept(defense, rows, ids=None, **facts):
    return defense.before_aggregation(cohort(rows, ids, **facts)).client_ids


def cosine(a, b):
    return torch.cosine_similarity(a.double(), b.double(), dim=0).item()


def test_the_first_round_has_no_verdict():
    defense, rows = CrossRound(FedAvg()), updates(1, 4)
    rows[2] = -2.0  # the model's opposite
    assert kept(defense, rows) == (0, 1, 2, 3)
    assert "scores" not in defense._facts
    assert set(defense.accepted) == {0, 1, 2, 3}


@pytest.mark.parametrize("attack", [-2.0, -1.0, torch.nan, 1e30])
def test_who_suddenly_changes_is_dropped(attack):
    """-2: the opposite model; -1: a model of zeros, whose cosine is NaN elsewhere; NaN; a model far away."""
    defense = CrossRound(FedAvg())
    kept(defense, updates(1, 5))
    rows = updates(2, 5)
    rows[3] = attack
    if attack == 1e30:
        rows[3, ::2] *= -1
    assert kept(defense, rows, round=2) == (0, 1, 2, 4)


def test_scores_are_the_smaller_of_two_similarities():
    model, first, second = torch.ones(SIZE), updates(1, 3, 0.5), updates(2, 3, 0.5)
    defense = CrossRound(FedAvg(), features="all")
    kept(defense, first, (5, 6, 7), model=model)
    moved = 1.5 * model
    kept(defense, second, (7, 6, 5), round=2, model=moved)
    expected = [
        min(cosine(moved + second[i], model + first[2 - i]), cosine(moved + second[i], moved)) for i in range(3)
    ]
    assert defense._facts["scores"].tolist() == pytest.approx(expected)


def test_a_client_that_comes_later_is_compared_with_the_global_model_only():
    defense = CrossRound(FedAvg())
    kept(defense, updates(1, 3), (1, 2, 3))
    rows = updates(2, 2)
    rows[1] = -2.0
    assert kept(defense, rows, (8, 9), round=2) == (8,)
    assert set(defense.accepted) == {1, 2, 3, 8}  # who is dropped leaves no memory


def test_who_was_away_longest_is_forgotten_first_and_counts_as_new():
    defense = CrossRound(FedAvg(), max_clients=3)
    kept(defense, updates(1, 3), (1, 2, 3))
    rows = updates(2, 2)
    rows[0] = -2.0
    assert kept(defense, rows, (1, 8), round=2) == (8,)  # 1 is dropped, but was seen: it cannot wait to be forgotten
    assert list(defense.accepted) == [3, 1, 8]
    assert kept(defense, updates(3, 1), (2,), round=3) == (2,)
    assert list(defense.accepted) == [1, 8, 2]


def test_memory_is_of_the_last_accepted_upload_by_client_id_and_aliases_nothing():
    defense, model = CrossRound(FedAvg(), features="all"), torch.ones(SIZE)
    first, second = updates(1, 2), updates(2, 2)
    first_copy = first.clone()
    kept(defense, first, (4, 6), model=model)
    first.zero_()
    model_copy = model.clone()
    model.zero_()
    torch.testing.assert_close(defense.accepted[6], model_copy + first_copy[1])
    second[1] = -3.0
    kept(defense, second, (4, 6), round=2, model=model_copy)
    torch.testing.assert_close(defense.accepted[4], model_copy + second[0])
    torch.testing.assert_close(defense.accepted[6], model_copy + first_copy[1])


def test_memory_of_updates_and_of_the_global_model_aliases_nothing():
    defense = CrossRound(FedAvg(), compare="updates", features="all")
    rows, model = updates(1, 2), torch.ones(SIZE)
    kept(defense, rows, model=model)
    rows.zero_()
    model.zero_()
    torch.testing.assert_close(torch.stack([defense.accepted[0], defense.accepted[1]]), updates(1, 2))
    assert torch.equal(defense.previous_global, torch.ones(SIZE))
    # a vector of its own each, not views that keep a whole round's matrix alive
    models = CrossRound(FedAvg())
    kept(models, updates(1, 2))
    for each, size in ((defense, SIZE), (models, 12)):
        assert each.accepted[1].untyped_storage().nbytes() == 4 * size


def test_if_everybody_is_dropped_the_memory_stays():
    defense = CrossRound(FedAvg())
    kept(defense, updates(1, 3))
    before = {client_id: vector.clone() for client_id, vector in defense.accepted.items()}
    assert kept(defense, torch.full((3, SIZE), -2.0), round=2) == ()
    assert all(torch.equal(defense.accepted[i], before[i]) for i in before)
    assert kept(defense, updates(3, 3), round=3) == (0, 1, 2)


def test_updates_are_compared_with_the_own_last_one_and_the_last_global_step():
    defense = CrossRound(FedAvg(), compare="updates", min_similarity=0.0, features="all")
    step, model = torch.linspace(-1, 1, SIZE), torch.ones(SIZE)
    honest = step + updates(1, 4)
    assert kept(defense, honest, model=model) == (0, 1, 2, 3)
    rows = step + updates(2, 4)
    rows[2] *= -4  # SignFlipping: invisible in models far from zero, plain in updates
    assert kept(defense, rows, round=2, model=model + step) == (0, 1, 3)
    expected = [min(cosine(rows[i], honest[i]), cosine(rows[i], step)) for i in range(4)]
    assert defense._facts["scores"].tolist() == pytest.approx(expected)
    # the model was kept: there is no step to compare with, and only the own update counts
    assert kept(defense, step + updates(3, 4), round=3, model=model + step) == (0, 1, 2, 3)


def test_nobody_is_dropped_for_a_zero_reference():
    zero = torch.zeros(SIZE)
    defense = CrossRound(FedAvg())  # a model that starts at zero, such as a softmax
    kept(defense, torch.zeros(3, SIZE), model=zero)
    assert kept(defense, updates(1, 3), round=2, model=zero) == (0, 1, 2)


def test_only_the_chosen_features_are_compared():
    rows = updates(2, 3)
    rows[1, :8] = -3.0  # outside of the output layer
    for features, expected in (("output_layer", (0, 1, 2)), ("all", (0, 2))):
        defense = CrossRound(FedAvg(), features=features, min_similarity=0.8)
        kept(defense, updates(1, 3))
        assert kept(defense, rows, round=2) == expected
    assert CrossRound(FedAvg()).features == "output_layer"
    narrow = CrossRound(FedAvg())
    kept(narrow, rows)
    torch.testing.assert_close(narrow.accepted[0], 1 + rows[0, OUTPUT_LAYER])


@pytest.mark.parametrize("compare", ["models", "updates"])
def test_a_resumed_run_equals_an_uninterrupted_one_with_other_clients_in_each_round(compare):
    rounds = [(1, 2, 3), (2, 3, 4), (1, 4, 5)]

    def play(defense, numbers):
        facts = []
        for number in numbers:
            rows, model = updates(number, 3, 0.5), torch.ones(SIZE) + updates(50 + number, 1)[0]
            facts.append((kept(defense, rows, rounds[number], round=number + 1, model=model), defense._facts))
        return facts[-1]

    straight = CrossRound(FedAvg(), compare=compare, min_similarity=0.0)
    resumed = CrossRound(FedAvg(), compare=compare, min_similarity=0.0)
    play(straight, (0, 1))
    resumed.load_state_dict(straight.state_dict())
    ids, facts = play(straight, (2,))
    again, same = play(resumed, (2,))
    assert ids == again
    assert torch.equal(facts["scores"], same["scores"])
