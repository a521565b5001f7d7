"""Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from flsec.simulations.exporter import ExportedRun, Exporter

__all__ = ["WandB"]


class WandB(Exporter):
    """A run of Weights & Biases, as ``wandb login`` and the variables ``WANDB_...`` have it.

    A run that is resumed goes on with the same one; the server takes no round a second time.

    Args:
        project: in which project.

    Raises:
        ConfigError: wandb is not installed.

    Example:
        ``output: {log_to: {name: wandb, project: my_study}}``
    """

    packages = ("wandb",)

    def __init__(self, project: str = "flsec"):
        super().__init__()
        self.project = project

    def open(self, run: ExportedRun) -> int:
        """Begin, or go on with the run that has this run's token for its id."""
        import wandb

        self._run: Any = wandb.init(
            project=self.project,
            name=run.name,
            id=run.token,
            resume="allow",
            config=dict(run.settings),
            dir=str(run.folder),
        )
        return int(self._run.starting_step) - 1 if self._run.resumed else run.logged

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Send a round."""
        self._run.log(dict(numbers), step=round)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Send what is left."""
        self._run.finish(exit_code=1 if summary is None else 0)
