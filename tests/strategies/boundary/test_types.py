"""Issue point B4: which kinds of numbers a model may be made of, and what becomes of them."""

import importlib.util
import io

import numpy as np
import pytest

from flsec._contracts.server import Reply, npy_bytes
from flsec.errors import ConfigError
from flsec.strategies import Krum, Median, MultiKrum, NormClipping, RobustStrategy, TrimmedMean
from tests.support.boundary import assert_moved, both_apis, fedavg, nan, play, quarantined, report, sends, why_kept

N = 9
DEFENSES = {
    "MultiKrum": lambda s: MultiKrum(s, num_byzantine=2),
    "Krum": lambda s: Krum(s, num_byzantine=2),
    "Median": Median,
    "TrimmedMean": lambda s: TrimmedMean(s, num_trimmed=2),
    "NormClipping": lambda s: NormClipping(s, max_norm=100.0),
    "NormClipping(Median)": lambda s: NormClipping(Median(s), max_norm=100.0),
}
every_defense = pytest.mark.parametrize("name", DEFENSES)
HOSTILE = (2, 6)


# --- bfloat16: the upper half of a float32, which np.save writes as raw bytes of two ---------------------------------


def to_bfloat16(array):
    """Round to the nearest bfloat16 (ties to even), as raw bytes."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").view("V2").reshape(np.shape(array))


def from_bfloat16(array):
    return (np.ascontiguousarray(array).view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(array.shape)


def test_bfloat16_here_is_torchs():
    import torch

    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    ours = to_bfloat16(values)
    theirs = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().astype(np.uint16)
    np.testing.assert_array_equal(ours.view("<u2"), theirs)
    np.testing.assert_array_equal(from_bfloat16(ours), torch.from_numpy(values).to(torch.bfloat16).float().numpy())


class Kind:
    """How arrays of a type are made from float64 values, and read."""

    def __init__(self, dtype, make, read, precision):
        self.dtype, self.make, self.read, self.precision = np.dtype(dtype), make, read, precision


def plain(dtype, precision):
    return Kind(dtype, lambda x: np.asarray(x).astype(dtype), lambda a: a.astype(np.float64), precision)


def complex_kind(dtype, precision):
    """The imaginary part is the real one reversed, less one, so that it has values of its own."""
    return Kind(
        dtype,
        lambda x: (np.asarray(x) + 1j * (np.asarray(x)[..., ::-1] - 1)).astype(dtype),
        lambda a: np.stack([a.real, a.imag]).astype(np.float64),
        precision,
    )


KINDS = {
    "float16": plain(np.float16, 1e-2),
    "float32": plain(np.float32, 1e-5),
    "float64": plain(np.float64, 1e-5),
    "big-endian float32": plain(">f4", 1e-5),
    "complex64": complex_kind(np.complex64, 1e-5),
    "complex128": complex_kind(np.complex128, 1e-5),
    "bfloat16 as raw bytes": Kind("V2", to_bfloat16, from_bfloat16, 3e-2),
}
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes

    KINDS["bfloat16 of ml_dtypes"] = plain(ml_dtypes.bfloat16, 3e-2)
every_kind = pytest.mark.parametrize("kind", KINDS)

START = np.linspace(-1, 1, 12).reshape(3, 4)


def values(round, client_id, start=START):
    """What an honest client's array holds: a step that all agree on, and something of its own."""
    return start + 0.25 + 0.125 * np.random.default_rng([round, client_id]).uniform(-1, 1, np.shape(start))


def model_of(kind):
    return {"w": KINDS[kind].make(START), "b": KINDS[kind].make(START[0] / 2)}


def answer_of(kind):
    made = KINDS[kind].make

    def answer(round, client_id, arrays):
        own = (made(values(round, client_id)), made(values(round, client_id, START[0] / 2)))
        return [Reply(tuple(map(npy_bytes, own)))]

    return answer


def honest_range(kind, hostile=()):
    """Return (smallest, largest) of each value of the first array, over the honest clients of round 1."""
    made = KINDS[kind]
    rows = [made.read(made.make(values(1, i))) for i in range(1, N + 1) if i not in hostile]
    return np.min(rows, axis=0), np.max(rows, axis=0)


def poisoned(kind):
    def change(reply):
        far = KINDS[kind].make(np.full(START.shape, 1000.0))
        return Reply((npy_bytes(far), reply.tensors[1]))

    return change


def bits(array):
    """Return the bytes as ``np.save`` writes them, so that raw bytes and named types compare."""
    return np.ascontiguousarray(array).tobytes()


@both_apis
@every_kind
@every_defense
def test_honest_rounds_keep_the_type_and_move_the_model(api, kind, name):
    model = model_of(kind)
    played = play(api, DEFENSES[name](fedavg(api, N)), N, [1], answer_of(kind), model)
    assert quarantined(played) == {}, quarantined(played)
    assert why_kept(played) is None
    low, high = honest_range(kind)
    new = played.arrays[0]
    assert new.shape == START.shape
    assert new.dtype.itemsize == KINDS[kind].dtype.itemsize
    assert new.dtype.kind in (KINDS[kind].dtype.kind, "V"), f"{KINDS[kind].dtype} becomes {new.dtype}"
    got = KINDS[kind].read(new.view("V2") if kind == "bfloat16 as raw bytes" else new.astype(KINDS[kind].dtype))
    slack = KINDS[kind].precision
    assert (got >= low - slack).all()
    assert (got <= high + slack).all()


@both_apis
@every_kind
@every_defense
def test_hostile_values_are_seen_in_every_type(api, kind, name):
    """1000 in the first array: NormClipping alone only bounds them."""
    if name == "NormClipping":
        pytest.skip("a bound, not a selection")
    hostile = dict.fromkeys(HOSTILE, poisoned(kind))
    played = play(api, DEFENSES[name](fedavg(api, N)), N, [1], sends(hostile, answer_of(kind)), model_of(kind))
    assert why_kept(played) is None
    low, high = honest_range(kind, HOSTILE)
    got = KINDS[kind].read(played.arrays[0])
    assert (got >= low - KINDS[kind].precision).all()
    assert (got <= high + KINDS[kind].precision).all()


FLOATS = [kind for kind in KINDS if "complex" not in kind]
BATCH_NORM = {
    "bn.weight": START[0] / 2,
    "bn.running_mean": START[0] / 4,
    "bn.running_var": START[0] + 2,
    "bn.num_batches_tracked": np.array(7),
}


def batch_norm_in(kind, counter, scale=1.0):
    """Return BatchNorm's arrays in one kind of floats, its counter in a dtype of its own."""
    *floats, steps = BATCH_NORM.values()
    return [*(KINDS[kind].make(array * scale) for array in floats), steps.astype(counter)]


@both_apis
@every_defense
@pytest.mark.parametrize("sent", FLOATS)
@pytest.mark.parametrize("kind", FLOATS)
def test_replies_in_another_floating_type_are_computed_with(kind, sent, name, api):
    """Flower cannot add up raw bytes: no client ends a run by answering a float32 model in bfloat16."""

    def answer(round, client_id, arrays):
        in_theirs = batch_norm_in(sent if client_id in HOSTILE else kind, np.int8, 1 + client_id / 100)
        in_ours = batch_norm_in(kind, np.int64, 1 + client_id / 100)
        return [Reply(tuple(map(npy_bytes, in_theirs if client_id in HOSTILE else in_ours)))]

    model = dict(zip(BATCH_NORM, batch_norm_in(kind, np.int64), strict=True))
    strategy = RobustStrategy(DEFENSES[name](fedavg(api, N)), state_arrays=[1, 2])
    played = play(api, strategy, N, [1], answer, model)
    assert quarantined(played) == {}
    assert why_kept(played) is None
    for new, start, array in zip(played.arrays, BATCH_NORM.values(), model.values(), strict=True):
        assert new.dtype == np.load(io.BytesIO(npy_bytes(array))).dtype
        got, most = (new, start) if start.dtype.kind == "i" else (KINDS[kind].read(new), start * (1 + N / 100))
        assert (got >= np.minimum(start, most) - 0.02).all()
        assert (got <= np.maximum(start, most) + 0.02).all()


NOT_FINITE = {
    "bfloat16 as raw bytes": [np.uint16(0x7FC0), np.uint16(0x7F80), np.uint16(0xFF80)],  # NaN, infinity, minus infinity
    "complex64": [complex(np.nan, 0), complex(0, np.nan), complex(0, -np.inf)],
}


@both_apis
@every_kind
def test_what_is_not_finite_is_quarantined_in_every_type(api, kind):
    bad = NOT_FINITE.get(kind) or ([complex(0, np.nan)] if "complex" in kind else [np.nan, np.inf, -np.inf])
    for value in bad:

        def spoil(reply, value=value):
            array = reply.arrays[0].copy()
            if kind == "bfloat16 as raw bytes":
                array = array.view("<u2").copy()
            array.flat[3] = value
            return Reply((npy_bytes(array.view("V2") if array.dtype == "<u2" else array), reply.tensors[1]))

        if kind == "bfloat16 of ml_dtypes":
            continue  # np.save makes raw bytes of it: the case above
        played = play(api, Median(fedavg(api, N)), N, [1], sends({4: spoil}, answer_of(kind)), model_of(kind))
        assert set(quarantined(played)) == {4}, f"{value} in {kind}"


@both_apis
def test_an_update_too_long_for_float16_keeps_the_models_type_and_is_finite(api):
    """Differences of float16 arrays overflow in float16: 60000 - (-60000)."""
    model = {"w": np.full(4, -60000.0, np.float16)}

    def answer(round, client_id, arrays):
        return [Reply((npy_bytes(np.full(4, 60000 - 32 * client_id, np.float16)),))]

    played = play(api, Median(fedavg(api, N)), N, [1], answer, model)
    assert quarantined(played) == {}
    assert played.arrays[0].dtype == np.float16
    assert float(played.arrays[0][0]) == 60000 - 32 * 5


@both_apis
@pytest.mark.parametrize("other", ["float64", "float16", ">f4", "<f8"])
def test_another_float_of_the_same_values_counts(api, other):
    """Identity is of kind, not of width: FedAdam and numpy promote."""
    model = {"w": START.astype(np.float32)}

    def answer(round, client_id, arrays):
        new = values(1, client_id).astype(np.float16)  # the same values in every type
        return [Reply((npy_bytes(new.astype(other if client_id == 3 else np.float32)),))]

    played = play(api, Median(fedavg(api, N)), N, [1], answer, model)
    assert quarantined(played) == {}
    assert played.arrays[0].dtype == np.float32
    expected = np.median([values(1, i).astype(np.float16).astype(np.float64) for i in range(1, N + 1)], axis=0)
    np.testing.assert_allclose(played.arrays[0], expected, rtol=1e-5, atol=1e-6)


STATE = {"bn.running_mean": np.zeros(3), "bn.running_var": np.ones(3), "bn.num_batches_tracked": np.array(3)}


@both_apis
@every_defense
@pytest.mark.parametrize("other", ["float32", "bfloat16 as raw bytes"])
def test_one_client_of_another_float_stops_nobody(api, name, other):
    """Raw bfloat16 has no sum with other floats: neither weights nor statistics may reach numpy side by side."""
    usual = KINDS["float32" if other != "float32" else "bfloat16 as raw bytes"]
    model = {"w": START, **STATE}

    def encoded(kind, arrays):
        return [kind.make(a) if np.asarray(a).dtype.kind == "f" else a for a in arrays]

    def answer(round, client_id, arrays):
        new = [values(round, client_id), *(a + 0.5 for a in list(STATE.values())[:2]), np.array(4)]
        return [Reply(tuple(map(npy_bytes, encoded(KINDS[other] if client_id == 3 else usual, new))))]

    first = dict(zip(model, encoded(usual, model.values()), strict=True))
    played = play(api, DEFENSES[name](fedavg(api, N)), N, [1, 2], answer, first)
    assert quarantined(played) == {}
    assert why_kept(played) is None
    assert [a.dtype for a in played.arrays] == [a.dtype for a in first.values()]
    assert usual.read(played.arrays[2]).tolist() == [1.5] * 3
    assert (usual.read(played.arrays[0]) != START).any()


@both_apis
def test_a_complex_reply_to_a_real_model_is_quarantined_and_the_other_way(api):
    for model, hostile in (("float32", "complex64"), ("complex64", "float32")):
        odd = {5: lambda reply, hostile=hostile: answer_of(hostile)(1, 5, [])[0]}
        played = play(api, Median(fedavg(api, N)), N, [1], sends(odd, answer_of(model)), model_of(model))
        assert 5 in quarantined(played) or hostile == "float32", "a real number is a complex one"
        assert played.arrays[0].dtype == KINDS[model].dtype


@both_apis
def test_complex_numbers_are_pairs_of_floats(api):
    """The median of real and imaginary parts, each on its own."""
    played = play(api, Median(fedavg(api, N)), N, [1], answer_of("complex64"), model_of("complex64"))
    rows = [KINDS["complex64"].make(values(1, i)) for i in range(1, N + 1)]
    expected = np.median([r.real for r in rows], axis=0) + 1j * np.median([r.imag for r in rows], axis=0)
    np.testing.assert_allclose(played.arrays[0], expected, rtol=1e-5, atol=1e-6)


@both_apis
def test_a_mixed_model_keeps_each_arrays_type(api):
    model = {
        "half": START.astype(np.float16),
        "raw": to_bfloat16(START),
        "single": START.astype(np.float32),
        "double": START.astype(np.float64),
        "pairs": KINDS["complex64"].make(START),
        "steps": np.array(3),
        "mask": np.array([1, 0, 1], np.uint8),
    }

    def answer(round, client_id, arrays):
        new = values(1, client_id)
        made = [
            new.astype(np.float16),
            to_bfloat16(new),
            new.astype(np.float32),
            new,
            KINDS["complex64"].make(new),
            np.array(4),
            np.array([1, 0, 1], np.uint8),
        ]
        return [Reply(tuple(map(npy_bytes, made)))]

    for name, make in DEFENSES.items():
        played = play(api, make(fedavg(api, N)), N, [1], answer, model)
        assert why_kept(played) is None, name
        assert [a.dtype for a in played.arrays] == [a.dtype for a in model.values()], name
        assert played.arrays[-2] == 4
        assert played.arrays[-1].tolist() == [1, 0, 1]


# --- integer arrays are state ---------------------------------------------------------------------------------------

COUNTED = {"w": np.zeros(6, np.float32), "steps": np.array(7), "table": np.arange(6, dtype=np.int32).reshape(2, 3)}
FAR = 2**30


def counted(round, client_id, arrays):
    own = np.random.default_rng(client_id)
    w = (0.1 + 0.01 * own.standard_normal(6)).astype(np.float32)
    table = np.arange(6, dtype=np.int32).reshape(2, 3) + client_id
    return [Reply(tuple(map(npy_bytes, (w, np.array(7 + client_id), table))))]


def with_integers(steps, table=None):
    def change(reply):
        w, _, own = reply.arrays
        new = own if table is None else np.full(own.shape, table, own.dtype)
        return Reply(tuple(map(npy_bytes, (w, np.array(steps), new))))

    return change


@both_apis
@every_defense
@pytest.mark.parametrize("value", [FAR, -FAR])
def test_a_minority_cannot_move_integers_out_of_the_honest_range(api, name, value):
    """Two of nine send honest weights and wild counters."""
    hostile = dict.fromkeys(HOSTILE, with_integers(value, value))
    played = play(api, DEFENSES[name](fedavg(api, N)), N, [1], sends(hostile, counted), COUNTED)
    assert_moved(played, COUNTED)
    assert 8 <= int(played.arrays[1]) <= 16, f"{played.arrays[1]} steps"
    table = played.arrays[2] - COUNTED["table"]
    assert (table >= 1).all()
    assert (table <= 9).all()


@both_apis
def test_the_winner_of_krum_does_not_set_integers_alone(api):
    """Whoever wins: the counters are the lower median of all usable replies."""
    played = play(api, Krum(fedavg(api, N), num_byzantine=2), N, [1], counted, COUNTED)
    assert int(played.arrays[1]) == 7 + 5
    np.testing.assert_array_equal(played.arrays[2], COUNTED["table"] + 5)
    (winner,) = report(played).verdicts[0].kept
    tricky = {winner: with_integers(FAR, FAR)}
    again = play(api, Krum(fedavg(api, N), num_byzantine=2), N, [1], sends(tricky, counted), COUNTED)
    assert report(again).verdicts[0].kept == (winner,), "the test needs the same winner"
    assert 8 <= int(again.arrays[1]) <= 16


@both_apis
def test_integers_are_combined_from_what_the_rule_kept(api):
    """Far weights with far counters are dropped together: the lower median of the seven others."""

    def far(reply):
        w, _, table = reply.arrays
        return Reply(tuple(map(npy_bytes, (w + 50, np.array(FAR), table))))

    strategy = MultiKrum(fedavg(api, N), num_byzantine=2)
    played = play(api, strategy, N, [1], sends(dict.fromkeys(HOSTILE, far), counted), COUNTED)
    kept = report(played).verdicts[0].kept
    assert set(kept) == set(range(1, N + 1)) - set(HOSTILE)
    assert int(played.arrays[1]) == 7 + sorted(kept)[(len(kept) - 1) // 2]


@both_apis
def test_integers_of_a_nested_selection_are_its_too(api):
    strategy = NormClipping(Krum(fedavg(api, N), num_byzantine=2), max_norm=5.0)
    played = play(api, strategy, N, [1], counted, COUNTED)
    assert int(played.arrays[1]) == 7 + 5


@both_apis
def test_integer_arrays_keep_their_types(api):
    model = {"w": np.zeros(3, np.float32)} | {
        dtype: np.array([1, 2, 3], dtype) for dtype in ("int8", "uint8", "int16", "uint16", "int32", "int64", "uint64")
    }
    model["flags"] = np.array([True, False, True])

    def answer(round, client_id, arrays):
        new = [(a + 0.1 * client_id).astype(a.dtype) if a.dtype.kind == "f" else a for a in arrays]
        return [Reply(tuple(map(npy_bytes, new)))]

    for make in DEFENSES.values():
        played = play(api, make(fedavg(api, N)), N, [1], answer, model)
        assert why_kept(played) is None
        for array, start in zip(played.arrays[1:], list(model.values())[1:], strict=True):
            assert array.dtype == start.dtype
            np.testing.assert_array_equal(array, start)


# --- what cannot be defended is refused before clients train ----------------------------------------------------------

REFUSED = {
    "objects": {"w": np.zeros(3, np.float32), "o": np.array([{"a": 1}, None], object)},
    "strings": {"w": np.zeros(3, np.float32), "s": np.array(["a", "b"])},
    "byte strings": {"w": np.zeros(3, np.float32), "s": np.array([b"a", b"b"])},
    "dates": {"w": np.zeros(3, np.float32), "t": np.array(["2026-11-27"], "datetime64[D]")},
    "records": {"w": np.zeros(3, np.float32), "r": np.zeros(2, [("x", "f4"), ("y", "i4")])},
    "only int8": {"w": np.arange(6, dtype=np.int8)},
    "only uint8": {"booster": np.frombuffer(b'{"learner": {}}', np.uint8)},
    "only counters": {"steps": np.array(7)},
    "only flags": {"mask": np.array([True, False])},
    "floats of no size": {"w": np.zeros((0, 3), np.float32), "steps": np.array(7)},
}


@both_apis
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", ["Median", "MultiKrum", "NormClipping"])
def test_a_model_that_cannot_be_defended_is_refused_before_clients_train(api, what, name):
    trained = []

    def answer(round, client_id, arrays):
        trained.append(client_id)
        return [Reply(tuple(map(npy_bytes, arrays)))]

    with pytest.raises(ConfigError) as caught:
        play(api, DEFENSES[name](fedavg(api, N)), N, [1], answer, REFUSED[what])
    assert not trained
    message = str(caught.value)
    assert len(message.split()) >= 6, message
    if not what.startswith(("only", "floats")):  # names the array that is to blame
        assert any(repr(key) in message or key in message for key in list(REFUSED[what])[1:]) or api == "classic"
    else:
        assert "float" in message


@pytest.mark.parametrize("name", ["Median", "MultiKrum", "NormClipping"])
def test_bytes_that_are_no_arrays_are_refused_before_clients_train(name):
    """A tree model's JSON in the place of arrays, as Flower's XGBoost strategies send it."""
    from flwr.common import Parameters

    from tests.support.boundary import server

    played = server("classic", DEFENSES[name](fedavg("classic", N)), N, {})
    for tensors in ([b'{"learner": {"gradient_booster": {}}}'], [b""], [b"\x93NUMPY"], [b"{}", b"{}"]):
        with pytest.raises(ConfigError):
            played.strategy.configure_fit(
                server_round=1, parameters=Parameters(list(tensors), ""), client_manager=played.manager
            )


@both_apis
@pytest.mark.parametrize("name", ["FedXgbBagging", "FedXgbCyclic", "FedXgbNnAvg"])
def test_tree_strategies_are_refused_when_the_wrapper_is_built(api, name):
    import flwr.server.strategy
    import flwr.serverapp.strategy

    module = flwr.server.strategy if api == "classic" else flwr.serverapp.strategy
    if not hasattr(module, name):
        pytest.skip(f"no {name} in the {api} API")
    tree = getattr(module, name)()
    mine = type("Mine", (getattr(module, name),), {})()
    for strategy in (tree, mine):
        for defense in (Median, lambda s: MultiKrum(s, num_byzantine=1), lambda s: NormClipping(s, max_norm=1.0)):
            with pytest.raises(ConfigError, match=r"[Tt]ree|Xgb|XGB"):
                defense(strategy)


@both_apis
def test_nan_senders_are_one_of_the_f_in_every_float_type(api):
    for kind in ("float16", "float64"):
        strategy = Krum(fedavg(api, N), num_byzantine=3)
        played = play(api, strategy, N, [1], sends({1: nan, 2: nan}, answer_of(kind)), model_of(kind))
        assert_moved(played, model_of(kind))
