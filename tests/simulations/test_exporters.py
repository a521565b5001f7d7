"""Exporters: every round once, whatever is resumed; a dashboard that fails; what is refused before a run.

TensorBoard is the real one. MLflow and W&B are the real ones where they are installed; elsewhere modules stand in for
them that have the calls that are made, and nothing of what the packages do with them.
"""

import json
import sys
import types
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.simulations.exporter import EXPORTERS, ExportedRun, Exporter
from flsec.simulations.exports import Exports
from flsec.simulations.numbers import numbers_of

RUN = {
    "name": "run",
    "seed": 2,
    "data": {"name": "digits", "subset": 200},
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1, "epochs": 1},
    "defenses": [{"name": "multi_krum", "num_byzantine": 1}],
    "attacks": [{"name": "sign_flipping"}],
    "adversaries": {"count": 1},
    "simulation": {"engine": "inprocess", "num_clients": 6, "num_rounds": 3},
}


def config(tmp_path, log_to, **simulation):
    output = {"folder": str(tmp_path / "runs"), "plots": False, "log_to": log_to}
    return make_config({**RUN, "simulation": {**RUN["simulation"], **simulation}, "output": output})


def stopped_resumed_gone_back_and_extended(tmp_path, log_to):
    """A run that was stopped in round 2, gone on with, run again from round 1, and extended to 5 rounds."""

    def stop(record):
        if record["round"] == 2:
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        engine.run(config(tmp_path, log_to), on_round=stop)
    (path,) = (tmp_path / "runs").iterdir()
    engine.resume(path)
    engine.resume(path, from_round=1)
    return engine.resume(path, rounds=5)


class Listing(Exporter):
    """Writes down what it is told."""

    def __init__(self, file: str):
        super().__init__()
        self.file = file

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps([round, dict(numbers)]) + "\n")


class Failing(Exporter):
    """Takes nothing in rounds 1 and 2."""

    taken: ClassVar[list[int]] = []

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        if round in (1, 2) and 3 not in asked_for:
            raise ConnectionError("the server is down")
        self.taken.append(round)


asked_for: set[int] = set()


class Closed(Exporter):
    """Cannot begin."""

    def open(self, run: ExportedRun) -> int:
        raise PermissionError("log in first")

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        raise AssertionError


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, "exporters_of_this_test", sys.modules[__name__])


def test_an_exporter_of_one_s_own_is_told_each_round_once_with_the_numbers_on_record(tmp_path):
    entry = {"name": "exporters_of_this_test:Listing", "file": str(tmp_path / "told")}
    folder = stopped_resumed_gone_back_and_extended(tmp_path, entry)
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [round_ for round_, _ in told] == [0, 1, 2, 3, 4, 5]
    for (_, numbers), record in zip(told, folder.rounds(), strict=True):
        expected = numbers_of(record)
        assert set(numbers) == set(expected)
        same = [name for name in expected if not name.startswith("seconds/")]
        assert [numbers[name] for name in same] == [expected[name] for name in same]


def test_tensorboard_has_each_round_once_under_the_same_names(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = stopped_resumed_gone_back_and_extended(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    records = folder.rounds()
    assert set(events.Tags()["scalars"]) == {name for record in records for name in numbers_of(record)}
    for name in ("accuracy", "MultiKrum/dropped", "dropped_attackers"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(r["round"], numbers_of(r)[name]) for r in records if name in numbers_of(r)]
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [value for _, value in points] == pytest.approx([value for _, value in expected])


class MLflowStandIn:
    """As much of an MLflow server as is asked for, in memory."""

    runs: ClassVar[dict[str, dict[str, Any]]] = {}

    def get_experiment_by_name(self, name):
        return (
            types.SimpleNamespace(experiment_id=name) if name in {r["experiment"] for r in self.runs.values()} else None
        )

    def create_experiment(self, name):
        return name

    def search_runs(self, experiments, filter_string):
        token = filter_string.split("'")[1]
        found = [key for key, run in self.runs.items() if run["tags"]["flsec.run"] == token]
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=key)) for key in found]

    def create_run(self, experiment, run_name, tags):
        key = str(len(self.runs))
        self.runs[key] = {"experiment": experiment, "tags": tags, "points": [], "params": {}, "status": "RUNNING"}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    def update_run(self, run, status):
        self.runs[run]["status"] = status

    def log_param(self, run, name, value):
        self.runs[run]["params"][name] = value

    def get_metric_history(self, run, name):
        return [types.SimpleNamespace(step=step, value=v) for key, v, step in self.runs[run]["points"] if key == name]

    def log_batch(self, run, metrics):
        self.runs[run]["points"] += [(metric.key, metric.value, metric.step) for metric in metrics]

    def set_terminated(self, run, status):
        self.runs[run]["status"] = status


def stand_in(monkeypatch, name, **content):
    """Put a module in the place of one that is not installed."""
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(name=name)  # which find_spec looks for
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    try:
        import mlflow
    except ImportError:
        monkeypatch.setattr(MLflowStandIn, "runs", {})

        def metric(key, value, timestamp, step):
            return types.SimpleNamespace(key=key, value=value, step=step)

        stand_in(monkeypatch, "mlflow", MlflowClient=MLflowStandIn)
        stand_in(monkeypatch, "mlflow.entities", Metric=metric)
        return MLflowStandIn()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    return mlflow.MlflowClient()


def test_mlflow_has_one_run_with_each_round_once(tmp_path, mlflow):
    folder = stopped_resumed_gone_back_and_extended(tmp_path, {"name": "mlflow", "experiment": "ours"})
    (run,) = mlflow.search_runs(
        [mlflow.get_experiment_by_name("ours").experiment_id], f"tags.`flsec.run` = '{folder.token}'"
    )
    points = mlflow.get_metric_history(run.info.run_id, "accuracy")
    assert [point.step for point in points] == [0, 1, 2, 3, 4, 5]
    assert [point.value for point in points] == pytest.approx([record["accuracy"] for record in folder.rounds()])
    assert len(mlflow.get_metric_history(run.info.run_id, "MultiKrum/dropped")) == 5


class WandBStandIn:
    """A server of W&B's that keeps what it is told, by run id."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}

    def init(self, *, project, name, id, resume, config, dir):
        assert resume == "allow"
        resumed = id in self.runs
        points = self.runs.setdefault(id, [])
        return types.SimpleNamespace(
            resumed=resumed,
            starting_step=points[-1][0] + 1 if points else 0,
            log=lambda numbers, step: points.append((step, numbers)),
            finish=lambda exit_code: None,
        )


def test_wandb_is_told_each_round_once(tmp_path, monkeypatch):
    """By a stand-in in any case: offline, the real one keeps its files in a form of its own."""
    server = WandBStandIn()
    stand_in(monkeypatch, "wandb", init=server.init)
    folder = stopped_resumed_gone_back_and_extended(tmp_path, "wandb")
    ((token, points),) = server.runs.items()
    assert token == folder.token
    assert [step for step, _ in points] == [0, 1, 2, 3, 4, 5]
    assert points[5][1]["accuracy"] == folder.rounds()[5]["accuracy"]


def test_a_dashboard_that_fails_costs_the_run_nothing_and_is_told_later(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Failing, "taken", [])
    asked_for.clear()

    def up_again(record):
        if record["round"] == 2:
            asked_for.add(3)

    folder = engine.run(config(tmp_path, "exporters_of_this_test:Failing"), on_round=up_again)
    assert Failing.taken == [0, 1, 2, 3]
    assert folder.log.read_text().count("did not take round 1, and is tried again: ConnectionError") == 1


def test_what_a_dashboard_never_took_is_said_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(Failing, "taken", [])
    asked_for.clear()
    folder = engine.run(config(tmp_path, "exporters_of_this_test:Failing"))
    assert "lacks rounds 1 to 3; rounds.jsonl has all of them" in folder.log.read_text()
    asked_for.add(3)
    engine.resume(folder.path)
    assert Failing.taken == [0, 1, 2, 3]


def test_one_that_cannot_begin_is_said_before_anybody_trains(tmp_path):
    with pytest.raises(ConfigError, match=r"output.log_to: .*Closed cannot begin: PermissionError: log in first"):
        engine.run(config(tmp_path, "exporters_of_this_test:Closed"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", EXPORTERS.names())
def test_a_package_that_is_not_installed_is_said_with_the_command(tmp_path, monkeypatch, name):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find(module))
    with pytest.raises(ConfigError, match=rf"output.log_to\[0\]: {name} needs the package {name}.*pip install {name}"):
        config(tmp_path, name)


@pytest.mark.parametrize(
    ("log_to", "words"),
    [
        ("tensorbord", "Did you mean 'tensorboard'"),
        (["tensorboard", "tensorboard"], "stands there twice"),
        ({"name": "tensorboard", "colour": 3}, "colour"),
        ({"name": "mlflow", "experiment": 3}, "experiment"),
        (3, "output.log_to"),
    ],
)
def test_a_wrong_setting_is_found_with_all_others(tmp_path, log_to, words):
    with pytest.raises(ConfigError, match=words):
        config(tmp_path, log_to)


def test_one_name_a_list_and_sections_mean_the_same(tmp_path):
    forms = ["tensorboard", ["tensorboard"], {"name": "tensorboard"}, [{"name": "tensorboard"}]]
    (form,) = {json.dumps(config(tmp_path, log_to).to_dict()["output"]["log_to"]) for log_to in forms}
    assert json.loads(form) == [{"name": "tensorboard"}]
    assert config(tmp_path, json.loads(form)) == config(tmp_path, "tensorboard")


def test_a_cursor_that_is_damaged_costs_at_most_a_second_line(tmp_path):
    told = []

    class Telling(Exporter):
        def log(self, round, numbers):
            told.append(round)

    (tmp_path / "exports.json").write_text("{")
    exports = Exports({"telling": Telling()})
    exports.open(ExportedRun("run", tmp_path, {}, "0" * 16))
    exports.log({"round": 0})
    exports.close(None)
    again = Exports({"telling": Telling()})
    again.open(ExportedRun("run", tmp_path, {}, "0" * 16), [{"round": 0}])
    assert told == [0]
