"""Issue point B5: where every reply is the same sum, there are no single updates to judge."""

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.common import Code, FitRes, Parameters, Status

from flsec._contracts.server import MODEL, Reply, flower_array, honest, npy_bytes
from flsec.errors import ConfigError, NoProgressError
from flsec.strategies import Krum, Median, MultiKrum, NormClipping, RobustStrategy
from tests.support.boundary import assert_kept, assert_moved, both_apis, fedavg, nan, play, sends, server, silence

N = 7
DEFENSES = {
    "Median": Median,
    "MultiKrum": lambda s: MultiKrum(s, num_byzantine=2),
    "NormClipping(Krum)": lambda s: NormClipping(Krum(s, num_byzantine=2), max_norm=1.0),
}
every_defense = pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)


def same_sum(round, client_id, arrays):
    """What SecAgg+ hands to the strategy: the aggregate, in every client's name; counts and metrics differ."""
    reply = honest(round, 1, arrays)[0]
    return [Reply(reply.tensors, 10 + client_id, {"train-loss": 0.1 * client_id})]


@both_apis
@every_defense
def test_the_same_sum_from_all_is_refused_with_the_reason(api, make):
    assert_kept(play(api, make(fedavg(api, N)), N, [1, 2], same_sum), "secure aggregation")


@both_apis
def test_case_08b_a_poisoned_sum_does_not_go_through(api):
    def poisoned(round, client_id, arrays):
        rng = np.random.default_rng(round)
        new = [(a + 2e5 * rng.standard_normal(a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a for a in arrays]
        return [Reply(tuple(map(npy_bytes, new)), 50)]

    assert_kept(play(api, Median(fedavg(api, 5)), 5, [1], poisoned), "secure aggregation")


@both_apis
@pytest.mark.parametrize("gone", [silence, nan])
def test_some_who_send_nothing_or_garbage_do_not_hide_it(api, gone):
    changes = dict.fromkeys((2, 5), gone)
    assert_kept(play(api, Median(fedavg(api, N)), N, [1], sends(changes, same_sum)), "secure aggregation")


@both_apis
def test_two_replies_are_enough_to_tell(api):
    assert_kept(play(api, Median(fedavg(api, 2)), 2, [1], same_sum), "secure aggregation")


@both_apis
def test_the_same_values_in_another_form_are_the_same(api):
    """Flower writes the sum once for all, but who knows: float64 of the same values is no other update."""

    def answer(round, client_id, arrays):
        reply = same_sum(round, client_id, arrays)[0]
        wide = [a.astype(np.float64) if a.dtype == np.float32 and client_id == 3 else a for a in reply.arrays]
        return [Reply(tuple(map(npy_bytes, wide)), 10)]

    assert_kept(play(api, Median(fedavg(api, N)), N, [1], answer), "secure aggregation")


@both_apis
@every_defense
def test_one_who_differs_is_enough_to_go_on(api, make):
    """A single different reply proves that they are updates of clients."""

    def answer(round, client_id, arrays):
        return honest(round, 3, arrays) if client_id == 3 else same_sum(round, client_id, arrays)

    assert_moved(play(api, make(fedavg(api, N)), N, [1], answer))


@both_apis
@every_defense
def test_honest_rounds_are_no_secure_aggregation(api, make):
    assert_moved(play(api, make(fedavg(api, N)), N, [1, 2]))


@both_apis
def test_one_client_is_not_everybody(api):
    assert_moved(play(api, Median(fedavg(api, 1)), 1, [1], honest))


@both_apis
def test_all_who_send_the_global_model_back_have_simply_not_trained(api):
    """No sum: a round in which nobody learned (a learning rate of zero) is no secure aggregation."""

    def untrained(round, client_id, arrays):
        return [Reply(tuple(map(npy_bytes, arrays)))]

    played = play(api, Median(fedavg(api, N)), N, [1], untrained)
    reason = played.strategy.last_report.kept_previous_model
    assert reason is None or "secure aggregation" not in reason


@both_apis
def test_it_counts_for_patience(api):
    played = server(api, Median(fedavg(api, N), patience=2), N).play([1], same_sum)
    with pytest.raises(NoProgressError, match="secure aggregation"):
        played.play([2], same_sum)


@both_apis
def test_the_model_is_kept_to_the_bit(api):
    played = play(api, Median(fedavg(api, N)), N, [1, 2, 3], same_sum)
    assert played.tensors == [npy_bytes(a) for a in MODEL.values()]


# --- Flower's own workflow -------------------------------------------------------------------------------------------


def workflow_round(strategy):
    """What Flower's SecAgg+ does first in a round: ask the strategy whom to send the model."""
    from flwr.app import ConfigRecord, RecordDict
    from flwr.server import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    played = server("classic", strategy, N)
    context = LegacyContext.__new__(LegacyContext)
    context.strategy, context.client_manager = strategy, played.manager
    arrays = ArrayRecord({str(i): flower_array(data) for i, data in enumerate(played.tensors)})
    context.state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}), MAIN_PARAMS_RECORD: arrays})
    return SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2).setup_stage(None, context, None)


@every_defense
def test_flowers_workflow_is_refused_before_clients_train(make):
    with pytest.raises(ConfigError, match="secure aggregation"):
        workflow_round(make(fedavg("classic", N)))


def test_the_workflow_of_the_test_is_the_one_that_asks_the_strategy():
    """Without a defense it gets past the strategy, and fails for lack of a grid only."""
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):
        workflow_round(fedavg("classic", N))


@pytest.mark.parametrize("make", [RobustStrategy, lambda s: NormClipping(s, max_norm=1.0)])
def test_one_object_in_the_place_of_all_replies_is_refused_by_every_wrapper(make):
    """As SecAgg+ leaves them: each FitRes holds the very same Parameters."""
    strategy = make(fedavg("classic", N))
    played = server("classic", strategy, N)
    instructions = strategy.configure_fit(1, Parameters(list(played.tensors), "numpy.ndarray"), played.manager)
    one = Parameters([npy_bytes(a + 1 if a.dtype.kind == "f" else a) for a in MODEL.values()], "numpy.ndarray")
    results = [(proxy, FitRes(Status(Code.OK, ""), one, 10, {})) for proxy, _ in instructions]
    strategy.aggregate_fit(1, results, [])
    assert "secure aggregation" in strategy.last_report.kept_previous_model
