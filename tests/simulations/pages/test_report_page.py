"""The report in a real browser, from runs whose every text a hostile client chose."""

import json
import re

import pytest
from typer.testing import CliRunner

from flsec.errors import ConfigError, SaveError
from flsec.simulations.cli import app
from flsec.simulations.pages.report_page import write_report
from flsec.strategies import AuditLog, Verdict
from flsec.strategies.report import RoundReport
from tests.simulations.pages.test_page import HOSTILE
from tests.support.browser import complaints, draw_all, opened, requested, show
from tests.support.run_folders import config, report, write_grid, write_run

alt = pytest.importorskip("altair")
__all__ = ["opened"]  # a fixture

ALL_AT_ONCE = "".join(HOSTILE[:4])
SIREN = {"case": HOSTILE[0], "alarms": [1, 2], "penalties": {"1": 2.0, "2": 1.0}, "banned": [1], "rolled_back": True}


def content_of(page):
    return json.loads(re.search(r'id="content">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def data_of(page, name):
    """Return the rows of a page's data."""
    columns = content_of(page)["data"][name]
    full = {k: c if isinstance(c, list) else [c["values"][place] for place in c["at"]] for k, c in columns.items()}
    return [dict(zip(full, values, strict=True)) for values in zip(*full.values(), strict=True)]


@pytest.fixture
def hostile(tmp_path):
    """A run, a reconstruction and an audit log with hostile texts wherever a text can stand."""
    settings = config(HOSTILE[0], HOSTILE[2], name=HOSTILE[1]) | {"data": {"name": HOSTILE[3]}}
    write_run(tmp_path / "run", settings, reason=ALL_AT_ONCE, measures=HOSTILE[:3], notes=SIREN | {HOSTILE[0]: 1.5})
    study = tmp_path / "study"
    (study / "pictures").mkdir(parents=True)
    likeness = {"mse": 0.1, "psnr": 12.0, "ssim": 0.5}
    row = {"through": HOSTILE[0], "parameter": HOSTILE[2], "strength": 0.5, "client": 0, "batch": 0, "error": None}
    row |= {**likeness, "label_accuracy": 1.0, "mean_image": likeness, "random_image": likeness}
    (study / "reconstruction.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps({**row, "error": HOSTILE[1]}) + "\n"
    )
    (study / "config.yaml").write_text(f"# {HOSTILE[1]}\n")
    with AuditLog(tmp_path / "audit.jsonl") as log:
        for round_ in (1, 2, 3):
            log(report(round_, 6, drops=True, reason=ALL_AT_ONCE, notes=SIREN))
    return [tmp_path / "run", study, tmp_path / "audit.jsonl"]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_report_opens_from_disk_in_peace_whatever_clients_sent(opened, hostile, tmp_path, width, dark):
    page = tmp_path / "report.html"
    write_report(hostile, page)
    show(opened, page, width, dark=dark)
    draw_all(opened)
    assert complaints(opened) == []
    assert requested(opened) == [page.as_uri()]
    assert opened.execute_script("return window.hacked") is None
    assert opened.execute_script("return document.querySelectorAll('img, svg[onload], main script').length") == 0
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    assert HOSTILE[0] in opened.execute_script("return document.body.innerText")
    assert opened.execute_script("return document.querySelectorAll('.plot.failed').length") == 0
    assert opened.execute_script("return document.querySelectorAll('figure.chart').length") >= 12


def test_pointing_at_a_cell_tells_score_threshold_defense_and_reason_and_no_markup(opened, hostile, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    page = tmp_path / "report.html"
    write_report(hostile[:1], page)
    rows = data_of(page, "cells-0")
    show(opened, page)
    draw_all(opened)
    chart = next(f for f in opened.find_elements(By.CSS_SELECTOR, "figure.chart") if "Clients by rounds" in f.text)
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    squares = chart.find_elements(By.CSS_SELECTOR, ".mark-rect path")
    assert len(squares) == len(rows) == 4 * 8
    told = {}
    for client in ("0", "7"):
        place = next(i for i, row in enumerate(rows) if row["client"] == client and row["round"] == 3)
        ActionChains(opened).move_to_element(squares[place]).perform()
        box = WebDriverWait(opened, 10).until(lambda d: d.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible"))
        WebDriverWait(opened, 10).until(lambda d, box=box, client=client: f"client\t{client}" in lines(box))
        told[client] = lines(box)
    assert "outcome\tattacker, dropped" in told["0"]
    assert "defense\tMulti-Krum" in told["0"]
    assert "score\t7.5" in told["0"]
    assert "threshold\tat most 1.5" in told["0"]
    assert "outcome\tquarantined" in told["7"]
    assert "<script>" in " ".join(told["7"])
    assert opened.execute_script("return window.hacked") is None
    assert (
        opened.execute_script(
            "return document.querySelectorAll('#vg-tooltip-element script, #vg-tooltip-element img').length"
        )
        == 0
    )


def lines(box):
    rows = box.find_elements("css selector", "tr")
    return ["\t".join(cell.text for cell in row.find_elements("css selector", "td")) for row in rows]


def test_every_specification_is_valid_vega_lite(hostile, tmp_path):
    write_report([*hostile, write_grid(tmp_path / "grid", measures=["attack_success_rate"])], tmp_path / "report.html")
    specs = content_of(tmp_path / "report.html")["specs"]
    assert len(specs) >= 9
    for spec in specs:
        alt.Chart.from_dict(spec, validate=True)
    with pytest.raises(Exception, match="valid"):
        alt.Chart.from_dict({**specs[0], "height": "very"}, validate=True)


def test_no_hostile_text_is_in_a_specification_where_it_could_be_an_expression_or_a_field(hostile, tmp_path):
    write_report(hostile, tmp_path / "report.html")
    for spec in content_of(tmp_path / "report.html")["specs"]:
        expressions = [value for key, value in walked(spec) if key in ("field", "filter", "calculate", "test", "href")]
        assert not [text for text in HOSTILE for value in expressions if text in str(value)]


def walked(value, key=None):
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from walked(entry, name)
    elif isinstance(value, list):
        for entry in value:
            yield from walked(entry, key)
    else:
        yield key, value


def test_twins_are_told_side_by_side_with_damage_and_cost_and_seeds_as_intervals(tmp_path):
    page = tmp_path / "report.html"
    write_report([write_grid(tmp_path / "grid")], page)
    text = page.read_text()
    assert text.count("sign flipping") > 3
    undefended = {(row["defense"], row["twin"]): row for row in data_of(page, "curve-0-0-0") if row["round"] == 4}
    attacked, free = undefended["no defense", "under attack"], undefended["no defense", "attack-free twin"]
    assert attacked["value"] == pytest.approx(0.27 + 0.002)
    assert free["value"] == pytest.approx(0.9 + 0.002)
    # Student's t for three seeds: 4.3027 * 0.001 / sqrt(3)
    assert attacked["high"] - attacked["low"] == pytest.approx(2 * 4.3027 * 0.001 / 3**0.5, rel=0.02)
    assert data_of(page, "curve-0-0-0-shade") == [{"from": 1.5, "to": 4.5}]
    damage = re.search(r"sign_flipping-None-1</th>.*?</tr>", text, re.DOTALL)[0]
    assert ">0.630<" in damage  # 0.9 - 0.27
    assert "flsec run " in text
    assert "Linux, 2 cores" in text


def test_an_audit_log_is_told_without_what_a_server_cannot_know_and_its_damage_is_said(hostile, tmp_path):
    audit = hostile[2]
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[::2]))
    done = CliRunner().invoke(app, ["report", str(audit), "--html", str(tmp_path / "report.html")])
    assert done.exit_code == 1
    assert "the chain breaks" in done.output
    text = (tmp_path / "report.html").read_text()
    assert "the chain breaks" in text
    assert "Who attacks is not known here." in text
    outcomes = {row["outcome"] for row in data_of(tmp_path / "report.html", "cells-0")}
    assert outcomes == {"kept", "dropped", "quarantined"}


def test_ids_of_flower_nodes_keep_all_their_digits(tmp_path):
    node = 2**63 + 5
    with AuditLog(tmp_path / "audit.jsonl") as log:
        log(RoundReport(1, (), (Verdict("Krum", (node, 2), (2,), scores={node: 3.0, 2: 1.0}, judges=True),), None, {}))
    write_report([tmp_path / "audit.jsonl"], tmp_path / "report.html")
    assert str(node) in {row["client"] for row in data_of(tmp_path / "report.html", "cells-0")}


def test_two_hundred_runs_stay_under_five_megabytes_and_what_is_left_out_is_said(tmp_path):
    for number in range(200):
        settings = config("sign_flipping", "multi_krum", number + 1)
        folder = tmp_path / "runs" / f"run-{number}"
        if number < 2:
            write_run(folder, settings, rounds=30, clients=60, reason="x" * 300)
        else:  # one that was written stands for all
            folder.mkdir()
            for file in ("rounds.jsonl", "environment.json"):
                (folder / file).hardlink_to(tmp_path / "runs/run-1" / file)
            (folder / "config.yaml").write_text(
                (tmp_path / "runs/run-1/config.yaml").read_text().replace("seed: 2", f"seed: {number + 1}")
            )
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert re.search(r"Shown are \d+ of 60 clients", (tmp_path / "report.html").read_text())


def test_a_large_run_is_thinned_to_whom_it_matters(tmp_path):
    write_run(tmp_path / "run", config(), rounds=30, clients=1500)
    write_report([tmp_path / "run"], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    rows = data_of(tmp_path / "report.html", "cells-0")
    shown = {row["client"] for row in rows}
    assert {str(client) for client in range(375)} <= shown  # the attackers
    assert len(shown) < 1500
    assert f"Shown are {len(shown)} of 1500 clients" in (tmp_path / "report.html").read_text()


def test_what_holds_no_run_is_refused_and_so_are_two_forms_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    write_run(tmp_path / "run", config())
    both = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--json", "--html", str(tmp_path / "a.html")])
    assert isinstance(both.exception, ConfigError)
    nowhere = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--html", str(tmp_path / "no/where.html")])
    assert isinstance(nowhere.exception, SaveError)


def test_the_records_are_printed_as_json(tmp_path):
    write_run(tmp_path / "run", config())
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--json"])
    (told,) = json.loads(done.output)
    assert [record["round"] for record in told["rounds"]] == [0, 1, 2, 3, 4]
    assert told["config"]["attacks"][0]["name"] == "sign_flipping"
