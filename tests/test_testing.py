"""Each check of the contracts can fail: a rule, a defense or an attack that is broken in just that way."""

import io
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.client import NumPyClient
from flwr.common import FitIns, Parameters
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg as MessageFedAvg

import flsec.strategies.replies
from flsec._contracts.attacks import AttackBattery
from flsec._contracts.battery import quiet
from flsec._contracts.defenses import DefenseBattery
from flsec._contracts.optimizers import OptimizerBattery
from flsec._contracts.rules import RuleBattery
from flsec._contracts.server import flower_strategy, from_npy, npy_bytes
from flsec.aggregation import mean, median
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import Attack, LabelFlipping, SignFlipping
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.client_apps.poison import Poison
from flsec.errors import ConfigError
from flsec.strategies import FedNova, KeepPreviousModel, RobustStrategy, TrimmedMean
from flsec.testing import (
    EXAMPLE_PARAMETERS,
    check_attack,
    check_rule,
    check_server_optimizer,
    check_strategy,
    example,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def checks_of(battery):
    return {name for name in vars(battery) if not name.startswith("_")}


def assert_fails(battery, check, reason):
    with quiet("flwr", "flsec"), pytest.raises(Exception) as caught:  # noqa: PT011 - any; the reason is what counts
        getattr(battery, check)()
    assert re.search(reason, f"{type(caught.value).__name__}: {caught.value}")


# --- rules ------------------------------------------------------------------------------------------------------


def in_place(u):
    u -= u.mean(dim=0)
    return u.sum(dim=0)


def krum_by_expansion(u):
    """Squared distances as |a|^2 + |b|^2 - 2ab, which cancels; otherwise right."""
    squares = (u * u).sum(dim=1)
    distances = squares[:, None] + squares[None, :] - 2 * u @ u.T
    return u[distances.sort(dim=1).values[:, 1 : len(u) - 3].sum(dim=1).argmin()].clone()


def wastes_randomness(u):
    torch.rand(1)
    return median(u)


def stops_at_nan(u):
    if not u.isfinite().all():
        raise ValueError("NaN in the updates")
    return median(u)


BROKEN_RULES = [
    ("returns_one_row_of_the_same_kind", lambda u: u.mean(dim=0).double(), "float64 for torch.float32"),
    ("returns_one_row_of_the_same_kind", lambda u: u, "shape"),
    ("does_not_modify_its_input", in_place, "were changed"),
    ("does_not_modify_its_input", lambda u: u[0], "shares memory"),
    ("is_deterministic", lambda u: median(u) + torch.rand(u.shape[1], dtype=u.dtype), "two results"),
    ("is_deterministic", wastes_randomness, "global random state"),
    ("ignores_the_order_of_rows", lambda u: u[0].clone(), "not close"),
    ("follows_a_shift", lambda u: median(u.clamp(-2, 2)), "not close"),
    ("follows_a_scale", lambda u: median(u) + 0.1, "not close"),
    ("agrees_with_rows_that_agree", lambda u: median(u) * 1.01, "not close"),
    ("agrees_in_float32_and_float64", krum_by_expansion, "not close"),
    ("works_with_the_fewest_clients", median, "n = 4 is accepted"),
    ("refuses_what_is_no_matrix", lambda u: u.mean(dim=0), "is accepted|instead of ConfigError"),
    ("never_raises_because_of_a_value", stops_at_nan, "NaN in the updates"),
    ("withstands_hostile_rows", mean, "move the result by"),
    ("withstands_nan_and_infinity", lambda u: u.median(dim=0).values, "rows of nan"),  # torch's median: NaN
]


def rule_battery(rule, fewest=1, shift=True, scale=True, byzantine=2):
    return RuleBattery(rule, shift, scale, fewest, byzantine, 2.0)


@pytest.mark.parametrize(("check", "broken", "reason"), BROKEN_RULES)
def test_each_check_of_a_rule_can_fail(check, broken, reason):
    getattr(rule_battery(median), check)()
    fewest = 5 if check == "works_with_the_fewest_clients" else 1
    assert_fails(rule_battery(broken, fewest), check, reason)


def test_no_check_of_a_rule_is_left_out():
    assert {check for check, _, _ in BROKEN_RULES} == checks_of(RuleBattery)


@pytest.mark.parametrize("num_byzantine", [1, 2, 3])
def test_the_mean_fails_the_breakdown_check_by_name(num_byzantine):
    check_rule(mean)
    with pytest.raises(AssertionError, match=r"mean: withstands hostile rows: .* move the result by"):
        check_rule(mean, num_byzantine=num_byzantine)


def test_a_rule_with_too_low_a_breakdown_point_fails():
    def trimmed(u):
        return u.sort(dim=0).values[1:-1].mean(dim=0)

    rule_battery(trimmed, byzantine=1).withstands_hostile_rows()
    with pytest.raises(AssertionError, match="2 equal rows"):
        rule_battery(trimmed, byzantine=2).withstands_hostile_rows()


def test_exemptions_switch_checks_off():
    def clipped(u):
        return median(u).clamp(-1, 1)

    with pytest.raises(AssertionError, match="follows a shift"):
        check_rule(clipped)
    check_rule(clipped, shift_equivariant=False, scale_equivariant=False)


# --- strategies -------------------------------------------------------------------------------------------------


class Sound(RobustStrategy):
    """A median that leans on the round before.

    Args:
        strategy: the strategy to protect.
        weighting: see ``RobustStrategy``.
        max_weight_ratio: see ``RobustStrategy``.
        max_num_examples: see ``RobustStrategy``.

    Source: made up.
    """

    state_names = ("previous",)

    def __init__(self, strategy, **options):
        super().__init__(strategy, **options)
        self.previous = None

    def on_aggregation(self, cohort):
        new = median(cohort.updates)
        self.previous = new if self.previous is None else 0.5 * (new + self.previous)
        return self.previous


class NoSource(Sound):
    """A median. It says neither what it takes nor where it is from."""


class TakesAnything(Sound):
    def __init__(self, strategy, *, level: object = 1, **options):
        super().__init__(strategy, **options)


class TwoFaced(Sound):
    def on_aggregation(self, cohort):
        new = super().on_aggregation(cohort)
        return new if hasattr(self.base, "fit_metrics_aggregation_fn") else 2 * new


class Inert(Sound):
    def on_aggregation(self, cohort):
        return torch.zeros_like(cohort.global_parameters)


class DropsSettings(Sound):
    def configure_fit(self, server_round, parameters, client_manager):
        instructions = super().configure_fit(server_round, parameters, client_manager)
        return [(proxy, FitIns(ins.parameters, {})) for proxy, ins in instructions]


class Secretive(Sound):
    def aggregate_fit(self, server_round, results, failures):
        result = super().aggregate_fit(server_round, results, failures)
        self.last_report = None
        return result


class Impatient(Sound):
    def aggregate_fit(self, server_round, results, failures):
        return super().aggregate_fit(server_round, results[:5], failures)


class Pedantic(Sound):
    def aggregate_fit(self, server_round, results, failures):
        exact = [(proxy, result) for proxy, result in results if type(result.num_examples) is int]
        return super().aggregate_fit(server_round, exact, failures)


class LastWord(Sound):
    def aggregate_fit(self, server_round, results, failures):
        return super().aggregate_fit(server_round, list({p.node_id: (p, r) for p, r in results}.values()), failures)


class Gullible(Sound):
    """Takes a stranger's reply for that of a client that was asked."""

    def aggregate_fit(self, server_round, results, failures):
        results = [(SimpleNamespace(cid="7", node_id=7) if p.node_id == 6 else p, result) for p, result in results]
        return super().aggregate_fit(server_round, results, failures)


class GivesUp(Sound):
    """As Flower's own privacy wrappers do."""

    def aggregate_fit(self, server_round, results, failures):
        return (None, {}) if failures else super().aggregate_fit(server_round, results, failures)


class Modest(Sound):
    def clients_needed(self, num_byzantine):
        return 4


class LowersItsMinimum(Sound):
    asked = False

    def configure_fit(self, server_round, parameters, client_manager):
        self.asked = True
        return super().configure_fit(server_round, parameters, client_manager)

    def clients_needed(self, num_byzantine):
        return 1 if self.asked else 4


class Tolerant(Sound):
    """Declares f, and trims what is left of it.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f.
        options: see ``RobustStrategy``.
    """

    def __init__(self, strategy, *, num_byzantine: int = 2, **options):
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine):
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort):
        f = self.faults(cohort)
        return cohort.updates.sort(dim=0).values[f : len(cohort) - f].mean(dim=0)


class Stubborn(Tolerant):
    """Runs with the f that it was given, however many are quarantined."""

    def on_aggregation(self, cohort):
        if len(cohort) < 2 * self.num_byzantine + 1:
            raise KeepPreviousModel("too few")
        return super().on_aggregation(cohort)


class ReadsMetrics(Sound):
    def before_aggregation(self, cohort):
        return cohort.keep([i for i, metrics in enumerate(cohort.metrics) if set(metrics or ()) == {"train-loss"}])


class BelievesOneCounter(Sound):
    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        counters = [from_npy(result.parameters.tensors[-1:])[0] for _, result in results]
        return Parameters([*parameters.tensors[:-1], npy_bytes(max(counters))], "numpy.ndarray"), metrics


class OneFloatType(Sound):
    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        arrays = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in from_npy(parameters.tensors)]
        return Parameters([npy_bytes(a) for a in arrays], "numpy.ndarray"), metrics


class Credulous(Sound):
    """Hides from the screen that all replies are the same sum."""

    def aggregate_fit(self, server_round, results, failures):
        results = sorted(results, key=lambda pair: pair[0].node_id)
        first = results[0][1].parameters
        results[0][1].parameters = Parameters([npy_bytes(from_npy(first.tensors)[0] + 0.01), *first.tensors[1:]], "")
        return super().aggregate_fit(server_round, results, failures)


class NoScreening(Sound):
    def aggregate_evaluate(self, server_round, *args, **kwargs):
        return self.strategy.aggregate_evaluate(server_round, *args, **kwargs)


class HoldsALock(Sound):
    def on_aggregation(self, cohort):
        self.lock = threading.Lock()
        return super().on_aggregation(cohort)


class ForgetsWhenCopied(Sound):
    def __getstate__(self):
        return {**vars(self), "previous": None}


class NoStateNames(Sound):
    state_names = ()


class StateOfObjects(Sound):
    state_names = ("previous", "ids")

    def on_aggregation(self, cohort):
        self.ids = set(cohort.client_ids)
        return super().on_aggregation(cohort)


class LendsItsState(Sound):
    def on_aggregation(self, cohort):
        if self.previous is None:
            self.previous = torch.zeros_like(cohort.global_parameters)
        self.previous.mul_(0.5).add_(median(cohort.updates))
        return self.previous.clone()

    def state_dict(self):
        return {**super().state_dict(), "state": {"previous": self.previous}}


BROKEN_DEFENSES = [
    ("is_documented", NoSource, "no Args: section"),
    ("refuses_bad_parameters", TakesAnything, "level=.* is accepted"),
    ("gives_the_same_model_in_both_apis", TwoFaced, "weight, FedAvg"),
    ("gives_the_same_model_in_both_apis", Inert, "leave the model as it was"),
    ("hands_on_the_wrapped_strategys_settings", DropsSettings, "proximal_mu does not reach"),
    ("reports_its_verdict", Secretive, "no report"),
    ("ignores_the_order_of_arrival", Impatient, "classic API: weight differs"),
    ("accepts_the_same_values_in_another_form", Pedantic, "a whole float"),
    ("quarantines_a_second_reply", LastWord, "names nobody, not client 7"),
    ("quarantines_who_was_not_asked", Gullible, "not client 6"),
    ("goes_on_when_clients_fail", GivesUp, "no report"),
    ("keeps_the_model_when_too_few_are_left", LowersItsMinimum, "moved with 3 usable replies"),
    ("screens_evaluations", NoScreening, "loss: "),
    ("counts_the_quarantined_as_faults", Stubborn, "2 of 5 send NaN, classic API: the model was kept: .*too few"),
    ("loses_no_update_because_of_metrics", ReadsMetrics, "no metrics .* differs by"),
    ("combines_integer_arrays", BelievesOneCounter, "a client that sends 1099511627776 steps sets"),
    ("works_in_every_float_type", OneFloatType, "float16, classic API: weight has dtype float32"),
    ("refuses_secure_aggregation", Credulous, "classic API: the model moved"),
    ("weighs_evaluations_as_updates", NoScreening, "classic API: the mean loss is .* instead of"),
    ("survives_pickling", HoldsALock, "lock"),
    ("survives_pickling", ForgetsWhenCopied, "differs by"),
    ("resumes_from_its_state", NoStateNames, "resumed after round 2: weight differs"),
    ("resumes_from_its_state", StateOfObjects, "ids'] is a set"),
    ("resumes_from_its_state", LendsItsState, "later rounds change a state|resumed after"),
]


def defense_battery(make):
    probe = make(flower_strategy("classic", "FedAvg", 2))
    return DefenseBattery(make, probe, probe.minimum_clients, 8)


@pytest.mark.parametrize(("check", "broken", "reason"), BROKEN_DEFENSES)
def test_each_check_of_a_defense_can_fail(check, broken, reason):
    assert_fails(defense_battery(broken), check, reason)


@pytest.mark.parametrize("make", [Sound, Modest, Tolerant])
def test_a_sound_defense_passes_every_check(make):
    battery = defense_battery(make)
    with quiet("flwr", "flsec"):
        for check in sorted(checks_of(DefenseBattery) - {"is_documented", "quarantines_malformed_replies"}):
            getattr(battery, check)()


HOLES = [
    ("check_num_examples", lambda *_: None, "num_examples: 0"),
    ("_read_as", lambda expected, header, data, name: np.load(io.BytesIO(data), allow_pickle=True), "one column less"),
]


@pytest.mark.parametrize(("name", "hole", "reason"), HOLES)
def test_a_screen_with_a_hole_fails(monkeypatch, name, hole, reason):
    monkeypatch.setattr(flsec.strategies.replies, name, hole)
    assert_fails(defense_battery(Sound), "quarantines_malformed_replies", reason)


def test_a_screen_of_evaluations_with_a_hole_fails(monkeypatch):
    monkeypatch.setattr("flsec.strategies._evaluation.check_num_examples", lambda *_: None)
    assert_fails(defense_battery(Sound), "screens_evaluations", "num_examples: 0")


def test_no_check_of_a_defense_is_left_out():
    tried = {check for check, _, _ in BROKEN_DEFENSES} | {"quarantines_malformed_replies"}
    assert tried == checks_of(DefenseBattery)


def test_the_message_names_defense_and_check():
    with pytest.raises(AssertionError, match=r"NoSource: is documented: .* has no Args: section"):
        check_strategy(NoSource)


# --- attacks ----------------------------------------------------------------------------------------------------


class Scaled(Attack):
    """Upload twice the update.

    Args:
        adversaries: see ``Attack``.
        camp: see ``Attack``.
        data_attribute: see ``Attack``.
        seed: see ``Attack``.

    Source: made up.
    """

    def poison_update(self, global_, local, context):
        return [g + 2 * (new - g) if new.dtype.kind == "f" else new for g, new in zip(global_, local, strict=True)]


class SaysNothing(Attack):
    """Upload twice the update."""


class TakesAnythingToo(Scaled):
    def __init__(self, *, level: object = 1, **options):
        super().__init__(**options)


class Delegates(Scaled):
    def __call__(self, target):
        attacked = super().__call__(target)

        class Shell(NumPyClient):
            def fit(self, parameters, config):
                return attacked.fit(parameters, config)

        return Shell if isinstance(target, type) else Shell()


class DoesNothing(Scaled):
    def poison_update(self, global_, local, context):
        return local


class SendsFloat64(Scaled):
    def poison_update(self, global_, local, context):
        return [2.0 * array.astype(np.float64) for array in local]


class SendsOneLine(Scaled):
    def poison_update(self, global_, local, context):
        return [array.reshape(1, -1) for array in local]


class Counts(Scaled):
    calls = 0

    def poison_update(self, global_, local, context):
        self.calls += 1
        return [array + self.calls for array in local]


class AlwaysOn(Scaled):
    def attacks(self, context):
        return True


class SpoilsEvaluation(Scaled):
    def __call__(self, target):
        attacked = super().__call__(target)
        cls = attacked if isinstance(attacked, type) else type(attacked)
        cls.evaluate = lambda self, parameters, config: (0.0, 1, {})
        return attacked


class ChangesTheClientsWeights(Scaled):
    def poison_update(self, global_, local, context):
        local[0] *= -1
        return local


class ChangesTheData(Scaled):
    def poison(self, num_examples, context):
        def darken(x):
            x *= 0
            return x

        return Poison(inputs=darken)


class KeepsTheData(LabelFlipping):
    def data_replaced(self, client, context):
        class Once:
            def __enter__(_):  # noqa: N805
                setattr(client, self.data_attribute, self.poisoned_dataset(client.trainset, context))

            def __exit__(*_):
                return None

        return Once()


class OnlyPairs(LabelFlipping):
    def poisoned_dataset(self, dataset, context):
        return super().poisoned_dataset(dataset, context) if isinstance(dataset, tuple) else dataset


class GlobalRandomness(Scaled):
    def poison_update(self, global_, local, context):
        return [array + np.random.random(array.shape).astype(array.dtype) for array in local]


class HasALock(Scaled):
    def __init__(self, **options):
        super().__init__(**options)
        self.lock = threading.Lock()


class Together(CohortAttack):
    """Upload the opposite.

    Args:
        knowledge: whose updates they know.
        options: see ``Attack``.

    Source: made up.
    """

    def rows(self, view):
        return -view.own

    def poison_cohort(self, view):
        return self.rows(view)


class OneRow(Together):
    def rows(self, view):
        return view.own[:1] * 2


class NotFinite(Together):
    def rows(self, view):
        return view.own / 0


class InPlace(Together):
    def rows(self, view):
        return view.own.neg_()


class SpoilsOthers(Together):
    def rows(self, view):
        view.others[:] = 0
        return -view.own


class Differs(Together):
    def rows(self, view):
        return view.own + torch.rand(1)


class UploadsTheirOwn(Together):
    def rows(self, view):
        return view.own.clone()


class ActsOnTheClientToo(Together):
    def fit(self, client, honest_fit, parameters, config):
        weights, num_examples, metrics = honest_fit(parameters, config)
        return [2 * array for array in weights], num_examples, metrics


flip = {"pairs": [(3, 9)]}


class SilentAlone(Together):
    def acts(self, context):
        return self.attacks(context)


BROKEN_ATTACKS = [
    ("is_documented", SaysNothing, {}, "no Args: section"),
    ("refuses_bad_parameters", TakesAnythingToo, {}, "level=.* is accepted"),
    ("keeps_the_clients_type", Delegates, {}, "no subclass"),
    ("does_what_it_says", DoesNothing, {}, "what an honest one sends"),
    ("does_what_it_says", SendsFloat64, {}, "an array of float64"),
    ("does_what_it_says", SendsOneLine, {}, "an array of shape"),
    ("is_the_same_in_all_forms", Counts, {}, "class: other results"),
    ("leaves_honest_rounds_and_clients_alone", AlwaysOn, {}, "class: client 1 attacks in round 1"),
    ("leaves_evaluation_and_properties_alone", SpoilsEvaluation, {}, "evaluate differs"),
    ("does_not_modify_what_it_is_given", ChangesTheClientsWeights, {}, "own weights were changed"),
    ("does_not_modify_what_it_is_given", ChangesTheData, {}, "caller's data were changed"),
    ("does_not_modify_what_it_is_given", KeepsTheData, flip, "not put back"),
    ("treats_all_forms_of_data_alike", OnlyPairs, flip, "Dataset"),
    ("depends_on_its_seed_alone", GlobalRandomness, {}, "global random state was used"),
    ("does_what_it_says", ActsOnTheClientToo, {}, "changed on the client already"),
    ("replaces_rows_of_a_cohort_as_promised", OneRow, {}, "rows of shape"),
    ("replaces_rows_of_a_cohort_as_promised", NotFinite, {}, "not finite"),
    ("replaces_rows_of_a_cohort_as_promised", InPlace, {}, "own updates were changed in place"),
    ("replaces_rows_of_a_cohort_as_promised", SpoilsOthers, {}, "others' updates were changed in place"),
    ("replaces_rows_of_a_cohort_as_promised", Differs, {}, "two calls differ"),
    ("replaces_rows_of_a_cohort_as_promised", UploadsTheirOwn, {}, "upload what they had"),
    ("refuses_to_attack_where_nobody_completes_it", SilentAlone, {}, "silently honest"),
    ("survives_pickling", HasALock, {}, "lock"),
]


def attack_battery(attack):
    attack.adversaries = Adversaries(num_clients=4, ids=[1], first_round=2, last_round=2)
    return AttackBattery(attack)


@pytest.mark.parametrize(("check", "broken", "parameters", "reason"), BROKEN_ATTACKS)
def test_each_check_of_an_attack_can_fail(check, broken, parameters, reason):
    assert_fails(attack_battery(broken(**parameters)), check, reason)


@pytest.mark.parametrize("attack", [Scaled(), LabelFlipping(**flip), Together()])
def test_a_sound_attack_passes_every_check(attack):
    check_attack(attack)


def test_no_check_of_an_attack_is_left_out():
    assert {check for check, _, _, _ in BROKEN_ATTACKS} == checks_of(AttackBattery)


def test_the_message_names_attack_and_check():
    with pytest.raises(AssertionError, match=r"DoesNothing: .*does what it says: .* an honest one sends"):
        check_attack(DoesNothing())


def test_the_checked_attack_itself_stays_as_it_is():
    attack = SignFlipping(scale=2.0)
    check_attack(attack)
    assert attack.adversaries is None


# --- server optimizers ------------------------------------------------------------------------------------------


class SoundStep(MessageFedAvg):
    """Half a step towards the average, and half of the step before."""

    factor = 0.5

    def __init__(self, **options):
        super().__init__(**options)
        self.before, self.velocity = {}, {}

    def configure_train(self, server_round, arrays, config, grid):
        self.before = {name: array.numpy() for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        average, metrics = super().aggregate_train(server_round, replies)
        if average is None:
            return None, metrics
        new = {}
        for name, array in average.items():
            step = self.step(array.numpy() - self.before[name]) + 0.5 * self.velocity.get(name, 0.0)
            self.velocity[name] = step
            new[name] = Array(np.asarray(self.before[name] + step, np.float32))
        return ArrayRecord(new), metrics

    def step(self, update):
        return self.factor * update


class StandsStill(SoundStep):
    factor = 0.0


class Scribbles(SoundStep):
    def configure_train(self, server_round, arrays, config, grid):
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for name in list(arrays):
            arrays[name] = Array(arrays[name].numpy() + np.float32(1))
        return messages


class Rolls(SoundStep):
    def step(self, update):
        return super().step(update) * np.float32(np.random.random())


class SeveralReplies(SoundStep):
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        return super().aggregate_train(server_round, replies) if len(replies) > 1 else (None, None)


class InAClosure(SoundStep):
    def __init__(self, **options):
        super().__init__(**options)
        rounds = []
        self.count = lambda: rounds.append(1) or len(rounds)

    def step(self, update):
        return super().step(update) / self.count()


class NoTauBound(FedNova):
    """FedNova as the paper has it: tau_eff is the mean of what clients say."""

    def before_aggregation(self, cohort):
        steps = torch.tensor([float(metrics.get("fednova-steps", 1.0)) for metrics in cohort.metrics])
        return cohort.with_updates(cohort.updates * (steps.mean() / steps)[:, None])


def asking_all(cls):
    return lambda: cls(fraction_evaluate=0.0, min_train_nodes=6, min_available_nodes=6)


BROKEN_OPTIMIZERS = [
    ("is_of_the_message_api", lambda: ClassicFedAvg(), "FedAvg is no flwr.serverapp.strategy.Strategy"),
    ("trains_a_model", asking_all(StandsStill), "two rounds leave the model as it was"),
    ("does_not_modify_what_it_is_given", asking_all(Scribbles), "the model of round 1 was changed"),
    ("gives_the_same_model_again", asking_all(Rolls), "two runs: .* differs"),
    (
        "works_with_a_defense",
        asking_all(SeveralReplies),
        "with the median: the model was kept: SeveralReplies returned",
    ),
    ("is_not_stopped_by_hostile_replies", lambda: NoTauBound(asking_all(MessageFedAvg)()), "for every metric"),
    ("resumes_from_its_state", asking_all(InAClosure), "bare, resumed after round 2: weight differs"),
]


@pytest.mark.parametrize(("check", "broken", "reason"), BROKEN_OPTIMIZERS)
def test_each_check_of_a_server_optimizer_can_fail(check, broken, reason):
    assert_fails(OptimizerBattery(broken), check, reason)


def test_a_sound_server_optimizer_passes_every_check():
    check_server_optimizer(asking_all(SoundStep))
    check_server_optimizer(f"{__name__}:SoundStep")
    assert {check for check, _, _ in BROKEN_OPTIMIZERS} == checks_of(OptimizerBattery)


def test_names_and_parameters_of_server_optimizers_are_checked():
    with pytest.raises(AssertionError, match=r"StandsStill.*trains a model: .* leave the model as it was"):
        check_server_optimizer(f"{__name__}:StandsStill")
    with pytest.raises(ConfigError, match=r"no strategy 'fedaddam'\. Did you mean 'fedadam'"):
        check_server_optimizer("fedaddam")
    with pytest.raises(ConfigError, match="takes parameters with a name only"):
        check_server_optimizer(asking_all(SoundStep), eta=1.0)


# --- example parameters -----------------------------------------------------------------------------------------


def needs_more(updates, num_byzantine, temperature: float):
    return updates.mean(dim=0)


def test_example_names_the_parameter_it_does_not_know():
    with pytest.raises(LookupError, match="temperature"):
        example(needs_more, torch.zeros(3, 2))
    known = {"num_byzantine": EXAMPLE_PARAMETERS["num_byzantine"], "temperature": 1.0}
    assert example(needs_more, torch.zeros(3, 2), temperature=1.0) == known


def test_example_takes_one_of_two_alternatives():
    wrapped = flower_strategy("classic", "FedAvg", 2)
    assert example(TrimmedMean, wrapped) == {"num_trimmed": EXAMPLE_PARAMETERS["num_trimmed"]}
    assert example(TrimmedMean, wrapped, beta=0.1) == {"beta": 0.1}
    assert example(LabelFlipping) == {"pairs": EXAMPLE_PARAMETERS["pairs"]}


def test_example_hands_on_the_refusal_of_a_target_that_no_example_suits():
    with pytest.raises(ConfigError, match="beta"):
        example(TrimmedMean, flower_strategy("classic", "FedAvg", 2), beta=0.7)
