import numpy as np
import pytest
import torch

from flsec._contracts.server import flower_strategy, honest, identify
from flsec.aggregation import bucketing, krum, median
from flsec.aggregation.bucketing import dealt
from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.strategies import DEFENSES, Bucketing, CenteredClipping, FoolsGold, Krum, Median, MultiKrum, ThreeSigma
from flsec.strategies._rehearsal import rehearse
from flsec.testing import example
from tests.strategies.test_pre_aggregation import assert_resumes, outliers, step
from tests.support.boundary import assert_moved, both_apis, nan, play, report, sends, silence, why_kept
from tests.support.cohorts import SIZE, cohort

N = 11


@pytest.fixture(autouse=True)
def _identity():
    identify()


def flower(api="classic", num_clients=N):
    return flower_strategy(api, "FedAvg", num_clients)


def members(server):
    return report(server).verdicts[0].notes["buckets"]


@both_apis
@pytest.mark.parametrize("rule", ["krum", "median", "mean"])
def test_the_rule_inside_sees_the_buckets(rule, api):
    inner = {"krum": lambda f: Krum(f, num_byzantine=1), "median": Median, "mean": lambda f: f}[rule]
    function = {"krum": lambda u: krum(u, 1), "median": median, "mean": lambda u: u.mean(dim=0)}[rule]
    server, rows, moved = step(api, Bucketing(inner(flower(api)), bucket_size=2, seed=5), {4: outliers})
    torch.testing.assert_close(moved, function(bucketing(rows, 2, seed=5)), rtol=1e-5, atol=1e-5)
    assert [set(group) for group in members(server)] == [{i + 1 for i in rows} for rows in dealt(N, 2, 5, 1)]
    assert report(server).verdicts[0].kept == tuple(range(1, N + 1))
    assert not report(server).verdicts[0].judges


@both_apis
def test_verdicts_inside_speak_of_the_clients_of_a_bucket(api):
    server, _, _ = step(api, Bucketing(MultiKrum(flower(api), num_byzantine=1)), {4: outliers})
    verdict = report(server).verdicts[1]
    dropped = set(verdict.participants) - set(verdict.kept)
    assert verdict.participants == tuple(range(1, N + 1))
    assert dropped == next(set(group) for group in members(server) if 4 in group)
    for group in members(server):
        assert len({verdict.scores[i] for i in group}) == 1
    assert server.metrics["flsec-kept"] == N - len(dropped)


@both_apis
def test_each_quarantined_client_lowers_n_and_f(api):
    """13 clients, of whom one sends NaN: 12 make 6 buckets, and f = 1 is left, for which Krum needs 5."""
    strategy = Bucketing(Krum(flower(api, 13), num_byzantine=2))
    server, rows, moved = step(api, strategy, {5: nan, 9: outliers}, 13)
    sound = rows[[i for i in range(13) if i + 1 != 5]]
    torch.testing.assert_close(moved, krum(bucketing(sound, 2), 1), rtol=1e-5, atol=1e-5)
    assert report(server).verdicts[1].notes["num_byzantine"] == 1


@both_apis
def test_the_rule_inside_needs_as_many_buckets_as_rows(api):
    strategy = Bucketing(Krum(flower(api), num_byzantine=1))
    server = play(api, strategy, N, [1], sends(dict.fromkeys((1, 2), silence)))
    assert_moved(server)  # 9 clients, 5 buckets
    server = play(api, Bucketing(Krum(flower(api), num_byzantine=1)), N, [1], sends(dict.fromkeys((1, 2, 3), silence)))
    assert "Krum needs at least 5 usable replies; there are 4" in why_kept(server)
    with pytest.raises(ConfigError, match=r"Krum needs at least 5 replies and is handed at most 4, and .* asks 8"):
        play(api, Bucketing(Krum(flower(api, 8), num_byzantine=1)), 8)


@both_apis
def test_trusted_numbers_of_examples_make_the_mean_of_all(api):
    """Weighted within a bucket and between buckets: what FedAvg does without them."""
    plain = play(api, flower(api), N)
    strategy = Bucketing(flower(api), bucket_size=3, weighting="examples")
    for a, b in zip(play(api, strategy, N).arrays[:3], plain.arrays[:3], strict=True):  # the fourth is a counter
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_bucket_claims_its_clients_examples_and_their_mean_metrics():
    rows = torch.randn(5, SIZE)
    counts = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    given = cohort(rows, (3, 5, 8, 9, 12), num_examples=counts)
    given = given.replace(metrics=tuple({"loss": float(i)} for i in range(5)))
    given = given.replace(buffers=tuple((np.array(i), np.array([i, 1.0], np.float32)) for i in (7, 9, 11, 8, 6)))
    merged = Bucketing(flower()).before_aggregation(given)
    for row, group in enumerate(dealt(5, 2, 0, 1)):
        assert merged.members[row] == tuple(given.client_ids[i] for i in group)
        assert merged.client_ids[row] == merged.members[row][0]
        assert merged.num_examples[row] == counts[group].sum()
        assert merged.metrics[row] == {"loss": np.mean(group)}
        counter, statistics = merged.buffers[row]
        assert counter == min(given.buffers[i][0] for i in group)  # the lower of two in the middle
        np.testing.assert_allclose(statistics, np.mean([given.buffers[i][1] for i in group], axis=0))
    assert merged.clients == given.client_ids
    assert merged.keep([1]).clients == merged.members[1]


@both_apis
def test_a_bucket_of_buckets_names_all_clients(api):
    server = play(api, Bucketing(Bucketing(Median(flower(api)))), N)
    groups = report(server).verdicts[1].notes["buckets"]
    assert len(groups) == 3
    assert sorted(i for group in groups for i in group) == list(range(1, N + 1))


def test_a_rehearsal_names_the_clients_that_would_be_accepted():
    rows = torch.randn(N, SIZE, generator=torch.Generator().manual_seed(0))
    rows[3] += 100
    _, accepted = rehearse(Bucketing(MultiKrum(flower(), num_byzantine=1)).chain(), cohort(rows))
    spoilt = next(set(group) for group in dealt(N, 2, 0, 1) if 3 in group)
    assert accepted == set(range(N)) - spoilt


# --- who cannot stand inside ------------------------------------------------------------------------------------


def defense(name):
    member = DEFENSES.get(name)
    return member(flower(), **example(member, flower()))


BY_CLIENT = {"adversaries", "client_samples", "max_clients"}  # what only those take that go by client id


@pytest.mark.parametrize(
    "name", [name for name in DEFENSES.names() if BY_CLIENT & set(parameters_of(DEFENSES.get(name)))]
)
def test_a_rule_that_goes_by_client_id_is_refused_inside(name):
    inner = defense(name) if name != "three_sigma" else ThreeSigma(flower(), score="foolsgold")
    kind = type(inner).__name__
    with pytest.raises(ConfigError, match=f"{kind} goes by client id, and Bucketing .* outside: {kind}\\(Bucketing"):
        Bucketing(inner)


def test_also_one_further_inside_and_others_are_not():
    with pytest.raises(ConfigError, match="FoolsGold goes by client id"):
        Bucketing(MultiKrum(FoolsGold(flower()), num_byzantine=1))
    Bucketing(ThreeSigma(flower()))
    Bucketing(CenteredClipping(flower(), radius=1.0))
    FoolsGold(Bucketing(Median(flower())))


@both_apis
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(api):
    assert_resumes(api, lambda: Bucketing(Krum(flower_strategy(api, "FedAdam", N), num_byzantine=1)))


@both_apis
def test_other_rounds_deal_anew(api):
    server = play(api, Bucketing(Median(flower(api))), N, [1])
    first = members(server)
    server.play([2], honest)
    assert members(server) != first
