"""Issue points B1 and B7: who counts as one of the f, what too few replies do, and when a run ends."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from flsec._contracts.faults import FAILURES, faults, first_array
from flsec._contracts.server import MODEL, honest, npy_bytes
from flsec.errors import ConfigError, NoProgressError
from flsec.strategies import SLSGD, Bulyan, Krum, Median, MultiKrum, NormClipping, RobustStrategy, TrimmedMean
from tests.support.boundary import (
    assert_bounded,
    assert_kept,
    assert_moved,
    both_apis,
    counts,
    fedavg,
    moved,
    nan,
    play,
    quarantined,
    report,
    sends,
    server,
    silence,
    why_kept,
)

# f, the fewest clients that the rule works with, and how it is built; every rule that has a precondition.
RULES = {
    "Krum": (3, 9, lambda inner, **o: Krum(inner, num_byzantine=3, **o)),
    "MultiKrum": (3, 9, lambda inner, **o: MultiKrum(inner, num_byzantine=3, **o)),
    "Bulyan": (2, 11, lambda inner, **o: Bulyan(inner, num_byzantine=2, **o)),
    "TrimmedMean": (3, 7, lambda inner, **o: TrimmedMean(inner, num_trimmed=3, **o)),
    "SLSGD": (3, 7, lambda inner, **o: SLSGD(inner, alpha=0.5, num_trimmed=3, **o)),
}
NESTED = {
    "NormClipping(Krum)": (3, 9, lambda inner, **o: NormClipping(Krum(inner, num_byzantine=3, **o), max_norm=5.0, **o)),
    "Krum(NormClipping)": (3, 9, lambda inner, **o: Krum(NormClipping(inner, max_norm=5.0, **o), num_byzantine=3, **o)),
    # f = 2 of 7 leaves 5 to the trimmed mean, which needs 5 itself
    "MultiKrum(TrimmedMean)": (
        2,
        7,
        lambda inner, **o: MultiKrum(TrimmedMean(inner, num_trimmed=2, **o), num_byzantine=2, **o),
    ),
}
rules = pytest.mark.parametrize("name", RULES)
all_rules = pytest.mark.parametrize("name", {**RULES, **NESTED})


def built(name, api, num_clients, **options):
    f, fewest, make = {**RULES, **NESTED}[name]
    return f, fewest, make(fedavg(api, num_clients), **options)


# --- B1: a quarantined reply is one of the f --------------------------------------------------------------------


@both_apis
@all_rules
def test_f_crude_attackers_do_not_stop_a_rule_at_its_precondition(name, api):
    fewest = {**RULES, **NESTED}[name][1]
    f, _, strategy = built(name, api, fewest)
    hostile = dict.fromkeys(range(1, f + 1), nan)
    played = play(api, strategy, fewest, [1, 2, 3], sends(hostile))
    assert_moved(played)
    assert set(quarantined(played)) == set(hostile)
    assert np.isfinite(np.concatenate([a.ravel() for a in played.arrays])).all()


@both_apis
@all_rules
def test_each_malformed_reply_takes_one_off_n_and_off_f(name, api):
    """Every number of malformed replies up to f, in every form that we know."""
    f, fewest, _ = {**RULES, **NESTED}[name]
    known = [change for what, change in faults(api).items() if "metric" not in what and "num_examples" not in what]
    for start in range(0, len(known), f):
        group = known[start : start + f]
        _, _, strategy = built(name, api, fewest)
        played = play(api, strategy, fewest, answer=sends(dict(enumerate(group, start=1))))
        assert_moved(played)
        assert set(quarantined(played)) == set(range(1, len(group) + 1))


@both_apis
@rules
def test_the_rule_runs_with_what_is_left_of_f(name, api):
    """n - q with f - q is the rule with these parameters on these clients."""
    f, fewest, _ = RULES[name]
    q = f - 1
    _, _, strategy = built(name, api, fewest)
    attacked = play(api, strategy, fewest, answer=sends(dict.fromkeys(range(1, q + 1), nan)))
    others = fewest - q
    fewer = {
        "Krum": lambda inner: Krum(inner, num_byzantine=f - q),
        "MultiKrum": lambda inner: MultiKrum(inner, num_byzantine=f - q),
        "Bulyan": lambda inner: Bulyan(inner, num_byzantine=f - q),
        "TrimmedMean": lambda inner: TrimmedMean(inner, num_trimmed=f - q),
        "SLSGD": lambda inner: SLSGD(inner, alpha=0.5, num_trimmed=f - q),
    }[name](fedavg(api, others))
    alone = server(api, fewer, others, first=q + 1).play([1], honest)
    assert why_kept(alone) is None
    for a, b in zip(attacked.arrays, alone.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@both_apis
def test_three_nan_senders_of_ten_do_not_stop_krum(api):
    for defense in (Krum, MultiKrum):
        strategy = defense(fedavg(api, 10), num_byzantine=3)
        assert_moved(play(api, strategy, 10, [1, 2], sends(dict.fromkeys((2, 5, 9), nan))))


@both_apis
def test_more_malformed_replies_than_f_leave_no_fault_to_tolerate(api):
    """All but two send NaN: f is used up, and what is left is below n = 3 for f = 0."""
    strategy = Krum(fedavg(api, 9), num_byzantine=3)
    assert_kept(play(api, strategy, 9, answer=sends(dict.fromkeys(range(1, 8), nan))), "Krum")


# --- B1: a silent client is no proof of an attack ---------------------------------------------------------------

SILENT = {"no reply": silence, **FAILURES}


@both_apis
@rules
@pytest.mark.parametrize("how", SILENT)
def test_a_silent_client_lowers_n_only(name, api, how):
    f, fewest, strategy = built(name, api, RULES[name][1])
    short = play(api, strategy, fewest, answer=sends({1: SILENT[how]}))
    assert_kept(short, name)
    assert_bounded(short)
    _, _, one_more = built(name, api, fewest + 1)
    assert_moved(play(api, one_more, fewest + 1, answer=sends({1: SILENT[how], **dict.fromkeys(range(2, f + 2), nan)})))


@both_apis
def test_who_was_not_asked_and_second_replies_take_nothing_off_f(api):
    """A stranger's NaN costs no tolerated fault: with n = 9 and f = 3, one silent client is still one too few."""

    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        if client_id == 1:
            return [replace(nan(reply), sender=99)]  # client 1 is silent, a stranger sends NaN
        return [reply, nan(reply)] if client_id == 2 else [reply]  # the first counts

    strategy = Krum(fedavg(api, 9), num_byzantine=3)
    played = play(api, strategy, 9, answer=answer)
    assert_kept(played, "Krum")
    seen = report(played).verdicts[0].participants if report(played).verdicts else tuple(range(2, 10))
    assert 2 in seen, "the first reply of a client counts, whatever it sends after it"

    def with_all(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [reply, nan(reply)] if client_id == 2 else [reply]

    assert_moved(play(api, Krum(fedavg(api, 9), num_byzantine=3), 9, answer=with_all))


# --- B1: when_short, unsafe -------------------------------------------------------------------------------------


def says(played, *words):
    """Whether the last round's report says these words of its rule, somewhere."""
    text = " ".join(str(verdict.notes) for verdict in report(played).verdicts).lower()
    return all(word in text for word in words)


@both_apis
@rules
def test_largest_f_runs_the_rule_as_far_as_the_clients_go_and_says_so(name, api):
    f, fewest, strategy = built(name, api, RULES[name][1], when_short="largest_f")
    played = play(api, strategy, fewest, answer=sends({1: silence}))
    assert_moved(played)
    smaller = {
        "Krum": lambda inner: Krum(inner, num_byzantine=f - 1),
        "MultiKrum": lambda inner: MultiKrum(inner, num_byzantine=f - 1),
        "Bulyan": lambda inner: Bulyan(inner, num_byzantine=f - 1),
        "TrimmedMean": lambda inner: TrimmedMean(inner, num_trimmed=f - 1),
        "SLSGD": lambda inner: SLSGD(inner, alpha=0.5, num_trimmed=f - 1),
    }[name](fedavg(api, fewest - 1))
    alone = server(api, smaller, fewest - 1, first=2).play([1], honest)
    for a, b in zip(played.arrays, alone.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    short_notes = report(played).verdicts[0].notes
    full = play(api, built(name, api, fewest, when_short="largest_f")[2], fewest)
    assert_moved(full)
    assert set(short_notes) > set(report(full).verdicts[0].notes), "a short round must be told from a full one"
    assert str(f - 1) in str(short_notes), f"the report does not say that f is {f - 1}: {short_notes}"


@both_apis
def test_largest_f_says_so_in_every_report(api):
    strategy = Krum(fedavg(api, 9), num_byzantine=3, when_short="largest_f")
    played = server(api, strategy, 9)
    for number in (1, 2, 3):
        played.play([number], sends({1: silence}))
        assert report(played).round == number
        assert "2" in str(report(played).verdicts[0].notes), f"round {number} does not say that f is 2"


@both_apis
def test_largest_f_cannot_conjure_clients(api):
    """Krum with f = 0 needs three."""
    strategy = Krum(fedavg(api, 9), num_byzantine=3, when_short="largest_f")
    assert_kept(play(api, strategy, 9, answer=sends(dict.fromkeys(range(1, 8), silence))), "Krum")


@both_apis
def test_flowers_own_krum_setting_works_only_as_unsafe(api):
    """Flower's tests have n = 3, f = 1; Blanchard et al. prove Krum for n >= 5."""
    with pytest.raises(ConfigError, match="min_fit_clients" if api == "classic" else "min_train_nodes"):
        play(api, Krum(fedavg(api, 3), num_byzantine=1), 3)
    played = server(api, Krum(fedavg(api, 3), num_byzantine=1, unsafe=True), 3)
    for number in (1, 2):
        played.play([number])
        assert_moved(played)
        assert says(played, "unsafe") or says(played, "guarantee"), f"round {number} does not say that it is unsafe"


@both_apis
@pytest.mark.parametrize("defense", [Krum, MultiKrum])
def test_the_baselines_of_sirens_paper_run_as_unsafe(api, defense):
    """4 of 10 are hostile in SIREN's figures: Krum would need 11."""
    with pytest.raises(ConfigError, match="min_fit_clients" if api == "classic" else "min_train_nodes"):
        play(api, defense(fedavg(api, 10), num_byzantine=4), 10)
    far = {i: lambda r: first_array(r, lambda a: a + 50) for i in (1, 4, 6, 9)}
    played = play(api, defense(fedavg(api, 10), num_byzantine=4, unsafe=True), 10, [1, 2], sends(far))
    assert_moved(played)
    assert says(played, "unsafe") or says(played, "guarantee")


@both_apis
@rules
def test_a_rule_within_its_guarantee_does_not_claim_to_be_unsafe(name, api):
    _, fewest, strategy = built(name, api, RULES[name][1], unsafe=True)
    played = play(api, strategy, fewest)
    assert_moved(played)
    safe = play(api, built(name, api, fewest)[2], fewest)
    for a, b in zip(played.arrays, safe.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("option", "value"),
    [("when_short", "guess"), ("unsafe", "yes"), ("patience", 0), ("patience", 1.5), ("patience", "long")],
)
@pytest.mark.parametrize("defense", [Median, NormClipping, RobustStrategy])
def test_bad_options_are_refused_by_name(defense, option, value):
    with pytest.raises(ConfigError, match=option):
        defense(fedavg("classic", 2), **{option: value})


# --- B7: a sample that the rule can never use -------------------------------------------------------------------


def asks(api, number, available):
    """A FedAvg that asks ``number`` of the clients."""
    sampling, who = ("fraction_fit", "clients") if api == "classic" else ("fraction_train", "nodes")
    kind = "fit" if api == "classic" else "train"
    return fedavg(
        api, available, **{sampling: number / available, f"min_{kind}_{who}": number, f"min_available_{who}": available}
    )


@both_apis
@all_rules
def test_a_sample_that_is_too_small_is_refused_before_clients_train(name, api):
    _, fewest, make = {**RULES, **NESTED}[name]
    trained = []

    def answer(round, client_id, arrays):
        trained.append(client_id)
        return honest(round, client_id, arrays)

    setting = "min_fit_clients" if api == "classic" else "min_train_nodes"
    with pytest.raises(ConfigError, match=setting) as caught:
        play(api, make(asks(api, fewest - 1, 30)), 30, answer=answer)
    assert str(fewest) in str(caught.value), f"does not say how many would do: {caught.value}"
    assert not trained, "clients trained for nothing"
    assert_moved(play(api, make(asks(api, fewest, 30)), 30))


@both_apis
def test_case_18_two_of_twenty_for_a_rule_that_needs_seven(api):
    strategy = MultiKrum(asks(api, 2, 20), num_byzantine=2)
    with pytest.raises(ConfigError, match="min_fit_clients" if api == "classic" else "min_train_nodes"):
        play(api, strategy, 20)


@both_apis
def test_a_sample_that_shrinks_later_asks_nobody_and_counts_for_patience(api, caplog):
    """Half of the clients leave after round 1: no error at once, no training for nothing, an end in time."""
    inner = asks(api, 9, 9)
    played = server(api, Krum(inner, num_byzantine=3, patience=3), 9)
    played.play([1], honest)
    assert_moved(played)
    before = played.arrays
    for name, value in counts(api, 4).items():
        setattr(inner, name, value)
    fraction = "fraction_fit" if api == "classic" else "fraction_train"
    setattr(inner, fraction, 0.1)
    trained = []

    def answer(round, client_id, arrays):
        trained.append(client_id)
        return honest(round, client_id, arrays)

    with caplog.at_level(logging.WARNING, "flsec"):
        played.play([2, 3], answer)
    assert not trained, "clients trained for nothing"
    assert "9" in caplog.text, "nothing is logged"
    for a, b in zip(before, played.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(NoProgressError):
        played.play([4], answer)


# --- B7: patience -----------------------------------------------------------------------------------------------


@both_apis
def test_ten_rounds_without_a_new_model_end_the_run(api):
    played = server(api, Median(fedavg(api, 3)), 3)
    played.play(range(1, 10), sends(dict.fromkeys((1, 2, 3), nan)))
    assert_kept(played, "")
    with pytest.raises(NoProgressError) as caught:
        played.play([10], sends(dict.fromkeys((1, 2, 3), nan)))
    assert isinstance(caught.value, RuntimeError)
    assert "10" in str(caught.value)
    assert "patience" in str(caught.value), "does not say which setting ends the run"


@both_apis
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_counts_rounds_in_a_row(api, patience):
    played = server(api, Median(fedavg(api, 3), patience=patience), 3)
    garbage = sends(dict.fromkeys((1, 2, 3), nan))
    number = 0
    for _ in range(3):  # a good round starts the count again
        for _ in range(patience - 1):
            number += 1
            played.play([number], garbage)
        number += 1
        played.play([number])
        assert why_kept(played) is None
    played.play(range(number + 1, number + patience), garbage)
    with pytest.raises(NoProgressError):
        played.play([number + patience], garbage)


@both_apis
def test_no_patience_goes_on_for_ever(api):
    played = play(api, Median(fedavg(api, 3), patience=None), 3, range(1, 25), sends(dict.fromkeys((1, 2, 3), nan)))
    assert not moved(played)


@both_apis
def test_patience_covers_silent_clients_and_a_wrapped_strategy_that_gives_nothing(api):
    nobody = server(api, Median(fedavg(api, 3), patience=2), 3).play([1], lambda *_: [])
    with pytest.raises(NoProgressError):
        nobody.play([2], lambda *_: [])

    class Gives(type(fedavg(api, 3))):
        def aggregate_fit(self, *args, **kwargs):
            return None, {}

        def aggregate_train(self, *args, **kwargs):
            return None, None

    nothing = server(api, Median(Gives(**counts(api, 3)), patience=2), 3).play([1])
    assert_kept(nothing, "Gives")
    with pytest.raises(NoProgressError):
        nothing.play([2])


@both_apis
def test_patience_of_nested_wrappers_is_the_outermosts(api):
    strategy = NormClipping(Median(fedavg(api, 3), patience=1), max_norm=1.0, patience=3)
    garbage = sends(dict.fromkeys((1, 2, 3), nan))
    played = play(api, strategy, 3, [1, 2], garbage)
    with pytest.raises(NoProgressError):
        played.play([3], garbage)


# --- B7: the first model ----------------------------------------------------------------------------------------

FIRST_MODELS = {
    "empty": {},
    "NaN": {"w": np.array([np.nan, 1.0], np.float32)},
    "infinite": {"w": np.array([1.0, -np.inf]), "b": np.ones(2, np.float32)},
    "NaN in float16": {"w": np.array([np.nan, 1.0], np.float16)},
    "NaN in complex": {"w": np.array([1.0, complex(0, np.nan)], np.complex64)},
}


@both_apis
@pytest.mark.parametrize("what", FIRST_MODELS)
@pytest.mark.parametrize("defense", [Median, lambda s: NormClipping(s, max_norm=1.0)])
def test_a_first_model_that_is_empty_or_not_finite_is_an_error_that_says_so(what, defense, api):
    trained = []

    def answer(round, client_id, arrays):
        trained.append(client_id)
        return honest(round, client_id, arrays)

    with pytest.raises(ConfigError, match=r"model|parameters|arrays") as caught:
        play(api, defense(fedavg(api, 5)), 5, answer=answer, model=FIRST_MODELS[what])
    word = "empty" if what == "empty" else "finite"
    assert word in str(caught.value) or (word == "empty" and "no " in str(caught.value)), str(caught.value)
    assert not trained


def test_initial_parameters_that_are_a_list_are_an_error_that_says_so():
    """Flower's issue 764: a list of arrays in the place of Parameters, which Flower hands on as it is."""

    def run():
        strategy = Median(fedavg("classic", 3, initial_parameters=list(MODEL.values())))
        played = server("classic", strategy, 3)
        given = strategy.initialize_parameters(client_manager=played.manager)
        strategy.configure_fit(server_round=1, parameters=given, client_manager=played.manager)

    with pytest.raises(ConfigError, match=r"initial_parameters|Parameters"):
        run()


@both_apis
def test_a_hostile_first_client_of_a_run_without_initial_model_is_no_riddle(api):
    """The model that Flower fetched from a random client is NaN: said in round 1, not as every client's fault."""
    model = {name: array * np.nan if array.dtype.kind == "f" else array for name, array in MODEL.items()}
    with pytest.raises(ConfigError, match="finite"):
        play(api, Median(fedavg(api, 4)), 4, model=model)


def test_the_model_here_is_the_one_that_the_helpers_send():
    assert [npy_bytes(a) for a in MODEL.values()] == play("classic", fedavg("classic", 2), 2, []).tensors


@both_apis
def test_a_first_choice_made_before_the_clients_came_is_made_again(api):
    """Flower counts the clients that are there, waits for the rest, and asks as many as it had counted: two."""
    asked = []

    class Early(type(fedavg(api, 9))):
        def num_fit_clients(self, num_available):
            asked.append(num_available)
            return (2 if len(asked) == 1 else 9), 9

        def configure_train(self, *args):
            asked.append(None)
            self.min_train_nodes = 2 if len(asked) == 1 else 9
            self.fraction_train = 0.01
            return super().configure_train(*args)

    played = play(api, Krum(Early(**counts(api, 9)), num_byzantine=3), 9, [1, 2], honest)
    assert_moved(played)
    assert len(asked) == 3
    assert len(report(played).verdicts[0].participants) == 9
