"""MLflow."""

import re
import time
from collections.abc import Mapping
from typing import Any

from flsec.simulations.exporter import ExportedRun, Exporter

__all__ = ["MLflow"]

_TAG = "flsec.run"
_ROUND = "round"  # a metric whose history says which rounds the server has


class MLflow(Exporter):
    """A run of MLflow's, on the server that ``MLFLOW_TRACKING_URI`` names, else in ``mlruns``.

    A run that is resumed goes on with the same one, which it finds by a tag, after the last round that is there.

    Args:
        experiment: MLflow's experiment, made if there is none.

    Raises:
        ConfigError: mlflow is not installed.

    Example:
        ``output: {log_to: {name: mlflow, experiment: my_study}}``
    """

    packages = ("mlflow",)

    def __init__(self, experiment: str = "flsec"):
        super().__init__()
        self.experiment = experiment

    def open(self, run: ExportedRun) -> int:
        """Find or make the run, and ask which rounds it has."""
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        runs = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.token}'")
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return max((int(point.step) for point in self._client.get_metric_history(self._run, _ROUND)), default=-1)
        self._run = self._client.create_run(experiment, run_name=run.name, tags={_TAG: run.token}).info.run_id
        for section, settings in run.settings.items():
            self._client.log_param(self._run, section, str(settings)[:_LONGEST])
        return -1

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Send a round in one request; its number comes with it, by which a resumed run knows that it is there."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {**{_NOT_ALLOWED.sub("_", name): value for name, value in numbers.items()}, _ROUND: float(round)}
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, round) for name, value in values.items()])

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Say whether the run is finished."""
        self._client.set_terminated(self._run, "KILLED" if summary is None else "FINISHED")


_NOT_ALLOWED = re.compile(r"[^\w\-. /]", re.ASCII)  # in MLflow's names
_LONGEST = 500  # characters of a parameter that every version of MLflow takes
