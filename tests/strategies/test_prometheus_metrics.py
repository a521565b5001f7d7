"""What Prometheus scrapes, held against the reports; dashboard, page and metrics, held against one another."""

import json
import re
import socket
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from flsec._contracts.faults import FAILURES, faults
from flsec._contracts.server import APIS, HOSTILE, ClassicServer, MessageServer, flower_strategy, identify, in_turn
from flsec.errors import ConfigError
from flsec.strategies import Median, MultiKrum, NormClipping, PrometheusMetrics, Quarantined, RoundReport, Verdict
from flsec.strategies.report import KINDS
from tests.support.boundary import both_apis, fedavg, play, sends

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operating.md").read_text()
DASHBOARD = json.loads((DOCS / "deployment" / "grafana_dashboard.json").read_text())


@pytest.fixture(autouse=True)
def _identity():
    identify()


def samples(metrics):
    """{(name, labels): value} of all that is exposed."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def by_label(metrics, name):
    return {labels[0][1]: value for (found, labels), value in samples(metrics).items() if found == name}


@both_apis
def test_what_is_counted_is_what_the_reports_say(api):
    metrics, told = PrometheusMetrics(port=None), []
    hostile = sends({2: lambda r: None, **dict.fromkeys((3, 4), FAILURES["a named failure"])})
    strategy = NormClipping(MultiKrum(fedavg(api, 9), num_byzantine=2), max_norm=1.0, on_verdict=[metrics, told.append])
    play(api, strategy, 9, [1, 2])
    play(api, strategy, 9, [3], hostile)
    play(api, strategy, 9, [4], sends({i: lambda r: None for i in range(1, 6)}))
    get = metrics.registry.get_sample_value
    assert len(told) == 4
    assert get("flsec_rounds_total") == 4
    assert get("flsec_rounds_kept_previous_model_total") == sum(r.kept_previous_model is not None for r in told) > 0
    assert (get("flsec_last_round"), get("flsec_clients_asked"), get("flsec_clients_usable")) == (4, 9, 4)
    assert get("flsec_clients_kept") == len(told[-1].kept)
    dropped, kinds, seconds = Counter(), Counter(), Counter()
    for report in told:
        kinds.update(entry.kind for entry in report.quarantined)
        seconds.update(report.seconds)
        for verdict in report.verdicts:
            dropped[verdict.defense] += len(set(verdict.participants) - set(verdict.kept))
    assert dropped["MultiKrum"] > 0
    assert by_label(metrics, "flsec_clients_dropped_total") == dropped
    assert by_label(metrics, "flsec_clients_quarantined_total") == {kind: kinds[kind] for kind in KINDS}
    assert by_label(metrics, "flsec_stage_seconds_sum") == pytest.approx(dict(seconds))


@pytest.mark.parametrize("api", APIS)
def test_every_fault_has_a_kind_of_its_own(api):
    """All that the contracts' clients do wrong; a fault that is new needs a kind too."""
    clients = [*range(100, 108), *HOSTILE]
    server = (ClassicServer if api == "classic" else MessageServer)(
        Median(flower_strategy(api, "FedAvg", len(clients)), patience=None), clients
    )
    kinds = set()
    for number, what, _, answer in in_turn({**faults(api), **FAILURES}):
        server.play([number], answer)
        entries = server.strategy.last_report.quarantined
        assert entries, what
        assert [entry for entry in entries if entry.kind == "other"] == [], what
        kinds |= {entry.kind for entry in entries}
    assert kinds >= {"failed", "no_reply", "num_examples", "structure", "unreadable", "shape", "dtype", "not_finite"}


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.text()), max_size=30))
def test_no_client_can_make_a_time_series(entries):
    metrics = PrometheusMetrics(port=None)
    metrics(RoundReport(1, (), (Verdict("Krum", (1, 2), (1,)),), None, {"parse": 0.1}))
    before = samples(metrics).keys()
    quarantined = tuple(Quarantined(client_id, reason) for client_id, reason in entries)
    notes = {"dropped": dict(entries)}
    ids = tuple(client_id for client_id, _ in entries)
    metrics(RoundReport(2, quarantined, (Verdict("Krum", ids, (), notes=notes),), None, {"parse": 0.1}, dict(entries)))
    assert samples(metrics).keys() == before


def test_it_is_served_on_this_machine_alone():
    metrics = PrometheusMetrics(port=0)
    try:
        metrics(RoundReport(3, (), (), None, {}, asked=5, usable=4))
        assert metrics._server.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as answer:
            families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
        assert families["flsec_clients_usable"].samples[0].value == 4
    finally:
        port = metrics.port
        metrics.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_several_in_one_process_do_not_collide():
    several = [PrometheusMetrics(port=0) for _ in range(3)]
    try:
        several[1](RoundReport(1, (), (), None, {}))
        assert [m.registry.get_sample_value("flsec_rounds_total") for m in several] == [0, 1, 0]
        assert len({m.port for m in several}) == 3
    finally:
        for metrics in several:
            metrics.close()


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*port=0 takes one that is free"):
            PrometheusMetrics(port=port)


@pytest.mark.parametrize("port", [-1, 65536, "9464", 1.5, float("nan")])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(ConfigError, match="port must be a whole number"):
        PrometheusMetrics(port=port)


def test_a_host_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="cannot listen on"):
        PrometheusMetrics(port=0, host="192.0.2.1")


def test_a_registry_of_ones_own_can_be_used_once():
    registry = CollectorRegistry()
    PrometheusMetrics(port=None, registry=registry)
    with pytest.raises(ConfigError, match="has these metrics already"):
        PrometheusMetrics(port=None, registry=registry)


def test_without_the_library_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "flsec[prometheus]"')):
        PrometheusMetrics()


# --- names ------------------------------------------------------------------------------------------------------


def exposed():
    """{metric: names of its labels} of all that a server exposes, with the suffixes of counters and histograms."""
    metrics = PrometheusMetrics(port=None)
    metrics(RoundReport(1, (), (Verdict("Krum", (1,), ()),), "why", {"parse": 0.1}))
    return {name: {label for label, _ in labels} for name, labels in samples(metrics) if not name.endswith("_created")}


def test_names_are_as_prometheus_wants_them():
    metrics = PrometheusMetrics(port=None)
    for family in metrics.registry.collect():
        assert re.fullmatch(r"flsec_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert any(sample.name == f"{family.name}_total" for sample in family.samples) or not family.samples
    assert "flsec_stage_seconds_bucket" in exposed()


def asked_for(expression):
    """[(metric, labels)] in a PromQL expression."""
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    return [
        (name, {*re.findall(r"(\w+)\s*[=!]", selector or ""), *grouped})
        for name, selector in re.findall(r"(flsec_\w+)(\{[^}]*\})?", expression)
    ]


def expressions_of_the_dashboard():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def expressions_of_the_page():
    return re.findall(r"\| `([^`]*flsec_[^`]*[<>][^`]*)` \|", PAGE)


def test_the_dashboard_and_the_alerts_ask_for_what_there_is():
    known = exposed()
    expressions = [*expressions_of_the_dashboard(), *expressions_of_the_page()]
    expressions += [variable["query"] for variable in DASHBOARD["templating"]["list"] if "flsec" in variable["query"]]
    assert len(expressions_of_the_page()) == 6
    for expression in expressions:
        for name, labels in asked_for(expression):
            assert name in known, expression
            assert labels <= known[name] | {"instance"}, expression


def test_the_dashboard_shows_every_metric():
    shown = {name for expression in expressions_of_the_dashboard() for name, _ in asked_for(expression)}
    assert shown == set(exposed())


def test_the_dashboard_is_one():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) == 9
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]


def test_the_page_names_every_metric_and_every_reason():
    rows = dict(re.findall(r"^\| `(flsec_\w+)` \| (?:`(\w+)`)? ?\|", PAGE, flags=re.MULTILINE))
    families = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in exposed().items()}
    assert {name: {label} - {""} for name, label in rows.items()} == families
    (told,) = re.findall(r"`reason` is one of (.*?): a fixed set", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"`(\w+)`", told)) == set(KINDS)


def test_the_pages_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    try:
        for block in blocks[1:]:  # the first sets up logging for the whole process
            exec(compile(block.replace("port=9464", "port=0"), "docs/operating.md", "exec"), names)
    finally:
        names["metrics"].close()
        names["audit"].close()
    assert len(blocks) == 3
    compile(blocks[0], "docs/operating.md", "exec")
