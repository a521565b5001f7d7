"""The numbers of a round by name, and the DataFrames of runs and sweeps."""

import sys

import pytest

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.simulations.numbers import MEASURED, dropped_in, numbers_of
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies.sweep import load_sweep, run_sweep, spreads

RUN = {
    "name": "run",
    "seed": 2,
    "data": {"name": "digits", "subset": 300},
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1, "epochs": 1},
    "defenses": [{"name": "norm_clipping", "max_norm": 3.0}, {"name": "multi_krum", "num_byzantine": 2}],
    "attacks": [{"name": "badnets", "target": 0}],
    "adversaries": {"count": 2, "first_round": 2},
    "simulation": {"engine": "inprocess", "num_clients": 8, "num_rounds": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    output = {"folder": str(tmp_path_factory.mktemp("runs")), "plots": False, "evaluate_every": 2}
    return engine.run(make_config({**RUN, "output": output}))


def test_every_number_of_a_record_has_a_name(folder):
    """Counted on the record itself: a number that is left out is missing in the count."""
    record = folder.rounds()[2]
    numbers = numbers_of(record)
    groups = ("measures", "attack", "clients", "seconds")
    plain = len(record["per_class_accuracy"]) + sum(len(record[group]) for group in groups)
    decided = ("asked", "usable", "quarantined", "kept_previous_model", "attackers")
    assert {*decided, "dropped_attackers", "dropped_honest", "loss", "accuracy"} <= set(numbers)
    krum = {name for name in numbers if name.startswith("MultiKrum/")}
    assert krum == {f"MultiKrum/{what}" for what in ("kept", "dropped", "at_most", "precision", "recall")}
    clipping = {name for name in numbers if name.startswith("NormClipping/")}
    assert {"NormClipping/kept", "NormClipping/dropped"} <= clipping
    assert len(numbers) == plain + len(decided) + 4 + len(krum) + len(clipping)
    assert numbers["MultiKrum/dropped"] == 2 == numbers["dropped_attackers"] + numbers["dropped_honest"]
    assert numbers["attack/attack_success"] == record["attack"]["attack_success"]
    assert all(type(value) is float for value in numbers.values())


def test_a_round_without_evaluation_has_no_measures(folder):
    numbers = numbers_of(folder.rounds()[1])
    assert not {name for name in numbers if name.partition("/")[0] in (*MEASURED, "class_accuracy")}
    assert set(MEASURED) <= set(folder.rounds()[2])


@pytest.mark.parametrize("hostile", [None, [], [0], [0, 9]])
def test_who_was_dropped_is_split_by_who_attacked(hostile):
    def verdict(judges, kept):
        return {"judges": judges, "participants": [0, 1, 2], "kept": kept}

    record = {"adversaries": hostile, "defenses": [verdict(True, [1, 2]), verdict(False, []), verdict(True, [0, 1])]}
    assert dropped_in(record) == ((1, 1) if hostile else (0, 2))
    assert dropped_in({"adversaries": hostile, "defenses": [verdict(False, [])]}) is None


def test_a_run_s_frame_has_a_row_a_round(folder):
    pandas = pytest.importorskip("pandas")
    frame = folder.frame()
    assert list(frame.index) == [0, 1, 2, 3]
    assert frame.index.name == "round"
    assert frame["accuracy"].isna().tolist() == [False, True, False, False]
    assert frame.loc[3, "accuracy"] == folder.rounds()[3]["accuracy"]
    assert frame.loc[3, "MultiKrum/dropped"] == 2
    assert all(pandas.api.types.is_float_dtype(kind) for kind in frame.dtypes)


def test_a_sweep_s_frame_has_a_row_for_each_finished_run(tmp_path):
    pandas = pytest.importorskip("pandas")
    file = tmp_path / "grid.yaml"
    file.write_text(
        f"""
experiment:
  data: {{name: digits, subset: 200}}
  model: {{name: softmax}}
  training: {{learning_rate: 0.1}}
  simulation: {{engine: inprocess, num_clients: 4, num_rounds: 1}}
  output: {{plots: false, folder: {tmp_path}}}
vary: {{defense: {{none: {{}}, median: {{defenses: [{{name: median}}]}}}}, seed: [1, 2]}}
"""
    )
    sweep = load_sweep(file)
    assert list(sweep.frame().columns) == ["defense", "seed"]
    assert len(sweep.frame()) == 0
    rows = run_sweep(sweep)
    frame = sweep.frame()
    assert frame["accuracy"].tolist() == [row["accuracy"] for row in rows]
    written = pandas.read_csv(sweep.folder / "results.csv")
    assert written["accuracy"].tolist() == frame["accuracy"].tolist()
    by_hand = frame.groupby("defense")["accuracy"].agg(["mean", "std"])
    for (defense,), spread in spreads(rows, ["defense"], "accuracy").items():
        assert spread.mean == pytest.approx(by_hand.loc[defense, "mean"])
        assert spread.deviation == pytest.approx(by_hand.loc[defense, "std"])
        assert spread.runs == 2
    (sweep.folder / "median-2" / "summary.json").unlink()
    assert len(sweep.frame()) == 3


def test_without_pandas_the_command_that_installs_it_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r'needs the package pandas.*pip install "flsec\[frames\]"'):
        folder.frame()


def test_pandas_is_not_imported_before_a_frame_is_asked_for():
    import subprocess

    code = "import flsec.simulations.studies.sweep, flsec.simulations.run_folder, sys; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
