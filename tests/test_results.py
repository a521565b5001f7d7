"""What is kept in results/ was measured with the settings that the packaged experiments still have."""

import json
from pathlib import Path

import pytest

from flsec.simulations.config import packaged_experiments
from flsec.simulations.schema import Config
from flsec.simulations.studies.sweep import load_sweep
from results.record import settings

FILES = sorted((Path(__file__).parents[1] / "results").glob("*/*.json"))


def test_there_are_results():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_are_those_of_the_experiment(path):
    recorded = json.loads(path.read_text())
    name = f"{path.parent.name}/{path.stem}"
    assert recorded["command"] == f"flsec sweep {name}"
    cells = {
        cell.name: settings(cell.config.to_dict()) for cell in load_sweep(packaged_experiments(".sweep")[name]).cells
    }
    assert {run: as_read_today(recorded["runs"][run]["config"]) for run in recorded["runs"]} == cells


def as_read_today(config):
    """A parameter that came later is not in the file, and has its default."""
    return settings(Config.model_validate({"name": "recorded", **config}).to_dict())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_curves_have_one_value_a_round_and_are_no_copies(path):
    runs = json.loads(path.read_text())["runs"]
    for run in runs.values():
        curves = run["curves"]
        assert {len(values) for values in curves.values()} == {len(curves["round"])}
        assert curves["round"] == sorted(set(curves["round"]))
    assert len({json.dumps(run["curves"]) for run in runs.values()}) == len(runs)
