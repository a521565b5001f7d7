"""Issue point B10: what a client sends does not decide how long reasons, logs, metrics and reports become.

Sizes are asserted, and the number of objects looked at where that can be counted; never seconds.
"""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord

from flsec._contracts.server import npy_bytes
from flsec.strategies import Median, MultiKrum
from tests.support.boundary import (
    LONGEST_REASON,
    assert_bounded,
    assert_moved,
    both_apis,
    fedavg,
    play,
    quarantined,
    report,
    sends,
    server,
)
from tests.support.hostile import KINDS

N = 5
HUGE = 100 * 2**20
ESCAPES = "\x1b[2J\x1b]0;title\x07\r\n\t\x00\u202e\u2028"
BYTES_OF_A_REPORT = 20_000
BYTES_OF_A_LOG = 20_000


def renamed(prefix):
    def change(content):
        content["arrays"] = ArrayRecord({prefix + name: a for name, a in content.array_records["arrays"].items()})

    return lambda reply: replace(reply, records=change)


def one_renamed(name):
    """Only the first array has another name."""

    def change(content):
        arrays = dict(content.array_records["arrays"])
        first = next(iter(arrays))
        content["arrays"] = ArrayRecord({name: arrays.pop(first), **arrays})

    return lambda reply: replace(reply, records=change)


def played_with(api, change, caplog, defense=Median, model=None, rounds=(1,)):
    options = {"fit_metrics_aggregation_fn": average} if api == "classic" else {}
    extra = {} if model is None else {"model": model}
    with caplog.at_level(logging.DEBUG, "flsec"):
        return play(api, defense(fedavg(api, N, **options)), N, rounds, sends({2: change}), **extra)


def average(pairs):
    total = sum(count for count, _ in pairs)
    return {key: sum(count * metrics[key] for count, metrics in pairs) / total for key in pairs[0][1]}


def assert_small(played, caplog):
    """Report, metrics, log: all are as small as those of an honest round."""
    assert_bounded(played)
    assert len(pickle.dumps(report(played))) <= BYTES_OF_A_REPORT
    assert len(pickle.dumps(dict(played.metrics))) <= BYTES_OF_A_REPORT
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("flsec")]
    assert sum(map(len, messages)) <= BYTES_OF_A_LOG
    for message in messages:
        assert message.isprintable(), f"a log message with control characters: {message[:100]!r}"


# --- names of arrays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [renamed, one_renamed])
@pytest.mark.parametrize("name", ["n" * HUGE, ESCAPES, "n" * 500 + ESCAPES], ids=["100 MB", "escapes", "both"])
def test_array_names_stay_out_of_reasons_and_logs(change, name, caplog):
    played = played_with("Message", change(name), caplog)
    assert set(quarantined(played)) == {2}
    assert_moved(played)
    assert_small(played, caplog)


def test_a_hundred_thousand_array_names_make_one_short_reason(caplog):
    def many(content):
        arrays = content.array_records["arrays"]
        first = next(iter(arrays.values()))
        content["arrays"] = ArrayRecord({f"a{i}" * 20: first for i in range(100_000)})

    played = played_with("Message", lambda reply: replace(reply, records=many), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


@pytest.mark.parametrize("what", ["weight" * 1000, "w" + ESCAPES], ids=["long", "escapes"])
def test_names_of_the_users_own_model_are_shortened_too(what, caplog):
    """A PyTorch model's names are no attack, yet a reason has its bounds."""
    model = {what: np.ones((3, 4), np.float32), "b": np.zeros(2, np.float32)}

    def transposed(reply):
        return replace(reply, tensors=(npy_bytes(reply.arrays[0].T), reply.tensors[1]))

    played = played_with("Message", transposed, caplog, model=model)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


# --- metrics ------------------------------------------------------------------------------------------------------


@both_apis
def test_100000_metric_keys_are_not_carried_through_the_round(api, caplog):
    many = {f"key-{i}": float(i) for i in range(100_000)}
    played = played_with(api, lambda reply: replace(reply, metrics=many), caplog)
    assert quarantined(played) == {}
    assert_moved(played)
    assert_small(played, caplog)


@both_apis
def test_100000_metric_keys_of_everybody_are_no_metrics(api):
    """Colluders, or a client program with a fault: the report does not grow with it."""
    many = {f"key-{i}": float(i) for i in range(100_000)}
    changes = dict.fromkeys(range(1, N + 1), lambda reply: replace(reply, metrics=many))
    played = play(api, Median(fedavg(api, N)), N, [1], sends(changes))
    assert_moved(played)
    assert len(pickle.dumps(report(played))) <= BYTES_OF_A_REPORT
    assert len(played.metrics) <= 2000


class Counting(dict):
    """A mapping that counts how often its entries are looked at."""

    looks = 0

    def _count(self, entries):
        for entry in entries:
            Counting.looks += 1
            yield entry

    def __iter__(self):
        return self._count(super().__iter__())

    def items(self):
        return self._count(super().items())

    def keys(self):
        return self._count(super().keys())

    def values(self):
        return self._count(super().values())


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_looks_at_each_metric_a_few_times_at_most(rounds):
    """Work is linear in what was sent, whatever it is, and not for every other client anew."""
    many = Counting({f"key-{i}": 1.0 for i in range(20_000)})
    changes = {2: lambda reply: replace(reply, metrics=many)}
    for others in (4, 19):
        Counting.looks = 0
        options = {"fit_metrics_aggregation_fn": average}
        strategy = Median(fedavg("classic", others + 1, **options))
        play("classic", strategy, others + 1, range(1, rounds + 1), sends(changes))
        assert Counting.looks <= 10 * 20_000 * rounds, f"{Counting.looks} looks with {others} other clients"


@both_apis
@pytest.mark.parametrize("value", ["k" * HUGE, ESCAPES], ids=["100 MB", "escapes"])
def test_metric_names_stay_out_of_reports_and_logs(api, value, caplog):
    played = played_with(api, lambda reply: replace(reply, metrics={value: 1.0}), caplog)
    assert quarantined(played) == {}
    assert_small(played, caplog)


@pytest.mark.parametrize("value", ["v" * HUGE, ESCAPES, b"v" * HUGE], ids=["100 MB", "escapes", "bytes"])
def test_texts_as_metrics_stay_out_of_reports_and_logs(value, caplog):
    played = played_with("classic", lambda reply: replace(reply, metrics={"train-loss": value}), caplog)
    assert quarantined(played) == {}
    assert_small(played, caplog)


def test_a_long_list_as_metric_stays_out(caplog):
    played = played_with("Message", lambda reply: replace(reply, metrics={"train-loss": [0.5] * 1_000_000}), caplog)
    assert_small(played, caplog)


def test_a_metric_record_with_100000_keys_that_flower_made(caplog):
    def many(content):
        content["metrics"] = MetricRecord({f"key-{i}": 1.0 for i in range(100_000)} | {"num-examples": 20})

    played = played_with("Message", lambda reply: replace(reply, records=many), caplog)
    assert quarantined(played) == {}
    assert_small(played, caplog)


# --- counts, failures, headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["2" * HUGE, ESCAPES, b"\x1b" * 1000, {"a": ESCAPES}, [ESCAPES] * 10_000],
    ids=["100 MB", "escapes", "bytes", "mapping", "list"],
)
def test_num_examples_of_any_size_make_a_short_reason(value, caplog):
    played = played_with("classic", lambda reply: replace(reply, num_examples=value), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


class Unprintable:
    """Raises where it is to be shown."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def test_num_examples_that_cannot_be_shown(caplog):
    played = played_with("classic", lambda reply: replace(reply, num_examples=Unprintable()), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


@both_apis
@pytest.mark.parametrize(
    "text",
    ["x" * 2**20, ESCAPES * 30, "Traceback\n" * 1000 + "ValueError: no\x1b[2J data"],
    ids=["1 MB", "escapes", "traceback"],
)
def test_failure_texts_are_shortened(api, text, caplog):
    """An error reply's reason is written by the client's side."""
    if api == "classic":
        from flwr.common import Code, FitRes, Parameters, Status

        played = server(api, Median(fedavg(api, N)), N)
        original = played.strategy.aggregate_fit

        def with_failure(number, results, failures):
            proxy, _ = results[1]
            failed = FitRes(Status(Code.FIT_NOT_IMPLEMENTED, text), Parameters([], ""), 0, {})
            return original(number, [results[0], (proxy, failed), *results[2:]], [ValueError(text)])

        played.strategy.aggregate_fit = with_failure
        with caplog.at_level(logging.DEBUG, "flsec"):
            played.play([1])
    else:
        played = played_with(api, lambda reply: replace(reply, failure=text), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)
    assert_moved(played)


@both_apis
def test_an_npy_header_of_a_megabyte_makes_a_short_reason(api, caplog):
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'x': '" + "\x1b[2J" * 200_000 + "'}\n"
    header = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text.encode()
    played = played_with(api, lambda reply: replace(reply, tensors=(header + bytes(48), *reply.tensors[1:])), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


@both_apis
def test_a_dtype_of_ten_thousand_fields_makes_a_short_reason(api, caplog):
    fields = np.zeros((3, 4), [(f"field\x1b{i}", "f4") for i in range(2000)])
    played = played_with(api, lambda reply: replace(reply, tensors=(npy_bytes(fields), *reply.tensors[1:])), caplog)
    assert set(quarantined(played)) == {2}
    assert_small(played, caplog)


# --- numbers of replies -------------------------------------------------------------------------------------------


@both_apis
def test_ten_thousand_replies_of_one_client_are_one_line(api, caplog):
    def answer(round, client_id, arrays):
        from flsec._contracts.server import honest

        replies = honest(round, client_id, arrays)
        return replies * 10_000 if client_id == 2 else replies

    with caplog.at_level(logging.DEBUG, "flsec"):
        played = play(api, Median(fedavg(api, N)), N, [1], answer)
    assert_moved(played)
    assert 2 in report(played).verdicts[0].participants
    assert_small(played, caplog)


@both_apis
def test_ten_thousand_strangers_are_counted_and_not_listed_at_length(api, caplog):
    def answer(round, client_id, arrays):
        from flsec._contracts.server import honest

        replies = honest(round, client_id, arrays)
        strangers = [replace(replies[0], sender=10**6 + i) for i in range(10_000)]
        return replies + (strangers if client_id == 2 else [])

    with caplog.at_level(logging.DEBUG, "flsec"):
        played = play(api, Median(fedavg(api, N)), N, [1], answer)
    assert_moved(played)
    assert set(report(played).verdicts[0].participants) == set(range(1, N + 1))
    for entry in report(played).quarantined:
        assert len(entry.reason) <= LONGEST_REASON


# --- every kind that we know, for every reason --------------------------------------------------------------------


@both_apis
def test_every_kind_of_reply_makes_a_short_printable_reason(api):
    for name, kind in KINDS.items():
        if api not in kind.apis:
            continue
        from tests.support.hostile import MODEL, Case

        case = Case(N, {2: name}, {}, {}, 0.05, 0.1, 3)
        played = play(api, MultiKrum(fedavg(api, N), num_byzantine=1), N, [1], case.answer(api), MODEL)
        assert_bounded(played)


@both_apis
def test_a_users_metrics_function_that_raises_at_length(api, caplog):
    def broken(*_):
        raise ValueError(ESCAPES + "x" * 2**20)

    key = "fit_metrics_aggregation_fn" if api == "classic" else "train_metrics_aggr_fn"
    with caplog.at_level(logging.DEBUG, "flsec"):
        played = play(api, Median(fedavg(api, N, **{key: broken})), N, [1])
    assert_moved(played)
    assert_small(played, caplog)


@both_apis
def test_an_evaluation_is_bounded_as_well(api, caplog):
    from flsec._contracts.server import honest

    odd = {
        1: lambda r: replace(r, metrics={"k" * 10**6: 1.0}),
        2: lambda r: replace(r, metrics={f"key-{i}": 1.0 for i in range(100_000)}),
        3: lambda r: replace(r, metrics={ESCAPES: 1.0}),
        4: lambda r: replace(r, failure=ESCAPES * 100),
    }
    played = server(api, Median(fedavg(api, N)), N)
    with caplog.at_level(logging.DEBUG, "flsec"):
        loss = played.evaluate(1, sends(odd, honest))
    assert loss is not None
    assert len(pickle.dumps(dict(played.metrics))) <= BYTES_OF_A_REPORT
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("flsec")]
    assert sum(map(len, messages)) <= BYTES_OF_A_LOG
    assert all(message.isprintable() for message in messages)
