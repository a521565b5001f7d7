import concurrent.futures
import os
import pickle
import random
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations, groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec import ConfigError
from flsec.attacks import Adversaries, adversaries


@pytest.fixture
def fresh_caches():
    def clear():
        for cached in (adversaries._drawn, adversaries._turned, adversaries._latest, adversaries._camp_of):
            cached.cache_clear()

    clear()
    yield clear
    clear()


# Fixed sets


def test_ids_attack_in_every_round():
    who = Adversaries(num_clients=10, ids=[7, 2])
    for round in (1, 2, 1000):
        assert who.active(round) == {2, 7}
        assert [client for client in range(10) if who.is_adversary(client, round)] == [2, 7]
    assert who.pool() == {2, 7}


def test_nobody_attacks_before_the_first_round():
    assert Adversaries(num_clients=10, ids=[7, 2]).active(0) == frozenset()


@pytest.mark.parametrize(
    "ids", [[3, 1], (1, 3), np.array([3, 1]), [np.int64(3), np.int32(1)]], ids=["list", "tuple", "array", "numpy ints"]
)
def test_ids_may_be_any_sequence_in_any_order(ids):
    who = Adversaries(num_clients=10, ids=ids)
    assert who == Adversaries(num_clients=10, ids=[1, 3])
    assert all(type(client) is int for client in who.active(1))


def test_a_range_is_a_sequence():
    assert Adversaries(num_clients=10, ids=range(4)).active(1) == {0, 1, 2, 3}


def test_a_count_is_drawn_once_and_stays():
    who = Adversaries(num_clients=50, count=7, seed=3)
    assert len(who.active(1)) == 7
    assert who.active(1) == who.active(2) == who.active(500) == who.pool()


def test_another_seed_draws_another_set():
    assert len({Adversaries(num_clients=50, count=7, seed=seed).pool() for seed in range(20)}) == 20


def test_every_client_and_every_pair_is_equally_likely():
    n, count, seeds = 8, 3, 4000
    drawn = [Adversaries(num_clients=n, count=count, seed=seed).pool() for seed in range(seeds)]
    singles = Counter(client for ids in drawn for client in ids)
    pairs = Counter(pair for ids in drawn for pair in combinations(sorted(ids), 2))
    assert len(pairs) == n * (n - 1) // 2
    for counts, p in ((singles, count / n), (pairs, count * (count - 1) / (n * (n - 1)))):
        five_sigma = 5 * (seeds * p * (1 - p)) ** 0.5
        assert all(abs(c - seeds * p) < five_sigma for c in counts.values())


def test_more_adversaries_are_the_fewer_and_others():
    sets = [Adversaries(num_clients=30, count=count, seed=5).pool() for count in range(31)]
    assert all(a < b for a, b in pairwise(sets))


@pytest.mark.parametrize(
    ("n", "fraction", "count"),
    [(20, 0.4, 8), (100, 0.29, 29), (10, 0.7, 7), (10, 1.0, 10), (10, 0.0, 0), (20, 0.19, 3), (35_000, 0.02, 700)],
)
def test_a_fraction_is_rounded_down_exactly(n, fraction, count):
    who = Adversaries(num_clients=n, fraction=fraction, seed=1)
    assert len(who.pool()) == count
    assert who.pool() == Adversaries(num_clients=n, count=count, seed=1).pool()


def test_only_candidates_are_drawn_and_the_fraction_is_of_all_clients():
    candidates = [2, 3, 5, 7, 11, 13]
    for seed in range(20):
        assert Adversaries(num_clients=20, count=4, candidates=candidates, seed=seed).pool() < set(candidates)
    everyone = Adversaries(num_clients=20, fraction=0.3, candidates=candidates)
    assert everyone.pool() == set(candidates)


# Redrawn


def test_redrawn_every_round():
    who = Adversaries(num_clients=20, count=5, redraw="every_round", seed=2)
    sets = [who.active(round) for round in range(1, 2001)]
    assert {len(ids) for ids in sets} == {5}
    assert len(set(sets)) > 1500  # of 15,504 possible
    share = 5 / 20
    seen = Counter(client for ids in sets for client in ids)
    assert all(abs(seen[c] - 2000 * share) < 5 * (2000 * share * (1 - share)) ** 0.5 for c in range(20))
    stays = sum(len(a & b) for a, b in pairwise(sets)) / (5 * 1999)
    assert stays == pytest.approx(share, abs=0.025)  # yesterday's adversary is as likely as anyone
    assert who.pool() == set(range(20))


def test_redrawn_among_the_candidates():
    who = Adversaries(num_clients=20, count=2, redraw="every_round", candidates=[4, 5, 6], seed=2)
    assert {client for round in range(1, 50) for client in who.active(round)} == {4, 5, 6} == who.pool()


# Persistent


def literal_states(draws, probability, persistence):
    """(rounds, clients) of bool, client by client, as DiverseFL's text has it."""
    rounds, clients = draws.shape
    byzantine = np.zeros((rounds, clients), dtype=bool)
    for client in range(clients):
        round = 0
        while round < rounds:
            if draws[round, client] < probability:  # in the normal state, chosen to be Byzantine
                for _ in range(persistence):
                    if round < rounds:
                        byzantine[round, client] = True
                        round += 1
            else:
                round += 1
    return byzantine


def states(who, rounds):
    return np.array([[client in ids for client in range(who.num_clients)] for ids in map(who.active, rounds)])


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("persistence", [1, 2, 5])
@pytest.mark.parametrize("first_round", [1, 4])
def test_persistence_is_the_state_machine_of_the_paper(
    probability, persistence, first_round, monkeypatch, fresh_caches
):
    draws = np.random.default_rng(7).random((40, 12))  # row r is round r + 1

    class Recorded:
        def __init__(self, seed, round, purpose):
            self.row = draws[round - 1]

        def random(self, size):
            assert size == len(self.row)
            return self.row

    monkeypatch.setattr(adversaries, "numpy_generator", Recorded)
    who = Adversaries(num_clients=12, probability=probability, persistence=persistence, first_round=first_round, seed=9)
    expected = np.zeros((40, 12), dtype=bool)
    expected[first_round - 1 :] = literal_states(draws[first_round - 1 :], probability, persistence)
    np.testing.assert_array_equal(states(who, range(1, 41)), expected)


def test_bursts_last_a_multiple_of_k_and_can_follow_one_another():
    who = Adversaries(num_clients=40, probability=0.3, persistence=5, seed=4)
    table = states(who, range(1, 301))
    lengths = Counter()
    for column in table.T:
        runs = [(state, len(list(run))) for state, run in groupby(column)]
        lengths.update(length for state, length in runs[:-1] if state)  # the last one may be cut
    assert all(length % 5 == 0 for length in lengths)
    assert lengths[10] > 0  # normal and turned again in the same round


@pytest.mark.parametrize(("p", "k"), [(0.5, 5), (0.1, 3), (0.2, 1), (1.0, 4)])
def test_long_run_share_of_byzantine_rounds(p, k):
    # A cycle is k Byzantine rounds and then (1 - p) / p normal ones in the mean: p k / (p k + 1 - p).
    # Were a normal round compulsory after each burst, it would be p k / (p k + 1): 0.714 and not 0.833 for (0.5, 5).
    who = Adversaries(num_clients=5000, probability=p, persistence=k, seed=11)
    share = np.mean([len(who.active(round)) / 5000 for round in range(100, 160)])
    assert share == pytest.approx(p * k / (1 - p + p * k), abs=0.01)


def test_first_round_share_is_p_and_grows_while_bursts_pile_up():
    who = Adversaries(num_clients=20_000, probability=0.1, persistence=5, seed=0)
    for round in range(1, 6):  # nobody returns to normal yet
        assert len(who.active(round)) / 20_000 == pytest.approx(1 - 0.9**round, abs=0.015)


def test_clients_turn_independently():
    who = Adversaries(num_clients=200, probability=0.3, persistence=2, seed=6)
    table = states(who, range(20, 520)).astype(float)
    correlation = np.corrcoef(table.T)[~np.eye(200, dtype=bool)]
    assert abs(correlation.mean()) < 0.01
    assert abs(correlation).max() < 0.4


def test_a_client_does_not_depend_on_who_else_is_a_candidate():
    everyone = Adversaries(num_clients=30, probability=0.3, persistence=3, seed=8)
    some = Adversaries(num_clients=30, probability=0.3, persistence=3, seed=8, candidates=[25, 4, 17])
    for round in range(1, 60):
        assert some.active(round) == everyone.active(round) & {4, 17, 25}
    assert some.pool() == {4, 17, 25}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=12), st.integers(0, 10**6), st.sampled_from([1, 2, 7]))
def test_the_order_of_questions_does_not_matter(rounds, seed, persistence):
    asked = Adversaries(num_clients=15, probability=0.2, persistence=persistence, seed=seed)
    answers = [asked.active(round) for round in rounds]
    for cached in (adversaries._turned, adversaries._latest):
        cached.cache_clear()
    in_order = {round: asked.active(round) for round in range(1, 81)}
    assert answers == [in_order[round] for round in rounds]


def test_threads_do_not_disturb_each_other(fresh_caches):
    who = Adversaries(num_clients=100, probability=0.1, persistence=4, seed=5)
    expected = {round: who.active(round) for round in range(1, 101)}
    fresh_caches()
    rounds = list(range(1, 101)) * 4
    random.Random(0).shuffle(rounds)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for round, active in zip(rounds, pool.map(who.active, rounds), strict=True):
            assert active == expected[round]


def test_probability_zero_and_one():
    assert Adversaries(num_clients=5, probability=0.0).pool() == frozenset()
    always = Adversaries(num_clients=5, probability=1.0, persistence=3)
    assert all(always.active(round) == set(range(5)) for round in range(1, 20))


# Window


@pytest.mark.parametrize(
    "selection",
    [{"ids": [1]}, {"count": 3}, {"count": 3, "redraw": "every_round"}, {"probability": 1.0, "persistence": 9}],
)
def test_nobody_attacks_outside_the_window(selection):
    who = Adversaries(num_clients=8, first_round=3, last_round=5, **selection)
    assert [bool(who.active(round)) for round in range(8)] == [False] * 3 + [True] * 3 + [False] * 2


@pytest.mark.parametrize("selection", [{"count": 3}, {"probability": 1.0, "persistence": 9}])
def test_the_last_round_only(selection):
    who = Adversaries(num_clients=8, last_round_only=True, num_rounds=20, **selection)
    assert [round for round in range(1, 25) if who.active(round)] == [20]


def test_the_last_round_only_asks_each_candidate_once():
    who = Adversaries(num_clients=20_000, probability=0.3, persistence=5, last_round_only=True, num_rounds=20)
    assert len(who.active(20)) / 20_000 == pytest.approx(0.3, abs=0.015)


# Camps


@pytest.mark.parametrize(
    ("camps", "count", "sizes"),
    [
        ({"a": 0.25, "b": 0.75}, 8, {"a": 2, "b": 6}),
        ({"a": 0.5, "b": 0.5}, 5, {"a": 3, "b": 2}),  # equal remainders: by name
        ({"b": 0.3, "a": 0.7}, 10, {"a": 7, "b": 3}),  # 0.3 * 10 and 0.7 * 10 are not whole in floats
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 4, {"a": 2, "b": 1, "c": 1}),
        ({"a": 0.6, "b": 0.25, "c": 0.15}, 7, {"a": 4, "b": 2, "c": 1}),  # quotas 4.2, 1.75, 1.05
        ({"a": 0.0, "b": 1.0}, 3, {"b": 3}),
        ({"a": 0.9, "b": 0.1}, 1, {"a": 1}),
    ],
)
def test_camps_have_exact_sizes(camps, count, sizes):
    for seed in range(5):
        who = Adversaries(num_clients=20, count=count, camps=camps, seed=seed)
        assert Counter(who.camp(client, 1) for client in who.active(1)) == sizes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any), st.integers(1, 200))
def test_no_camp_is_a_whole_client_away_from_its_share(parts, count):
    shares = {f"camp{i}": part / sum(parts) for i, part in enumerate(parts)}
    who = Adversaries(num_clients=200, count=count, camps=shares)
    sizes = Counter(who.camp(client, 1) for client in who.active(1))
    assert sum(sizes.values()) == count
    assert all(abs(sizes[name] - share * count) < 1 + 1e-3 for name, share in shares.items())


def test_the_honest_have_no_camp():
    who = Adversaries(num_clients=20, count=8, camps={"a": 0.5, "b": 0.5}, first_round=2)
    for client in range(20):
        assert who.camp(client, 1) is None
        assert (who.camp(client, 2) is None) == (client not in who.active(2))


def test_without_camps_there_is_none():
    who = Adversaries(num_clients=20, ids=[1])
    assert who.is_adversary(1, 1)
    assert who.camp(1, 1) is None


def test_camps_stay_for_the_run_and_do_not_follow_the_ids():
    who = Adversaries(num_clients=40, count=20, camps={"a": 0.5, "b": 0.5}, seed=1)
    first = {client: who.camp(client, 1) for client in who.pool()}
    assert first == {client: who.camp(client, 30) for client in who.pool()}
    in_order = [first[client] for client in sorted(first)]
    assert in_order not in (sorted(in_order), sorted(in_order, reverse=True))


def test_redrawn_adversaries_are_split_in_every_round():
    who = Adversaries(num_clients=20, count=8, redraw="every_round", camps={"a": 0.25, "b": 0.75}, seed=1)
    seen = {}
    for round in range(1, 40):
        camps = {client: who.camp(client, round) for client in who.active(round)}
        assert Counter(camps.values()) == {"a": 2, "b": 6}
        for client, camp in camps.items():
            seen.setdefault(client, set()).add(camp)
    assert any(camps == {"a", "b"} for camps in seen.values())


def test_nobody_changes_camp_while_the_attackers_vary():
    who = Adversaries(num_clients=40, probability=0.4, persistence=3, camps={"a": 0.25, "b": 0.75}, seed=1)
    seen = {}
    for round in range(1, 60):
        for client in who.active(round):
            seen.setdefault(client, set()).add(who.camp(client, round))
    assert all(len(camps) == 1 for camps in seen.values())
    assert Counter(next(iter(camps)) for camps in seen.values()) == {"a": 10, "b": 30}


# A value


EXAMPLES = [
    {"ids": [3, 1]},
    {"count": 4},
    {"fraction": 0.3, "redraw": "every_round", "camps": {"b": 0.5, "a": 0.5}},
    {"probability": 0.5, "persistence": 5, "candidates": [4, 2], "camps": {"b": 0.5, "a": 0.5}},
    {"count": 2, "last_round_only": True, "num_rounds": 3},
]


@pytest.mark.parametrize("arguments", EXAMPLES)
def test_equal_settings_are_equal_values(arguments):
    one, two = (Adversaries(num_clients=20, seed=1, **arguments) for _ in range(2))
    assert one == two == pickle.loads(pickle.dumps(one))
    assert len({one, two, pickle.loads(pickle.dumps(one))}) == 1
    assert one != Adversaries(num_clients=20, seed=2, **arguments)


def test_the_order_in_which_camps_are_written_does_not_matter():
    forth = Adversaries(num_clients=20, count=9, camps={"a": 0.5, "b": 0.5})
    back = Adversaries(num_clients=20, count=9, camps={"b": 0.5, "a": 0.5})
    assert forth == back
    assert pickle.dumps(forth) == pickle.dumps(back)


def test_it_cannot_be_changed_and_does_not_change_its_input():
    ids, camps = [3, 1], {"b": 0.5, "a": 0.5}
    who = Adversaries(num_clients=20, ids=ids, camps=camps)
    assert (ids, list(camps)) == ([3, 1], ["b", "a"])
    ids.append(5)
    camps["c"] = 1.0
    assert who.active(1) == {1, 3}
    assert {who.camp(client, 1) for client in (1, 3)} == {"a", "b"}
    with pytest.raises(AttributeError):
        who.count = 3


def test_sets_that_differ_only_in_their_ids_are_kept_apart():
    one, two = Adversaries(num_clients=9, ids=[1]), Adversaries(num_clients=9, ids=[2])
    assert (one.active(1), two.active(1), one.active(1)) == ({1}, {2}, {1})


ANSWERS = """
def answers(all_adversaries):
    for who in all_adversaries:
        yield sorted(who.pool())
        for round in range(1, 30):
            yield [(client, who.camp(client, round)) for client in sorted(who.active(round))]
"""


def test_every_process_agrees_whatever_its_hash_seed():
    examples = [Adversaries(num_clients=20, seed=1, **arguments) for arguments in EXAMPLES]
    code = (
        f"import pickle\n{ANSWERS}\n"
        "from flsec.attacks import Adversaries\n"
        f"received = pickle.loads({pickle.dumps(examples)!r})\n"
        f"made = [Adversaries(num_clients=20, seed=1, **arguments) for arguments in {EXAMPLES!r}]\n"
        "assert dict.fromkeys(received, 1) == dict.fromkeys(made, 1)\n"  # a hash kept in the pickle would differ
        "print(list(answers(made)))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    namespace = {}
    exec(ANSWERS, namespace)
    assert outputs == [repr(list(namespace["answers"](examples)))] * 2


def test_35_000_clients(capsys):
    arguments = {
        "count, redrawn": {"count": 17_500, "redraw": "every_round"},
        "probability": {"probability": 0.1, "persistence": 5},
        "17,500 ids": {"ids": list(range(17_500))},
    }
    for name, selection in arguments.items():
        who = Adversaries(num_clients=35_000, camps={"a": 0.5, "b": 0.5}, **selection)
        start = time.perf_counter()
        for round in range(1, 51):
            who.active(round)
        per_round = (time.perf_counter() - start) / 50
        start = time.perf_counter()
        found = sum(who.is_adversary(client, 50) for client in range(35_000))
        per_client = (time.perf_counter() - start) / 35_000
        start = time.perf_counter()
        camps = Counter(who.camp(client, 50) for client in who.active(50))
        per_camp = (time.perf_counter() - start) / found
        assert found == len(who.active(50)) == sum(camps.values())
        with capsys.disabled():
            print(
                f"\n35,000 clients, {name}: {1e3 * per_round:.2f} ms a new round, "
                f"{1e6 * per_client:.1f} us a client, {1e6 * per_camp:.1f} us a camp",
                end="",
            )


# Settings that cannot work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of ids, count, fraction, probability; got none. Give one, such as fraction=0.2"),
        ({"count": 1, "fraction": 0.1}, "exactly one of ids, count, fraction, probability; got count and fraction."),
        ({"ids": [1], "probability": 0.1}, "got ids and probability."),
        ({"num_clients": 0, "count": 0}, "num_clients must be greater than or equal to 1; got 0"),
        ({"count": -1}, "count must be greater than or equal to 0; got -1"),
        ({"count": 2.5}, "count must be a valid integer; got 2.5"),
        ({"count": 11}, "cannot draw more adversaries than there are clients, 10; got count=11. Use count=10 or fewer"),
        (
            {"fraction": 0.5, "candidates": [1, 2]},
            "more adversaries than there are candidates, 2; got fraction=0.5, so 5. Use count=2 or fewer",
        ),
        ({"fraction": 1.5}, "fraction must be less than or equal to 1; got 1.5"),
        ({"fraction": float("nan")}, "fraction must be"),
        ({"probability": -0.1}, "probability must be greater than or equal to 0; got -0.1"),
        ({"fraction": 0.05}, "fraction=0.05 of 10 clients is less than one adversary. Use fraction=0.1 or more"),
        ({"ids": [0, 10]}, "ids must lie in 0 to 9, since num_clients=10; got 10. Client ids are partition ids"),
        ({"ids": [-1]}, "ids must lie in 0 to 9, since num_clients=10; got -1"),
        ({"ids": [1, 3, 1]}, "ids must not repeat a client; got 1 twice. List it once"),
        ({"ids": ["a"]}, "ids[0] must be a valid integer"),
        ({"ids": 3}, "ids must be a valid sequence; got 3|ids must be an instance of Sequence; got 3"),
        ({"count": 1, "candidates": [12]}, "candidates must lie in 0 to 9, since num_clients=10; got 12"),
        ({"count": 1, "candidates": [2, 2]}, "candidates must not repeat a client; got 2 twice"),
        ({"ids": [1], "candidates": [1]}, "ids leaves nothing to draw; got both. Leave candidates out"),
        ({"probability": 0.5, "candidates": []}, "candidates must name at least one client; got []"),
        ({"ids": [1], "redraw": "every_round"}, "redraw='every_round' goes with count or fraction; got ids"),
        ({"probability": 0.5, "redraw": "every_round"}, "goes with count or fraction; got probability"),
        ({"count": 1, "redraw": "always"}, "redraw must be 'never' or 'every_round'; got 'always'"),
        ({"count": 1, "persistence": 5}, "persistence goes with probability; got persistence=5 with count"),
        ({"probability": 0.5, "persistence": 0}, "persistence must be greater than or equal to 1; got 0"),
        ({"count": 1, "first_round": 0}, "first_round must be greater than or equal to 1; got 0"),
        (
            {"count": 1, "first_round": 5, "last_round": 4},
            "last_round must not lie before first_round=5; got 4. Use last_round=5",
        ),
        (
            {"count": 1, "first_round": 21, "num_rounds": 20},
            "first_round must be one of the run's 20 rounds; got 21. Use first_round=20 or less",
        ),
        ({"count": 1, "last_round_only": True}, "which round is the last; got num_rounds=None. Add num_rounds=20"),
        (
            {"count": 1, "last_round_only": True, "num_rounds": 20, "last_round": 20},
            "last_round_only sets the window itself; got first_round=1, last_round=20 too",
        ),
        (
            {"count": 1, "last_round_only": True, "num_rounds": 20, "first_round": 3},
            "last_round_only sets the window itself; got first_round=3",
        ),
        (
            {"count": 4, "camps": {"a": 0.5, "b": 0.4}},
            "the shares in camps must sum to 1; got {'a': 0.5, 'b': 0.4}, which sums to 0.9. Use shares such as",
        ),
        ({"count": 4, "camps": {}}, "the shares in camps must sum to 1; got {}, which sums to 0"),
        ({"count": 4, "camps": {"a": 1.5, "b": -0.5}}, "camps must be"),
        ({"count": 4, "camps": {"a": float("nan"), "b": 1.0}}, "camps must be"),
    ],
)
def test_messages(arguments, message):
    with pytest.raises(ConfigError) as error:
        Adversaries(**{"num_clients": 10, **arguments})
    assert any(part in str(error.value) for part in message.split("|")), str(error.value)


@pytest.mark.parametrize("n", [1, 3, 7, 20, 999, 35_000])
def test_the_fraction_that_the_message_proposes_will_do(n):
    with pytest.raises(ConfigError) as error:
        Adversaries(num_clients=n, fraction=1e-6)
    proposed = float(re.search(r"Use fraction=([\d.]+) or more", str(error.value))[1])
    assert len(Adversaries(num_clients=n, fraction=proposed).pool()) >= 1


@pytest.mark.parametrize("client", [-1, 10, 2**63 - 25])
def test_a_node_id_is_no_client_id(client):
    who = Adversaries(num_clients=10, ids=[3])
    for question in (who.is_adversary, who.camp):
        with pytest.raises(ConfigError, match=f"client_id must be a partition id, 0 to 9; got {client}. A Flower node"):
            question(client, 1)


# Single and several shots


def attacked(**schedule):
    who = Adversaries(num_clients=10, ids=[2], **schedule)
    return [round for round in range(1, 21) if who.active(round)]


def test_several_shots_begin_with_the_first_round():
    assert attacked(every=7) == [1, 8, 15]
    assert attacked(every=4, first_round=3, last_round=12) == [3, 7, 11]
    assert attacked(every=1) == list(range(1, 21))


def test_listed_rounds_are_attacked_and_no_others():
    assert attacked(rounds=[17]) == [17]
    assert attacked(rounds=np.array([9, 3, 4])) == [3, 4, 9]
    assert Adversaries(num_clients=5, count=1, rounds=[4, 2]) == Adversaries(num_clients=5, count=1, rounds=(2, 4))


def test_shots_only_restrict_when_those_attack_who_would_anyway():
    whole = Adversaries(num_clients=30, probability=0.3, persistence=2, seed=4)
    shots = Adversaries(num_clients=30, probability=0.3, persistence=2, seed=4, rounds=[5, 9])
    assert [shots.active(round) for round in (4, 5, 9)] == [frozenset(), whole.active(5), whole.active(9)]
    assert shots.pool() == whole.pool()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": []}, "at least one round"),
        ({"rounds": [3, 3]}, "each once"),
        ({"rounds": [30], "num_rounds": 20}, "of the run's 20"),
        ({"rounds": [3], "first_round": 2}, "leaves nothing to first_round"),
        ({"rounds": [3], "every": 2}, "leaves nothing to every"),
        ({"rounds": [3], "last_round_only": True, "num_rounds": 5}, "last_round_only"),
        ({"last_round_only": True, "num_rounds": 5, "every": 2}, "every=2"),
        ({"rounds": [0]}, "rounds"),
        ({"every": 0}, "every"),
    ],
)
def test_shots_that_contradict_other_settings_or_hit_nothing_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Adversaries(num_clients=10, count=1, **settings)
