"""What is kept in results/ was measured with the settings that the claims still have, and says what its numbers say."""

import json
from pathlib import Path

import pytest

from flsec.simulations.studies.claim_results import judge, measured_of
from flsec.simulations.studies.claims import load_claim, packaged_claims, read_again, resolved_settings
from results.tables import PAGES, PAPERS, page_with_tables, verdict_of

RESULTS = Path(__file__).parents[1] / "results"
FILES = sorted(file for paper in PAPERS for file in (RESULTS / paper).glob("*.json"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def read(path):
    record = json.loads(path.read_text())
    return record, load_claim(record["claim"], record["size"])


def test_there_are_results_and_each_is_of_a_claim():
    assert FILES
    assert {f"{path.parent.name}/{path.stem}" for path in FILES} <= set(packaged_claims())


@each_file
def test_settings_are_those_of_the_claim(path):
    record, claim = read(path)
    assert record["claim"] == f"{path.parent.name}/{path.stem}"
    assert read_again(record["settings"]) == resolved_settings(claim)
    assert set(record["seeds"]) <= set(claim.seeds)
    assert record["paper"] == claim.file.paper


@each_file
def test_the_numbers_give_the_verdict_again(path):
    record, claim = read(path)
    result = judge(claim, measured_of(record))
    assert (record["verdict"], record["reason"]) == (result.verdict, result.reason)
    assert [s["holds"] for s in record["statements"]] == [outcome.holds for outcome in result.outcomes]
    assert [s["text"] for s in record["statements"]] == [outcome.text for outcome in result.outcomes]
    assert claim.file.expected in (None, result.verdict)


@each_file
def test_curves_have_one_value_a_round_and_are_no_copies(path):
    record, claim = read(path)
    for measures in record["ours"].values():
        for numbers in measures.values():
            assert numbers["round"] == sorted(set(numbers["round"]))
            assert {len(row) for row in numbers["by_seed"].values()} == {len(numbers["round"])}
            assert set(map(int, numbers["by_seed"])) == set(record["seeds"])
    by_defenses = {}  # two defenses that both find all attackers are the same; one with and without attackers is not
    for curve, measures in record["ours"].items():
        by_defenses.setdefault(claim.curves[curve].defenses, []).append(json.dumps(measures))
    assert all(len(set(curves)) == len(curves) for curves in by_defenses.values())


@each_file
def test_files_are_small_and_have_their_picture(path):
    assert path.stat().st_size < 60_000
    assert 3_000 < path.with_suffix(".png").stat().st_size < 80_000


def test_a_claim_without_a_record_is_open():
    names = [name for name in packaged_claims() if not (RESULTS / f"{name}.json").is_file()]
    assert {verdict_of(name)["verdict"] for name in names} <= {"open"}


def test_every_paper_has_its_tables():
    assert {name.partition("/")[0] for name in packaged_claims()} == set(PAPERS)
    text = PAGES[1].read_text()
    assert all(f"<!-- from results: {paper} -->" in text for paper in PAPERS)
    assert all(f"### {name}: " in text for name in packaged_claims())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_up_to_date(page):
    text = page.read_text()
    assert "<!-- from results: " in text
    assert page_with_tables(text) == text, "python -m results.tables"


def test_a_table_that_was_changed_by_hand_is_found():
    text = PAGES[1].read_text()
    changed = text.replace("**Open**", "**Comes out**", 1)
    assert changed != text
    assert page_with_tables(changed) == text
