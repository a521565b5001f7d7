"""Where a run's numbers also go, beside its folder: what dashboards implement."""

import abc
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flsec.errors import ConfigError
from flsec.registry import Registry, yaml_name

__all__ = ["EXPORTERS", "ExportedRun", "Exporter"]


@dataclass(frozen=True)
class ExportedRun:
    """What an exporter is told of a run.

    Attributes:
        name: of the experiment.
        folder: the run's folder.
        settings: of the experiment, as in ``config.yaml``.
        token: 16 hexadecimal digits that this run has and no other, also when it is resumed.
        logged: the last round that an earlier process has logged; -1 for none.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    token: str
    logged: int = -1


class Exporter(abc.ABC):
    """Takes the numbers of a run's rounds to where its user looks at them.

    A run opens it once, logs its rounds in order from round 0 on, and closes it. One that fails while a run goes on
    costs the run nothing: the user is warned, and the rounds that it has missed are logged with the next one.

    Raises:
        ConfigError: a package that it needs is not installed.

    Example:
        >>> class Printer(Exporter):
        ...     def log(self, round, numbers):
        ...         print(round, numbers["accuracy"])
        >>> Printer().log(3, {"accuracy": 0.5})
        3 0.5

        In a module that Python finds: ``output: {log_to: "my_package:Printer"}``.
    """

    packages: ClassVar[tuple[str, ...]] = ()  # by the names under which they are imported

    def __init__(self) -> None:
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"{yaml_name(type(self))} needs the package {package}, which is not installed. Run: "
                    f"pip install {package}",
                    parameter="name",
                )

    def open(self, run: ExportedRun) -> int:
        """Begin, or go on with a run; return the last round that needs not be logged again, -1 for none.

        By default that is what an earlier process has logged.
        """
        return run.logged

    @abc.abstractmethod
    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a round.

        Args:
            round: from 0, the initial model.
            numbers: by the names that ``flsec.simulations.numbers.numbers_of`` gives them.
        """

    def close(self, summary: Mapping[str, Any] | None) -> None:  # noqa: B027 - there may be nothing to end
        """End.

        Args:
            summary: as in ``summary.json``; None where the run was stopped, and may be gone on with.
        """


def _is_exporter(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Exporter) and member is not Exporter


EXPORTERS = Registry(
    "exporter", "flsec.simulations.exporters", _is_exporter, "a subclass of flsec.simulations.exporter.Exporter"
)
