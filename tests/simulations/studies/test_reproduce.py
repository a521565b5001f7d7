"""Reproducing a claim: what is run, what is judged, what is kept, and that the kept file tells the same again."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.cli import app
from flsec.simulations.studies import claims, reproduce
from flsec.simulations.studies.claim_results import (
    judge,
    measured_in,
    measured_of,
    read_result,
    record_of,
    write_record,
)
from flsec.simulations.studies.claims import load_claim
from flsec.simulations.studies.reproduce import Reproduction, missing_runs, run_all
from flsec.simulations.studies.statements import Curve

CLAIM = """
title: Median holds
place: Fig. 1
says: The median holds where plain averaging does not.
paper:
  accuracy: {median: 0.8}
of: last 2
statements:
  - {order: [attacked, median], by: 0.02}
  - {at_least: {median: 0.9}, measure: l1_distance}
small:
  why: digits
  experiment:
    data: {name: digits}
    model: {name: softmax}
    training: {learning_rate: 0.2, epochs: 1}
    attacks: [{name: sign_flipping, scale: 4.0}]
    adversaries: {count: 2}
    simulation: {num_clients: 5, num_rounds: 3}
  curves:
    attacked: {}
    median: {defenses: [{name: median}]}
  seeds: [1, 2, 3]
quick:
  why: one seed
  seeds: [1]
"""
NAME = "paper/median_holds"


@pytest.fixture(scope="module")
def claim_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("claims") / "paper" / "median_holds.yaml"
    path.parent.mkdir()
    path.write_text(CLAIM)
    return path


@pytest.fixture
def packaged(claim_path, monkeypatch):
    """The claim above as the only one that there is."""
    for module in (claims, reproduce):
        if hasattr(module, "packaged_claims"):
            monkeypatch.setattr(module, "packaged_claims", lambda: {NAME: claim_path})


@pytest.fixture(scope="module")
def done(claim_path, tmp_path_factory):
    """The claim, its runs, and what they measured."""
    claim = load_claim(NAME, path=claim_path)
    runs = claim.runs(tmp_path_factory.mktemp("runs"))
    run_all(missing_runs(runs))
    return claim, runs, measured_in(claim, runs)


def with_values(claim, **means):
    """Curves of one round and three seeds around these means."""
    return {
        curve: {
            measure: Curve(
                (3,),
                {seed: (means.get(f"{curve}_{measure}", means.get(curve, 0.5)) + seed / 100,) for seed in (1, 2, 3)},
            )
            for measure in claim.measures
        }
        for curve in claim.curves
    }


# --- running ----------------------------------------------------------------------------------------------------


def test_every_curve_and_seed_is_run_once_and_no_more(done, monkeypatch):
    claim, runs, _ = done
    assert len(runs) == len(claim.curves) * 3
    assert not missing_runs(runs)
    monkeypatch.setattr(engine, "run", lambda *args, **options: pytest.fail("ran again"))
    run_all(runs)


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(done, tmp_path):
    claim, runs, _ = done
    config = claim.runs(tmp_path)["median", 2]

    def stop(record):
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all({("median", 2): config}, on_run=lambda number, key, config: stop)
    assert list(missing_runs({("median", 2): config})) == [("median", 2)]
    run_all({("median", 2): config})
    here, there = (Path(c.output.folder) / c.name / "model.safetensors" for c in (config, runs["median", 2]))
    assert here.read_bytes() == there.read_bytes()


def test_a_folder_with_a_run_of_other_settings_is_refused(done, tmp_path):
    claim, _, _ = done
    config = claim.runs(tmp_path)["attacked", 1]
    run_all({("attacked", 1): config})
    file = tmp_path / config.name / "config.yaml"
    file.write_text(file.read_text().replace("scale: 4.0", "scale: 5.0"))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        missing_runs(claim.runs(tmp_path))


def test_several_jobs_give_the_numbers_of_one(done, tmp_path):
    claim, runs, _ = done
    again = {key: config for key, config in claim.runs(tmp_path).items() if key[0] == "median" and key[1] < 3}
    ended = []
    run_all(again, jobs=2, on_run=lambda number, key, config: ended.append(key))
    assert sorted(ended) == sorted(again)
    for key, config in again.items():
        here, there = (Path(c.output.folder) / c.name / "model.safetensors" for c in (config, runs[key]))
        assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_measure_that_a_run_lacks_is_refused_before_its_first_round(done, tmp_path, jobs):
    claim, _, _ = done
    runs = {("median", 1): claim.runs(tmp_path)["median", 1]}
    with pytest.raises(ConfigError, match=r"does not measure 'acuracy'. Did you mean 'accuracy'\?"):
        run_all(runs, needed=lambda curve: ("loss", "recall", "acuracy"), jobs=jobs)
    assert not list(tmp_path.iterdir())


def test_statements_say_what_is_needed_of_each_curve(done):
    claim, _, _ = done
    assert claim.needed("median") == ("accuracy", "l1_distance")
    assert claim.needed("attacked") == ("accuracy",)
    assert claim.needed("median_attack_free") == ()


# --- measuring and judging --------------------------------------------------------------------------------------


def test_curves_are_those_of_the_run_folders(done):
    _claim, runs, measured = done
    for (curve, seed), config in runs.items():
        lines = (Path(config.output.folder) / config.name / "rounds.jsonl").read_text().splitlines()
        accuracy = [json.loads(line)["accuracy"] for line in lines]
        np.testing.assert_allclose(measured[curve]["accuracy"].seeds[seed], accuracy, atol=1e-4)
        assert measured[curve]["accuracy"].rounds == (0, 1, 2, 3)


def test_only_attacked_curves_have_a_distance_to_their_twin(done):
    _, _, measured = done
    assert measured["median"]["l1_distance"].rounds == (3,)
    assert all(values[0] > 0 for values in measured["median"]["l1_distance"].seeds.values())
    assert "l1_distance" not in measured["median_attack_free"]
    assert "l1_distance" not in measured["attacked"]  # without a defense there is no twin in this file


def test_rates_are_those_of_all_rounds_so_far(done, tmp_path):
    """By the innermost defense: of 1 + 3 attackers it rejects 0, then 3; of 4 + 2 honest clients 1, then 0."""
    claim, _, _ = done
    config = claim.runs(tmp_path)["median", 1]
    folder = tmp_path / config.name
    folder.mkdir()
    rounds = [{"round": 0, "accuracy": 0.1, "loss": 1.0, "defenses": []}]
    for number, counts in enumerate([(0, 1, 1, 3), (3, 0, 0, 2)], 1):
        names = ("true_positives", "false_positives", "false_negatives", "true_negatives")
        outer, inner = {"detection": None}, {"detection": {**dict(zip(names, counts, strict=True)), "recall": 0.0}}
        rounds.append({"round": number, "accuracy": 0.5, "loss": 1.0, "defenses": [outer, inner]})
    (folder / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rounds))
    for file in ("config.yaml", "summary.json"):
        (folder / file).write_text("{}")
    file = claim.file.model_copy(update={"also": ("recall", "precision", "false_positive_rate")})
    one = claims.Claim(**{**vars(claim), "file": file, "seeds": (1,), "curves": {"median": claim.curves["median"]}})
    found = measured_in(one, {("median", 1): config})["median"]
    assert found["recall"] == Curve((1, 2), {1: (0.0, 0.75)})
    assert found["precision"] == Curve((1, 2), {1: (0.0, 0.75)})
    assert found["false_positive_rate"] == Curve((1, 2), {1: (0.25, 0.1667)})


def test_the_claim_comes_out_and_its_reason_is_left_out(done):
    claim, _, measured = done
    result = judge(claim, measured)
    assert (result.verdict, result.reason) == ("comes out", "")
    assert all(outcome.holds for outcome in result.outcomes)


def expecting(claim, verdict, reason):
    file = claim.file.model_copy(update={"expected": verdict, "reason": reason})
    return claims.Claim(**{**vars(claim), "file": file})


def test_what_does_not_hold_does_not_come_out_with_the_file_s_reason(done):
    claim, _, _ = done
    known = expecting(claim, "does not come out", "too few rounds")
    result = judge(known, with_values(claim, attacked=0.7, median=0.5, median_l1_distance=2.0))
    assert (result.verdict, result.reason) == ("does not come out", "too few rounds")
    assert [outcome.holds for outcome in result.outcomes] == [False, True]


def test_without_a_reason_it_says_what_fails(done):
    claim, _, _ = done
    result = judge(claim, with_values(claim, attacked=0.7))
    assert result.reason.startswith("no reason is established; what fails: attacked < median by 0.02")


def test_a_reason_is_one_for_the_expected_verdict_alone(done):
    claim, _, _ = done
    known = expecting(claim, "does not come out", "too few rounds")
    assert judge(known, {}).reason == "not run yet"
    assert "too few" not in judge(expecting(claim, "open", "too few rounds"), with_values(claim, attacked=0.7)).reason
    assert judge(expecting(claim, "open", "too few rounds"), {}).reason == "too few rounds"


def test_it_is_open_before_all_curves_are_there_and_with_few_seeds(done):
    claim, _, measured = done
    assert judge(claim, {}).verdict == "open"
    assert judge(claim, {"median": measured["median"]}).verdict == "open"
    two = {
        curve: {name: Curve(c.rounds, {s: c.seeds[s] for s in (1, 2)}) for name, c in measures.items()}
        for curve, measures in measured.items()
    }
    result = judge(claim, two)
    assert result.verdict == "open"
    assert result.reason.startswith("2 of the 3 seeds")
    assert len(result.outcomes) == 2  # what two seeds say is shown all the same


def test_a_curve_counts_once_all_its_seeds_are_there(done, tmp_path):
    claim, _, _ = done
    runs = claim.runs(tmp_path)
    run_all({key: runs[key] for key in [("attacked", 1), ("attacked", 2)]})
    assert measured_in(claim, runs) == {}
    run_all({key: runs[key] for key in [("attacked", 3)]})
    assert list(measured_in(claim, runs)) == ["attacked"]


# --- the file that is kept --------------------------------------------------------------------------------------


def test_the_kept_file_tells_the_same_verdict_again(done, tmp_path):
    claim, runs, measured = done
    record = record_of(claim, measured, runs, "flsec reproduce paper/median_holds")
    write_record(record, tmp_path / f"{NAME}.json")
    read = read_result(NAME, tmp_path)
    assert read == json.loads(json.dumps(record))
    assert judge(claim, measured_of(read)) == judge(claim, measured)
    assert read["ours"]["median"]["accuracy"]["interval"][0] < read["ours"]["median"]["accuracy"]["mean"]
    assert read["seconds"] >= 0
    assert read["versions"]["packages"]["flsec"]
    assert read_result("paper/other", tmp_path) is None


def test_what_is_no_number_is_null_in_the_file_and_nan_again(done, tmp_path):
    claim, runs, measured = done
    curve = measured["attacked"]["accuracy"]
    broken = {**measured, "attacked": {"accuracy": Curve(curve.rounds, {**curve.seeds, 2: (math.nan,) * 4})}}
    write_record(record_of(claim, broken, runs, ""), tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    again = measured_of(json.loads(text))["attacked"]["accuracy"]
    assert np.isnan(again.values()[1]).all()


# --- the command ------------------------------------------------------------------------------------------------


def call(*arguments):
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.usefixtures("packaged")
def test_the_command_prints_the_paper_beside_ours_and_the_verdict(done, tmp_path):
    _, runs, _ = done
    output = Path(runs["attacked", 1].output.folder)
    result = call(NAME, "--output", output, "--record", "--results", tmp_path)
    assert result.exit_code == 0, result.output
    assert "paper/median_holds (small, Fig. 1): comes out" in result.output
    assert "0.800" in result.output
    assert (tmp_path / f"{NAME}.json").is_file()
    assert (tmp_path / f"{NAME}.png").stat().st_size > 5000
    listed = call("--list", "--results", tmp_path)
    assert "comes out" in listed.output
    assert "open" in call("--list", "--results", tmp_path / "empty").output
    (claim,) = json.loads(call(NAME, "--output", output, "--json").stdout)
    assert (claim["claim"], claim["verdict"], claim["expected"]) == (NAME, "comes out", True)
    kept = json.loads((tmp_path / f"{NAME}.json").read_text())
    for curve, ours in kept["ours"].items():
        for measure in ours:
            values = claim["ours"][curve][measure]
            assert len(values["seeds"]) == len(kept["seeds"])
            assert values["mean"] == pytest.approx(sum(values["seeds"]) / len(values["seeds"]))
    (known,) = json.loads(call(NAME, "--list", "--json", "--results", tmp_path).stdout)
    assert (known["claim"], known["verdict"]) == (NAME, "comes out")


@pytest.mark.usefixtures("packaged")
def test_a_quick_form_that_does_not_come_out_is_an_error(tmp_path):
    result = call("--quick", "--output", tmp_path)
    assert result.exit_code == 1  # one seed: open
    assert "1 of the 3 seeds" in result.output
    assert list(tmp_path.glob("*.png"))


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--full"], "two sizes"),
        (["--full"], "has no full form"),
        (["other"], "no claim has this name"),
        (["--engine", "dask"], "--engine must be"),
        (["--ray-address", "auto"], "--ray-address goes with"),
        (["--quick", "--record"], "to record the small form"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "run", lambda *args, **options: pytest.fail("ran"))
    with pytest.raises(ConfigError, match=message):
        call(*arguments, "--output", tmp_path, "--results", tmp_path)


def test_a_claim_can_be_run_by_another_engine_into_the_same_files(done):
    claim, runs, _ = done
    pooled = claim.runs(Path("elsewhere"), {"engine": "pooled"})
    assert [c.name for c in pooled.values()] == [c.name for c in runs.values()]
    assert {c.simulation.engine for c in pooled.values()} == {"pooled"}


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize("figure", ["curves", "bars", "line"])
def test_each_kind_of_figure_is_drawn(done, figure, tmp_path):
    claim, _runs, measured = done
    named = {f"k_{i + 1}": curves for i, curves in enumerate(measured.values())}
    file = claim.file.model_copy(update={"figure": figure})
    drawn = claims.Claim(**{**claim.__dict__, "file": file})
    reproduce.plot_claim(drawn, named if figure == "line" else measured, tmp_path / "a.png")
    assert 5000 < (tmp_path / "a.png").stat().st_size < 100_000


def test_reading_a_command_s_claims_starts_nothing(tmp_path):
    work = Reproduction.of("siren/fig6_80", output=tmp_path)
    assert list(work.claims) == ["siren/fig6_80"]
    assert not list(tmp_path.iterdir())
