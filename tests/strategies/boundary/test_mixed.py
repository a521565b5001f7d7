"""Where two points meet: state in bfloat16, replies in a mixture of types, wrappers inside wrappers."""

import numpy as np
import pytest
from flwr.server.strategy import DifferentialPrivacyServerSideFixedClipping as ClassicDP
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as MessageDP

from flsec._contracts.server import Reply, npy_bytes
from flsec.strategies import Median, MultiKrum
from tests.support.boundary import both_apis, fedavg, play


def bfloat16(values):
    """Raw 2-byte values, as ``np.save`` makes of a bfloat16; exact for these numbers."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).view("V2")


MIXED = {
    "weight": bfloat16([1.0, 2.0]),
    "bn.running_mean": bfloat16([0.0, 0.0]),
    "bn.running_var": bfloat16([1.0, 1.0]),
    "bn.num_batches_tracked": np.array(3),
}


@both_apis
def test_state_in_bfloat16_and_replies_in_a_mixture_of_types(api):
    means = {1: np.array([0.5, 0.5], np.float32), 2: np.array([0.5, 0.5], np.float64)}

    def answer(round, client_id, arrays):
        step = np.array(4, np.int32 if client_id == 3 else np.int64)
        sent = [
            bfloat16([1.5, 2.0 + client_id]),
            means.get(client_id, bfloat16([0.5, 0.5])),
            bfloat16([2.0, 2.0]),
            step,
        ]
        return [Reply(tuple(map(npy_bytes, sent)), 10, {})]

    played = play(api, Median(fedavg(api, 5)), 5, [1], answer, model=MIXED)
    report = played.strategy.last_report
    assert report.quarantined == ()
    assert report.kept_previous_model is None
    expected = [bfloat16([1.5, 5.0]), bfloat16([0.5, 0.5]), bfloat16([2.0, 2.0]), np.array(4)]
    for array, wanted in zip(played.arrays, expected, strict=True):
        assert array.dtype == wanted.dtype
        assert array.tobytes() == wanted.tobytes()


@both_apis
@pytest.mark.parametrize("count", [np.array(2**40), np.array(-1, np.int64)])
def test_a_counter_too_large_for_the_models_type_is_quarantined(api, count):
    model = {"weight": np.zeros(2, np.float32), "steps": np.array(3, np.uint8)}

    def answer(round, client_id, arrays):
        steps = count.astype(np.uint64) if client_id == 2 else np.array(4, np.uint8)
        return [Reply((npy_bytes(np.array([1.0, client_id], np.float32)), npy_bytes(steps)), 10, {})]

    played = play(api, Median(fedavg(api, 5)), 5, [1], answer, model=model)
    assert {q.client_id for q in played.strategy.last_report.quarantined} == {2}
    assert played.arrays[1] == 4


@both_apis
def test_a_metrics_function_is_put_back_through_wrappers_inside_wrappers(api):
    def function(*given):
        return {"seen": 1.0}

    key = "fit_metrics_aggregation_fn" if api == "classic" else "train_metrics_aggr_fn"
    base = fedavg(api, 8, **{key: function})
    privacy = (ClassicDP if api == "classic" else MessageDP)(Median(base), 1e-6, 1.0, 8)

    def answer(round, client_id, arrays):
        moved = [(a + 0.01 * client_id + 0.001 * np.arange(a.size).reshape(a.shape)).astype(a.dtype) for a in arrays]
        return [Reply(tuple(map(npy_bytes, moved)), 10, {"loss": 0.5})]

    played = play(api, MultiKrum(privacy, num_byzantine=2), 8, [1, 2], answer)
    assert getattr(base, key) is function
    assert played.metrics["seen"] == 1.0
