"""Figures of runs: what is drawn, in what words, and what is refused."""

import re

import pytest
from matplotlib import rcParams
from typer.testing import CliRunner

from flsec.errors import ConfigError
from flsec.simulations.cli import app
from flsec.simulations.figure_style import PALETTE, figures, save_figure, spans
from flsec.simulations.studies.run_figures import KINDS, draw
from flsec.simulations.studies.run_set import RunSet
from flsec.strategies import AuditLog
from tests.support.run_folders import config, report, write_grid, write_run


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("grid") / "grid", measures=["attack_success_rate"])


def figure(*arguments):
    return CliRunner().invoke(app, ["figure", *map(str, arguments)])


def drawn(path):
    """Return the texts in an SVG."""
    return re.findall(r"<text[^>]*>([^<]*)</text>|<tspan[^>]*>([^<]*)</tspan>", path.read_text())


def texts(path):
    return {text for pair in drawn(path) for text in pair if text}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_in_words_and_the_same_runs_give_the_same_file(grid, tmp_path, kind):
    runs = grid / "sign_flipping-multi_krum-1" if kind == "clients" else grid
    for name in ("a.svg", "b.svg"):
        assert figure(runs, "--kind", kind, "--output", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    words = texts(tmp_path / "a.svg")
    expected = {
        "curve": {"sign flipping", "Multi-Krum", "no defense", "round", "test accuracy", "rounds under attack"},
        "heatmap": {"sign flipping", "no attack", "Multi-Krum", "defense", "attack", "test accuracy", "0.27", "± 0.00"},
        "clients": {"round", "client", "attacker, dropped", "honest, kept", "quarantined", "attacks"},
        "trade-off": {"damage", "cost of defense", "detection", "accuracy that the attack takes", "sign flipping"},
    }[kind]
    assert expected <= words
    assert not [word for word in words if "_" in word]


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_figure_is_written_in_the_format_of_its_ending(grid, tmp_path, ending, start):
    assert figure(grid, "--output", tmp_path / f"x.{ending}").exit_code == 0
    assert (tmp_path / f"x.{ending}").read_bytes().startswith(start)


def test_curves_are_means_with_student_s_interval_over_seeds(grid):
    with figures() as plt:
        (axes,) = [axes for axes in draw(plt, "curve", RunSet.read([grid])).axes if axes.get_visible()]
        (line,) = [line for line in axes.get_lines() if line.get_label() == "Multi-Krum"]
        assert line.get_ydata()[-1] == pytest.approx(0.9 + 0.002)  # seeds 1, 2, 3 add a thousandth each
        band = axes.collections[-1].get_paths()[0].vertices[:, 1]
        assert band.max() - band.min() > 0
        at_the_end = [y for x, y in axes.collections[-1].get_paths()[0].vertices if x == 4]
        assert max(at_the_end) - min(at_the_end) == pytest.approx(2 * 4.3027 * 0.001 / 3**0.5, rel=1e-3)


def test_damage_and_cost_are_differences_between_twins_of_one_seed(grid):
    (scenario,) = RunSet.read([grid]).scenarios
    assert scenario.last(("sign flipping", "no defense"), "damage").mean == pytest.approx(0.9 - 0.27)
    assert scenario.last(("sign flipping", "Multi-Krum"), "damage").mean == pytest.approx(0)
    assert scenario.last(("no attack", "Multi-Krum"), "cost_of_defense").mean == pytest.approx(0)
    assert scenario.last(("no attack", "no defense"), "damage") is None
    assert scenario.last(("sign flipping", "no defense"), "cost_of_defense") is None


def test_an_audit_log_s_clients_are_drawn_too(tmp_path):
    with AuditLog(tmp_path / "audit.jsonl") as log:
        log(report(1, 6, drops=True, reason="NaN"))
    assert figure(tmp_path / "audit.jsonl", "--kind", "clients", "--output", tmp_path / "x.svg").exit_code == 0
    assert {"dropped", "kept", "quarantined"} <= texts(tmp_path / "x.svg")
    assert "attacks" not in texts(tmp_path / "x.svg")


def test_what_cannot_be_drawn_is_refused_in_a_sentence(grid, tmp_path):
    write_run(tmp_path / "one", config())
    other = write_run(tmp_path / "other", config(data={"name": "mnist"}))
    wrong = [
        ([grid, "--kind", "pie"], "no kind 'pie'. Known: curve"),
        ([grid, "--output", tmp_path / "x.jpg"], "ends in .pdf, .svg, .png"),
        ([grid, "--measure", "loss"], "no run measured 'loss'. Known: accuracy, attack_success_rate"),
        ([grid, "--kind", "clients"], "draws one run; got 12"),
        ([tmp_path / "one", other], "differ in more than attack, defense and seed: digits"),
        ([tmp_path / "nothing"], "nothing"),
    ]
    for arguments, message in wrong:
        refused = figure(*arguments).exception
        assert isinstance(refused, ConfigError), arguments
        assert message in str(refused)
    undefended = write_run(tmp_path / "undefended", config(defense=None))
    refused = figure(undefended, "--kind", "trade-off").exception
    assert "needs attack-free twins" in str(refused)


def test_the_style_has_the_palette_and_leaves_nothing_behind(tmp_path):
    before = dict(rcParams)
    with figures() as plt:
        cycle = [entry["color"] for entry in rcParams["axes.prop_cycle"]]
        assert [f"#{colour.lstrip('#')}" for colour in cycle] == list(PALETTE)
        drawn_, _ = plt.subplots()
        save_figure(drawn_, tmp_path / "x.pdf")
    assert dict(rcParams) == before
    assert not plt.get_fignums()
    assert spans([]) == []
