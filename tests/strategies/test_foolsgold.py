import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._contracts.server import ClassicServer, MessageServer, flower_strategy, from_npy, honest, identify, npy_bytes
from flsec._state_files import load_state, save_state
from flsec.aggregation.foolsgold import foolsgold_weights
from flsec.strategies._features import feature_columns
from flsec.strategies.cohort import Layout
from flsec.strategies.foolsgold import FoolsGold
from flsec.strategies.norm_clipping import NormClipping
from tests.support.cohorts import OUTPUT_LAYER, SIZE, cohort


def updates(seed, n):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed))


def kept(defense, rows, ids, **facts):
    return defense.before_aggregation(cohort(rows, ids, **facts)).client_ids


def test_the_output_layer_is_the_last_matrix_and_its_bias():
    layout = cohort(updates(0, 1)).layout
    assert feature_columns(layout, "output_layer") == OUTPUT_LAYER
    assert feature_columns(layout, "all") == slice(0, SIZE)
    assert feature_columns(Layout([np.zeros(3, np.float32), np.array(7)]), "output_layer") == slice(0, 3)
    counted = Layout([np.zeros((2, 2), np.float32), np.zeros((3, 3), np.int64), np.zeros(2, np.float32)])
    assert feature_columns(counted, "output_layer") == slice(0, 6)  # an integer matrix is no layer


def test_histories_are_summed_by_client_id_with_other_clients_in_each_round():
    defense = FoolsGold(FedAvg(), features="all")
    rounds = [((4, 9, 11), updates(1, 3)), ((9, 30), updates(2, 2)), ((4, 30, 11, 9), updates(3, 4))]
    sums = {}
    for number, (ids, rows) in enumerate(rounds, start=1):
        defense.before_aggregation(cohort(rows, ids, round=number))
        for client_id, row in zip(ids, rows, strict=True):
            sums[client_id] = sums.get(client_id, 0) + row
        expected = foolsgold_weights(torch.stack([sums[client_id] for client_id in ids]))
        torch.testing.assert_close(defense._facts["weights"], expected)
    assert set(defense.histories) == {4, 9, 11, 30}
    for client_id, history in defense.histories.items():
        torch.testing.assert_close(history, sums[client_id])  # one vector a client, not one a round


def test_memory_aliases_nothing_and_the_updates_are_left_alone():
    defense, rows = FoolsGold(FedAvg(), features="all"), updates(4, 3)
    before = rows.clone()
    defense.before_aggregation(cohort(rows))
    state = defense.state_dict()
    frozen = copy.deepcopy(state)
    rows.zero_()
    torch.testing.assert_close(torch.stack(list(defense.histories.values())), before)
    defense.before_aggregation(cohort(before))
    assert torch.equal(state["state"]["histories"][0], frozen["state"]["histories"][0])
    assert torch.equal(before, updates(4, 3))


def test_sybils_are_dropped_and_honest_clients_are_not():
    honest_rows, poison = torch.randn(10, SIZE, generator=torch.Generator().manual_seed(5)), updates(6, 1)
    honest_rows[:, OUTPUT_LAYER] = torch.linalg.qr(honest_rows[:, OUTPUT_LAYER].T).Q.T  # diverse
    defense = FoolsGold(FedAvg())
    rows = torch.cat([honest_rows, poison.repeat(6, 1)])
    survivors = defense.before_aggregation(cohort(rows))
    assert survivors.client_ids == tuple(range(10))
    result = defense.on_aggregation(survivors)
    torch.testing.assert_close(result, honest_rows.mean(dim=0))
    assert (rows.mean(dim=0) - honest_rows.mean(dim=0)).norm() > 0.5  # the plain mean must not pass
    weights = defense._facts["weights"]
    assert weights[10:].max() == 0
    assert weights[:10].min() > 0.09


def test_memory_finds_sybils_whose_single_updates_differ():
    poison = updates(7, 1)
    defense = FoolsGold(FedAvg(), features="all")
    sybils = (20, 21, 22)
    for number in range(1, 41):
        noise = updates(100 + number, 13)
        honest_rows = 0.3 * noise[:10] + updates(8, 10)
        rows = torch.cat([honest_rows, poison + 2 * noise[10:]])
        dropped = {*range(10), *sybils} - set(kept(defense, rows, (*range(10), *sybils), round=number))
    assert set(sybils) <= dropped
    assert len(dropped) <= 5
    assert not set(sybils) <= {*sybils} - set(kept(FoolsGold(FedAvg(), features="all"), rows, (*range(10), *sybils)))


def test_only_the_chosen_features_are_compared_and_stored():
    rows = updates(9, 4)
    rows[0, OUTPUT_LAYER] = rows[1, OUTPUT_LAYER]
    rows[0, :8], rows[1, :8] = 5.0, -5.0
    narrow, wide = FoolsGold(FedAvg()), FoolsGold(FedAvg(), features="all")
    assert 0 not in kept(narrow, rows, range(4))
    assert 0 in kept(wide, rows, range(4))
    assert narrow.histories[0].shape == (12,)
    assert wide.histories[0].shape == (SIZE,)


def test_who_was_away_longest_is_forgotten_first():
    defense = FoolsGold(FedAvg(), max_clients=3)
    kept(defense, updates(1, 3), (4, 6, 9), round=1)
    assert "forgotten" not in defense._facts
    kept(defense, updates(2, 2), (4, 20), round=2)  # 6 and 9 were away equally long: the lower id goes first
    assert list(defense.histories) == [9, 4, 20]
    assert defense._facts["forgotten"] == 1
    kept(defense, updates(3, 1), (9,), round=3)
    kept(defense, updates(4, 1), (6,), round=4)
    assert list(defense.histories) == [20, 9, 6]
    assert torch.equal(defense.histories[6], updates(4, 1)[0, OUTPUT_LAYER])  # its first update is forgotten
    both = updates(1, 3)[2] + updates(3, 1)[0]
    torch.testing.assert_close(defense.histories[9], both[OUTPUT_LAYER])


def test_a_round_of_more_clients_than_are_remembered_is_judged_by_all_of_them():
    few, all_of_them = FoolsGold(FedAvg(), max_clients=2), FoolsGold(FedAvg(), max_clients=None)
    for number in (1, 2):
        for defense in (few, all_of_them):
            kept(defense, updates(number, 6), range(6), round=number)
        if number == 1:
            torch.testing.assert_close(few._facts["weights"], all_of_them._facts["weights"])
    assert list(few.histories) == [4, 5]
    assert set(all_of_them.histories) == set(range(6))
    assert torch.equal(few.histories[5], all_of_them.histories[5])


def test_forgetting_goes_on_after_a_checkpoint_in_the_same_order(tmp_path):
    straight, resumed = FoolsGold(FedAvg(), max_clients=3), FoolsGold(FedAvg(), max_clients=3)
    for number, ids in enumerate([(1, 2, 9), (1, 5), (9,)], start=1):
        kept(straight, updates(number, len(ids)), ids, round=number)
    save_state(tmp_path / "state.safetensors", straight.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "state.safetensors"))
    for number, ids in enumerate([(7,), (2, 9), (8,)], start=4):
        for defense in (straight, resumed):
            kept(defense, updates(number, len(ids)), ids, round=number)
        assert list(straight.histories) == list(resumed.histories)
        assert all(torch.equal(straight.histories[i], resumed.histories[i]) for i in straight.histories)
    assert list(straight.histories) == [2, 9, 8]


def test_nobody_is_accepted_among_copies():
    defense = FoolsGold(FedAvg())
    assert kept(defense, updates(10, 1).repeat(5, 1), range(5)) == ()


def test_trusted_numbers_of_examples_multiply_the_weights():
    rows = torch.eye(4, SIZE).roll(8, dims=1)
    counts = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    defense = FoolsGold(FedAvg(), weighting="examples")
    result = defense.on_aggregation(defense.before_aggregation(cohort(rows, num_examples=counts)))
    torch.testing.assert_close(result[8:12], counts.float() / 10)


@pytest.mark.parametrize("api", ["classic", "Message"])
def test_inside_norm_clipping_around_fedadam_with_state(api):
    """Composed, with sybils: a resumed run equals the uninterrupted one, and the sybils are dropped in every round."""
    identify()
    ids, sybils = range(1, 9), (6, 7, 8)

    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        rng = np.random.default_rng(0 if client_id in sybils else client_id)
        tensors = [np.asarray(a + rng.normal(size=a.shape) if a.dtype.kind == "f" else a) for a in arrays]
        return [
            replace(reply, tensors=tuple(npy_bytes(t.astype(a.dtype)) for t, a in zip(tensors, arrays, strict=True)))
        ]

    def server():
        strategy = NormClipping(FoolsGold(flower_strategy(api, "FedAdam", len(ids))), max_norm=1.0)
        return (ClassicServer if api == "classic" else MessageServer)(strategy, ids)

    straight = server().play([1, 2], answer)
    resumed = server()
    resumed.strategy.load_state_dict(straight.strategy.state_dict())
    resumed.tensors = list(straight.tensors)
    for play in (straight, resumed):
        play.play([3], answer)
        verdict = play.strategy.last_report.verdicts[1]
        assert verdict.judges
        assert set(verdict.kept) == set(ids) - set(sybils)
        assert [verdict.weights[i] for i in sybils] == [0.0] * 3
    assert all(np.array_equal(a, b) for a, b in zip(from_npy(straight.tensors), from_npy(resumed.tensors), strict=True))
