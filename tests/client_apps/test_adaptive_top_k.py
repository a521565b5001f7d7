"""Algorithm 12 with what the attackers know when everybody's updates are in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flsec.aggregation import sparsefed_init, sparsefed_step
from flsec.attacks import CohortView, Rehearsal
from flsec.client_apps import AdaptiveTopK, AttackContext
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, get_weights

CLASSES, SHAPE = 4, (1, 3, 3)


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[6])


def flat(arrays):
    return torch.from_numpy(np.concatenate([a.ravel() for a in arrays if a.dtype.kind == "f"])).float()


START = flat(get_weights(network()))
D = len(START)


def make(k=8, **settings):
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1))
    given = {"auxiliary_data": (x, torch.arange(40) % CLASSES), "model_factory": network, "num_auxiliary": 12}
    training = Training(learning_rate=0.2)
    return AdaptiveTopK(k=k, max_norm=0.5, training=training, seed=5, **{**given, "knowledge": "all", **settings})


def view(rehearse, start=START, m=3):
    own = 0.01 * torch.randn(m, D, generator=torch.Generator().manual_seed(9))
    accepted = torch.ones(m, dtype=torch.bool)
    return CohortView(
        own=own,
        own_ids=tuple(range(m)),
        clients_per_round=m + 5,
        round=2,
        seed=5,
        others=own.repeat(2, 1)[:5],
        rehearse=lambda rows: Rehearsal(rehearse(rows), accepted),
        global_parameters=start,
    )


def change(places, values=1.0):
    vector = torch.zeros(D)
    vector[torch.tensor(places)] = torch.as_tensor(values)
    return vector


def places(row):
    return row.nonzero().squeeze(1).tolist()


def test_only_what_the_defense_lets_through_is_changed_and_all_upload_the_same():
    asked = []

    def rehearse(rows):
        asked.append(rows)
        return change([30, 80, 84, 87])

    attack = make()
    seen = view(rehearse)
    sent = attack.poison_cohort(seen)
    assert (sent.shape, sent.dtype) == ((3, D), torch.float32)
    assert torch.equal(sent, sent[:1].repeat(3, 1))
    assert places(sent[0]) == [30, 80, 84, 87]
    assert float(sent[0].norm()) == pytest.approx(0.5, rel=1e-4)
    assert len(asked) == 1
    assert torch.equal(asked[0], seen.own)  # the honest round
    assert seen.notes == {"num_coordinates": 4}
    alone = make(knowledge="own", coordinates=lambda round_: torch.tensor([30, 80, 84, 87]))
    given = get_weights(network())
    expected = flat(alone.poison_update(given, given, AttackContext(round=2, client_id=7, seed=5))) - START
    torch.testing.assert_close(sent[0], expected, rtol=1e-5, atol=1e-7)


def test_of_a_change_everywhere_the_k_largest_places_are_taken():
    largest = [30, 80, 84]
    dense = torch.full((D,), 0.1)
    dense[largest] = torch.tensor([-3.0, 2.0, 1.0])
    assert places(make(k=3).poison_cohort(view(lambda rows: dense))[0]) == largest


def test_with_sparsefeds_own_rehearsal_the_whole_upload_passes():
    """What moves the server's own top-k is let through; what the same attackers guess is not."""
    honest = change(list(range(1, D, 9)), 1.0)
    k = int((honest != 0).sum())

    def sparsefed(average):
        return sparsefed_step(sparsefed_init(D), average, k=k)[0]

    def passed(row):
        moved = 1e-3 * row
        return float((sparsefed(honest + moved) - sparsefed(honest)).norm() / moved.norm())

    sent = make(k=k).poison_cohort(view(lambda rows: sparsefed(honest)))[0]
    given = get_weights(network())
    guess = make(k=k, knowledge="own").poison_update(given, given, AttackContext(round=2, client_id=0, seed=5))
    assert passed(sent) == pytest.approx(1.0, rel=1e-2)
    assert passed(flat(guess) - START) < 0.7


def test_where_the_model_would_not_change_they_guess():
    sent = make().poison_cohort(view(lambda rows: torch.zeros(D)))
    given = get_weights(network())
    guess = make(knowledge="own").poison_update(given, given, AttackContext(round=2, client_id=0, seed=5))
    torch.testing.assert_close(sent[0], flat(guess) - START, rtol=1e-5, atol=1e-7)
    assert len(places(sent[0])) <= 8


def test_the_same_attack_object_acts_the_same_again():
    attack = make()
    first = attack.poison_cohort(view(lambda rows: change([30, 80])))
    assert places(attack.poison_cohort(view(lambda rows: change([31, 81])))[0]) == [31, 81]
    assert torch.equal(attack.poison_cohort(view(lambda rows: change([30, 80]))), first)
    assert attack.coordinates is None


def test_it_starts_from_the_global_model_that_the_clients_got():
    elsewhere = START + 0.3 * torch.randn(D, generator=torch.Generator().manual_seed(2))
    sent = make().poison_cohort(view(lambda rows: change([30, 80, 84, 87]), start=elsewhere))
    assert places(sent[0]) == [30, 80, 84, 87]
    assert not torch.allclose(sent, make().poison_cohort(view(lambda rows: change([30, 80, 84, 87]))))


# --- BatchNorm, whose statistics the server keeps apart ---------------------------------------------------------------


def with_buffers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, CLASSES))


def weights_of(arrays):
    """Weight and bias of BatchNorm, weight and bias of the linear layer."""
    return flat([array for place, array in enumerate(arrays) if place not in (2, 3, 4)])


def view_of(given, wanted):
    d = len(weights_of(given))
    return CohortView(
        own=torch.zeros(2, d),
        own_ids=(0, 1),
        clients_per_round=4,
        round=2,
        seed=5,
        rehearse=lambda rows: Rehearsal(wanted, torch.ones(2, dtype=torch.bool)),
        global_parameters=weights_of(given),
        global_state=tuple(given[2:5]),
    )


def test_places_count_weights_and_no_statistics():
    given = get_weights(with_buffers())
    behind = range(9 + 9, 9 + 9 + 36)  # BatchNorm's weight and bias
    wanted = torch.zeros(58)
    wanted[list(behind[5:9])] = 1.0
    assert places(make(model_factory=with_buffers).poison_cohort(view_of(given, wanted))[0]) == list(behind[5:9])
    alone = make(model_factory=with_buffers, knowledge="own", coordinates=lambda round_: torch.tensor(behind[5:9]))
    uploaded = alone.poison_update(given, given, AttackContext(round=2, client_id=0, seed=5))
    assert places(weights_of(uploaded) - weights_of(given)) == list(behind[5:9])


def test_the_guess_is_made_with_the_statistics_that_clients_started_from():
    given = get_weights(with_buffers())
    given[2][:] = np.linspace(-1, 1, 9)
    given[3][:] = np.linspace(0.1, 2, 9)
    sent = make(model_factory=with_buffers).poison_cohort(view_of(given, torch.zeros(58)))[0]
    attack = make(model_factory=with_buffers, knowledge="own")
    guess = attack.poison_update(given, given, AttackContext(round=2, client_id=0, seed=5))
    torch.testing.assert_close(sent, weights_of(guess) - weights_of(given), rtol=1e-5, atol=1e-7)
    fresh = get_weights(with_buffers())
    other = attack.poison_update(fresh, fresh, AttackContext(round=2, client_id=0, seed=5))
    assert not torch.allclose(sent, weights_of(other) - weights_of(fresh))


def test_a_model_with_other_state_is_refused():
    seen = view_of(get_weights(with_buffers()), torch.zeros(58))
    with pytest.raises(ConfigError, match="3 arrays of state"):
        make(model_factory=with_buffers).poison_cohort(replace(seen, global_state=seen.global_state[:2]))


def test_who_knows_all_waits_for_the_server_and_who_does_not_acts_on_the_client():
    for knowledge, waits in (("all", True), ("own", False)):
        attack = make(knowledge=knowledge)
        assert (attack.poisons_cohort, attack.poisons_update) == (waits, not waits)
        assert attack.knows_defense


def test_refuses_what_cannot_work():
    with pytest.raises(ConfigError, match="AdaptiveTopK: knowledge must be 'own' or 'all'"):
        make(knowledge="colluders")
    with pytest.raises(ConfigError, match=r"needs view\.rehearse"):
        make().poison_cohort(replace(view(lambda rows: rows[0]), rehearse=None))
    with pytest.raises(ConfigError, match=f"has {D + 1} floating numbers; model_factory builds one with {D}"):
        make().poison_cohort(view(lambda rows: change([1]), start=torch.zeros(D + 1)))
