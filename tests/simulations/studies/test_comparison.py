"""Comparisons: which twins there are, that they are ordinary runs, what the table says, and what is refused."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from flsec.errors import ConfigError
from flsec.simulations import cli, engine
from flsec.simulations.config import load_config, make_config, resolve_experiment
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies import comparison as module
from flsec.simulations.studies.comparison import Comparison
from flsec.simulations.studies.missing_runs import is_finished

BOTH = {
    "name": "both",
    "seed": 2,
    "data": {"name": "digits", "subset": 300},
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1, "epochs": 1},
    "defenses": [{"name": "multi_krum", "num_byzantine": 3}],
    "attacks": [{"name": "sign_flipping", "scale": 8.0}],
    "adversaries": {"count": 3, "first_round": 2},
    "simulation": {"engine": "inprocess", "num_clients": 10, "num_rounds": 3},
}


def without(*sections):
    return {key: value for key, value in BOTH.items() if key not in sections}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(settings):
    comparison = Comparison.of(make_config(settings))
    folder = engine.run(comparison.config)
    return comparison, folder, comparison.finish(folder)


def test_an_attack_and_a_defense_have_two_twins_that_are_the_runs_one_would_start_by_hand(here):
    comparison, folder, rows = compared(BOTH)
    assert [row["run"] for row in rows] == ["attack-free", "attacked, undefended", "attacked, defended"]
    by_hand = {
        "attack_free": without("attacks", "adversaries", "defenses"),
        "undefended": without("defenses"),
    }
    for name, settings in by_hand.items():
        alone = engine.run(make_config({**settings, "name": f"alone_{name}"}))
        twin = folder.path / "twins" / name
        assert is_finished(twin)
        models = [load_file(path / "model.safetensors") for path in (alone.path, twin)]
        assert all((models[0][key] == models[1][key]).all() for key in models[0])
        (row,) = [row for row in rows if row["folder"] == str(twin)]
        assert row["accuracy"] == json.loads((alone.path / "summary.json").read_text())["accuracy"]
    assert rows[1]["accuracy"] < rows[0]["accuracy"] - 0.2  # else the comparison shows nothing
    assert comparison.title(folder.rounds()) == (
        "both: 3 of 10 clients in 2 of 3 rounds attack by sign_flipping, defended by multi_krum"
    )
    assert (folder.path / "comparison.png").stat().st_size > 5000
    assert json.loads((folder.path / "comparison.json").read_text())["runs"] == rows


def test_who_was_dropped_is_counted_from_the_records(here):
    _, folder, rows = compared(BOTH)
    attackers = dropped_attackers = dropped_honest = 0
    for record in folder.rounds()[1:]:
        (verdict,) = record["defenses"]
        for client in record["sampled"]:
            hostile, dropped = client in record["adversaries"], client not in verdict["kept"]
            attackers += hostile
            dropped_attackers += hostile and dropped
            dropped_honest += dropped and not hostile
    assert attackers == rows[2]["attackers"] == 6
    assert (rows[2]["dropped_attackers"], rows[2]["dropped_honest"]) == (dropped_attackers, dropped_honest)
    assert dropped_honest == 9 - dropped_attackers  # three a round
    assert rows[1]["dropped_attackers"] is None
    assert (rows[0]["attackers"], rows[0]["honest"]) == (0, 30)


def test_an_attack_or_a_defense_alone_has_one_twin(here):
    _, _, rows = compared({**without("defenses"), "name": "attack"})
    assert [row["run"] for row in rows] == ["attack-free", "attacked"]
    comparison, _, rows = compared({**without("attacks", "adversaries"), "name": "defense"})
    assert [row["run"] for row in rows] == ["undefended", "defended"]
    cost = rows[0]["accuracy"] - rows[1]["accuracy"]
    assert comparison.verdict(rows) == f"Where nobody attacks, multi_krum costs {cost:.3f} of accuracy."


def test_what_has_nothing_to_be_compared_with_is_refused_before_it_runs(here):
    with pytest.raises(ConfigError, match="neither an attack nor a defense") as error:
        Comparison.of(make_config(without("attacks", "adversaries", "defenses")))
    assert len(str(error.value).splitlines()) == 1
    alarm = {**BOTH, "defenses": [{"name": "siren"}], "attacks": [{"name": "false_alarm"}]}
    with pytest.raises(ConfigError, match=r"without its defenses the experiment cannot run.*--no-compare"):
        Comparison.of(make_config(alarm))
    assert not (here / "runs").exists()


def test_an_attack_on_the_defense_alone_is_left_out_of_the_undefended_twin():
    config = make_config(
        {**BOTH, "defenses": [{"name": "siren"}], "attacks": [{"name": "false_alarm"}, {"name": "sign_flipping"}]}
    )
    twins = {twin.name: twin.config for twin in Comparison.of(config).twins}
    assert [attack.name for attack in twins["undefended"].attacks] == ["sign_flipping"]


def test_a_comparison_goes_on_where_it_stopped_and_grows_with_the_experiment(here):
    comparison, folder, rows = compared(BOTH)
    untouched = (folder.path / "twins/attack_free/rounds.jsonl").stat().st_mtime_ns
    (folder.path / "twins/undefended/summary.json").unlink()
    assert comparison.finish(folder)[1]["accuracy"] == rows[1]["accuracy"]
    assert (folder.path / "twins/attack_free/rounds.jsonl").stat().st_mtime_ns == untouched
    longer = engine.resume(folder.path, rounds=5)
    grown = Comparison.of(load_config(longer.path / "config.yaml")).finish(longer)
    assert [len(RunFolder.open(Path(row["folder"])).rounds()) for row in grown] == [6, 6, 6]
    file = here / "long.yaml"
    file.write_text(json.dumps({**BOTH, "name": "long", "simulation": {**BOTH["simulation"], "num_rounds": 5}}))
    at_once = json.loads(CliRunner().invoke(cli.app, ["run", str(file), "--compare", "--json"]).stdout)
    assert [row["accuracy"] for row in at_once["runs"]] == [row["accuracy"] for row in grown]


def test_a_twin_of_a_short_run_on_ray_stays_in_this_process(here):
    _, folder, _ = compared(BOTH)
    on_ray = make_config({**BOTH, "simulation": {**BOTH["simulation"], "engine": "flower"}})
    twin = module._beside(on_ray, "undefended", folder).simulation
    assert (twin.engine, twin.device) == ("inprocess", "cpu")
    on_gpus = {**BOTH["simulation"], "engine": "flower", "client_resources": {"num_cpus": 1, "num_gpus": 0.1}}
    assert module._beside(make_config({**BOTH, "simulation": on_gpus}), "x", folder).simulation.engine == "flower"


def test_the_command_compares_where_the_file_says_so(here):
    config = load_config(resolve_experiment("quickstart"))
    assert config.output.compare
    file = here / "small.yaml"
    file.write_text(json.dumps({**BOTH, "name": "small", "output": {"compare": True}}))
    shown = CliRunner().invoke(cli.app, ["run", str(file)]).stdout
    for words in ("attack-free", "attacked, undefended", "attacked, defended", "attackers dropped", "comparison.png"):
        assert words in shown
    alone = CliRunner().invoke(cli.app, ["run", str(file), "--no-compare"]).stdout
    assert "attack-free" not in alone
    assert "best test accuracy" in alone
