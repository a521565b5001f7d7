"""TensorBoard."""

import shutil
from collections.abc import Mapping
from typing import Any

from flsec.simulations.exporter import ExportedRun, Exporter
from flsec.simulations.yaml_lines import dump

__all__ = ["TensorBoard"]


class TensorBoard(Exporter):
    """Event files in ``tensorboard/`` of the run's folder: ``tensorboard --logdir runs``.

    A run that is resumed writes them anew from its records, so that no round is there twice.

    Raises:
        ConfigError: tensorboard is not installed.

    Example:
        ``output: {log_to: tensorboard}``
    """

    packages = ("tensorboard",)

    def open(self, run: ExportedRun) -> int:
        """Begin with no round at all."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        if folder.exists():
            shutil.rmtree(folder)
        self._writer: Any = SummaryWriter(str(folder))  # untyped
        self._writer.add_text("config", "".join(f"    {line}\n" for line in dump(dict(run.settings)).splitlines()))
        return -1

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, round)
        self._writer.flush()

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Close the file."""
        self._writer.close()
