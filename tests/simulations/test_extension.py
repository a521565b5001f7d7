"""Runs that are extended: to the bit what a longer run is, or refused."""

import json
from pathlib import Path

import pytest

from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.simulations import engine
from flsec.simulations.config import load_config, make_config
from flsec.simulations.extension import extended
from flsec.simulations.schema import STRATEGIES
from flsec.simulations.studies.missing_runs import is_finished
from flsec.strategies import DEFENSES

BASE = {
    "seed": 2,
    "data": {"name": "digits", "subset": 200},
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1, "epochs": 1},
    "simulation": {"engine": "inprocess", "num_clients": 6, "num_rounds": 3},
    "output": {"plots": False},
}
ATTACKED = {"attacks": [{"name": "sign_flipping"}], "adversaries": {"probability": 0.3, "persistence": 2}}


def config(tmp_path: Path, rounds: int, name: str, **changes):
    simulation = {**BASE["simulation"], "num_rounds": rounds, **changes.pop("simulation", {})}
    output = {**BASE["output"], "folder": str(tmp_path), **changes.pop("output", {})}
    return make_config({**BASE, "name": name, **changes, "simulation": simulation, "output": output})


def timeless(record):
    """A record without seconds, which differ from run to run."""
    plain = {key: value for key, value in record.items() if key not in ("seconds", "stages")}
    plain["defenses"] = [{**verdict, "seconds": None} for verdict in record.get("defenses", ())]
    return plain


@pytest.mark.parametrize(
    "changes",
    [
        {**ATTACKED, "defenses": [{"name": "centered_clipping", "radius": 1.0}], "strategy": {"name": "fedadam"}},
        {"defenses": [{"name": "rsa"}], "training": {"learning_rate": 0.1, "schedule": "inverse_sqrt", "epochs": 1}},
        {**ATTACKED, "simulation": {"sampling": "without_replacement", "clients_per_round": 1}},
        {**ATTACKED, "output": {"evaluate_every": 2, "checkpoint_every": 2}},
    ],
)
def test_an_extended_run_is_to_the_bit_the_run_that_had_so_many_rounds_from_the_start(tmp_path, changes):
    short = engine.run(config(tmp_path, 3, "short", **changes))
    longer = engine.resume(short.path, rounds=5)
    whole = engine.run(config(tmp_path, 5, "whole", **changes))
    assert [timeless(record) for record in longer.rounds()] == [timeless(record) for record in whole.rounds()]
    models = [(folder.path / "model.safetensors").read_bytes() for folder in (longer, whole)]
    assert models[0] == models[1]
    summaries = [json.loads((folder.path / "summary.json").read_text()) for folder in (longer, whole)]
    assert {k: v for k, v in summaries[0].items() if k not in ("name", "seconds")} == {
        k: v for k, v in summaries[1].items() if k not in ("name", "seconds")
    }


def test_a_stopped_extension_goes_on_and_is_not_taken_for_a_finished_run(tmp_path):
    folder = engine.run(config(tmp_path, 2, "run"))

    def stop(record):
        if record["round"] == 3:
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        engine.resume(folder.path, rounds=5, on_round=stop)
    assert not is_finished(folder.path)
    assert load_config(folder.path / "config.yaml").simulation.num_rounds == 5
    assert len(engine.resume(folder.path).rounds()) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"learning_rate": 0.1, "schedule": "triangular"}}, "triangular"),
        ({**ATTACKED, "adversaries": {"count": 1, "last_round_only": True}}, "last_round_only"),
        ({"defenses": [{"name": "crfl"}]}, "crfl asks how many rounds"),
        ({"simulation": {"sampling": "without_replacement", "clients_per_round": 2}}, "must be at most 3"),
    ],
)
def test_what_would_have_been_another_run_is_refused_and_nothing_is_changed(tmp_path, changes, words):
    folder = engine.run(config(tmp_path, 3, "run", **changes))
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file() and path.name != "run.log"}
    with pytest.raises(ConfigError, match=words):
        engine.resume(folder.path, rounds=7)
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("rounds", [-1, 0, 2, 3])
def test_no_run_becomes_shorter(tmp_path, rounds):
    with pytest.raises(ConfigError, match="must be more than the 3 rounds"):
        extended(config(tmp_path, 3, "run"), rounds)


def test_those_who_ask_for_the_number_of_rounds_alone_are_known():
    """Of flsec's own, each of the others gives it to the learning rate's schedule and to nothing else."""
    alone = [
        name
        for registry in (DEFENSES, ATTACKS, STRATEGIES)
        for name, member in registry.items()
        if "num_rounds" in (asked := parameters_of(member)) and "training" not in asked
    ]
    assert alone == ["crfl"]
