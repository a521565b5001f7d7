"""The exporters of one run: what they are told, and what happens when one fails."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flsec._files import replacing
from flsec.errors import ConfigError
from flsec.simulations.exporter import ExportedRun, Exporter
from flsec.simulations.numbers import numbers_of

__all__ = ["Exports"]

logger = logging.getLogger("flsec")

Record = Mapping[str, Any]


class Exports:
    """Tells exporters of a run's rounds, each of every round once.

    Rounds that are run again after a resume have the same numbers to the bit, so that they need not be told again.

    Args:
        exporters: {name: exporter}.
    """

    def __init__(self, exporters: Mapping[str, Exporter]):
        self._exporters = dict(exporters)
        self._last: dict[str, int] = {}  # round that each has; kept in a file, for a process that goes on
        self._waiting: dict[str, list[Record]] = {name: [] for name in exporters}
        self._failing: set[str] = set()
        self._open: set[str] = set()

    def open(self, run: ExportedRun, records: Iterable[Record] = ()) -> None:
        """Begin, or go on.

        Args:
            run: what it is.
            records: of the rounds that it has already.

        Raises:
            ConfigError: an exporter cannot begin.
        """
        self._file = run.folder / "exports.json"
        before = _read(self._file)
        known = list(records)
        for name, exporter in self._exporters.items():
            try:
                self._last[name] = exporter.open(replace(run, logged=before.get(name, -1)))
            except Exception as error:
                raise ConfigError(
                    f"output.log_to: {name} cannot begin: {type(error).__name__}: {error}. Mend that, or leave {name} "
                    "out."
                ) from error
            self._open.add(name)
            self._waiting[name] = [record for record in known if record["round"] > self._last[name]]
            self._flush(name)

    def log(self, record: Record) -> None:
        """Tell all of a round."""
        for name in self._open:
            if record["round"] > self._last[name]:
                self._waiting[name].append(record)
                self._flush(name)

    def close(self, summary: Record | None) -> None:
        """End.

        Args:
            summary: None where the run was stopped.
        """
        for name in sorted(self._open):
            try:
                self._exporters[name].close(summary)
            except Exception as error:
                logger.warning("%s could not be closed: %s: %s", name, type(error).__name__, error)
            if missed := _rounds(self._waiting[name]):
                logger.warning("%s lacks %s; rounds.jsonl has all of them", name, missed)
        self._open.clear()

    def _flush(self, name: str) -> None:
        waiting = self._waiting[name]
        try:
            while waiting:
                self._exporters[name].log(waiting[0]["round"], numbers_of(waiting[0]))
                self._last[name] = waiting.pop(0)["round"]
                with replacing(self._file, durable=False) as file:
                    file.write(json.dumps(self._last).encode())
            self._failing.discard(name)
        except Exception as error:  # a dashboard is no reason to lose a run
            if name not in self._failing:
                reason = f"{type(error).__name__}: {error}"
                logger.warning("%s did not take round %d, and is tried again: %s", name, waiting[0]["round"], reason)
            self._failing.add(name)


def _read(file: Path) -> dict[str, int]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: round_ for name, round_ in found.items() if isinstance(round_, int)}


def _rounds(records: Sequence[Record]) -> str:
    if not records:
        return ""
    first, last = records[0]["round"], records[-1]["round"]
    return f"round {first}" if first == last else f"rounds {first} to {last}"
