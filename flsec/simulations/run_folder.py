"""The folder that a run writes: everything needed to trust it, to repeat it and to go on with it."""

import contextlib
import functools
import json
import logging
import os
import platform
import secrets
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flsec._checkpoints import Checkpoints
from flsec._files import Damaged, append_line, remove_leftovers, replacing, sync
from flsec._lock import FolderLock
from flsec.client_apps.client_state import check_states
from flsec.errors import ConfigError, SaveError
from flsec.simulations._frames import import_pandas
from flsec.simulations.numbers import MEASURED, numbers_of
from flsec.simulations.run_names import check_folder_name
from flsec.simulations.start_model import start_record
from flsec.simulations.yaml_lines import dump

if TYPE_CHECKING:
    import pandas

__all__ = ["RunFolder"]

logger = logging.getLogger("flsec")

PACKAGES = ("flsec", "flwr", "ray", "torch", "numpy")


class RunFolder:
    """Files of one run.

    ``config.yaml`` (resolved), ``environment.json`` (versions, machine, a model that was started from),
    ``rounds.jsonl`` (one line a round), ``summary.json``, ``model.safetensors`` (the final model), ``checkpoints/``,
    ``accuracy.png``, ``run.log``, ``lock``; and ``client_states/`` where a defense has its clients keep something from
    round to round. Each is written whole or not at all. What only flsec reads, the checkpoints and the clients' states,
    is checked when it is read, and only the owner may read it.

    Args:
        path: the folder; it must exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lock = FolderLock(path)
        self._made: list[Path] | None = None  # by ``create``: the folders above that did not exist, innermost first

    @classmethod
    def create(cls, parent: Path, name: str, config: dict[str, Any]) -> "RunFolder":
        """Make a new folder ``parent/name`` (or ``name-2``, ...) and write config and environment.

        Raises:
            ConfigError: nothing can be written there, or the name leads elsewhere.
        """
        check_folder_name(name)
        missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        number = 1
        while True:
            path = parent / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                number += 1
            except OSError as error:
                raise ConfigError(
                    f"output.folder: cannot write to {str(parent)!r}: {error.strerror}. Name a folder that you may "
                    "write to, such as output.folder: runs."
                ) from None
        folder = cls(path)
        folder._made = missing
        environment: dict[str, Any] = {
            "run": secrets.token_hex(8),  # by which a checkpoint is known to be this run's
            "packages": {package: metadata.version(package) for package in PACKAGES},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seed": config["seed"],
        }
        if start := config.get("model", {}).get("from"):
            environment["model_from"] = start_record(start)
        try:
            folder._write("environment.json", json.dumps(environment, indent=2) + "\n")
            folder._write("config.yaml", dump(config))
        except SaveError:
            folder.remove_unless_begun()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the folder of an earlier run.

        Raises:
            ConfigError: there is none at ``path``.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(
                f"{str(path)!r} is no run folder: it has no config.yaml. Give the folder that `flsec run` printed."
            )
        return cls(path)

    @property
    def log(self) -> Path:
        """Where Flower's and Ray's messages go."""
        return self.path / "run.log"

    @property
    def client_states(self) -> Path:
        """Where clients keep what they need in later rounds; an absolute path, since they may be other processes."""
        return self.path.absolute() / "client_states"

    @functools.cached_property
    def token(self) -> str:
        """What this run has and no other: 16 hexadecimal digits."""
        try:
            return str(json.loads((self.path / "environment.json").read_bytes())["run"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{str(self.path / 'environment.json')!r} does not say which run this is ({type(error).__name__}: "
                f"{error}), so that its checkpoints cannot be told from another's. Put the file back, or start anew."
            ) from None

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        """The states after the newest rounds."""
        return Checkpoints(self.path / "checkpoints", "checkpoint", self.token)

    def remove_unless_begun(self) -> None:
        """Remove a folder that was created, and those made around it, if no client has trained yet."""
        if self._made is None or any(record["round"] > 0 for record in self.rounds()):
            return
        shutil.rmtree(self.path)
        with contextlib.suppress(OSError):  # somebody else has put something there
            for folder in self._made:
                folder.rmdir()

    # --- records --------------------------------------------------------------------------------------------

    def append_round(self, record: dict[str, Any]) -> None:
        """Add one round's line to ``rounds.jsonl``."""
        append_line(self._records, json.dumps(record, allow_nan=True))

    def rounds(self) -> list[dict[str, Any]]:
        """Return the records of ``rounds.jsonl``, without a last line that a kill has cut off.

        Raises:
            ConfigError: a line before the last is damaged.
        """
        return self._read_rounds()[0]

    def _write_rounds(self, records: Iterable[dict[str, Any]]) -> None:
        with replacing(self._records) as file:
            for record in records:
                file.write(json.dumps(record).encode() + b"\n")

    @property
    def _records(self) -> Path:
        return self.path / "rounds.jsonl"

    def _read_rounds(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the records, and whether the last line was cut off."""
        lines = self._records.read_bytes().split(b"\n") if self._records.is_file() else [b""]
        records = [_record(line) for line in lines[:-1]]
        torn = bool(lines[-1])
        if records and records[-1] is None:
            records, torn = records[:-1], True
        if None in records:
            raise ConfigError(
                f"line {records.index(None) + 1} of {str(self._records)!r} is damaged: it is no record of a round. "
                "Put a copy of the file back; without that line the run can only be begun anew."
            )
        return [record for record in records if record is not None], torn

    def extend(self, config: dict[str, Any]) -> None:
        """Make an unfinished run with more rounds of one that may be finished.

        Args:
            config: the new settings, which differ in the number of rounds alone.
        """
        for name in ("summary.json", "model.safetensors"):
            (self.path / name).unlink(missing_ok=True)
        self._write("config.yaml", dump(config))
        every = config["output"]["evaluate_every"]
        records = self.rounds()
        if records and records[-1]["round"] % every:  # measured because it was the last, as it no longer is
            records[-1] = {key: value for key, value in records[-1].items() if key not in MEASURED}
            self._write_rounds(records)

    def frame(self) -> "pandas.DataFrame":
        """Return the rounds as a pandas DataFrame: a row a round from round 0 on, the index; columns as ``numbers_of``.

        What a round did not measure is NaN.

        Raises:
            ConfigError: pandas is not installed; a line of ``rounds.jsonl`` is damaged.

        Example:
            >>> RunFolder.open(Path("runs/quickstart")).frame()["accuracy"].plot()  # doctest: +SKIP
        """
        pandas = import_pandas("RunFolder.frame()")
        records = self.rounds()
        index = pandas.Index([record["round"] for record in records], name="round")
        return pandas.DataFrame([numbers_of(record) for record in records], index=index)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        self._write("summary.json", json.dumps(summary, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as file:
            file.write(text.encode())

    # --- checkpoints ----------------------------------------------------------------------------------------

    def save_checkpoint(self, round: int, state: Any, keep: int | None) -> None:
        """Write the state after ``round``; keep the newest ``keep`` checkpoints (None: all).

        Raises:
            SaveError: the disk is full, say; those that were there still are.
        """
        sync(self._records)  # a checkpoint counts only with the records of its rounds
        self.checkpoints.save(round, state, keep)

    def load_checkpoint(self, round: int | None = None) -> tuple[int, Any]:
        """Return (round, state) of the newest checkpoint that is whole, or of the one after ``round``.

        A checkpoint is whole with the records of its rounds, and with what the clients have kept until then. Why
        newer ones are lost is logged as a warning; nothing is changed.

        Returns:
            (0, None) where nothing has been saved yet.

        Raises:
            ConfigError: there is no such checkpoint, or none that is whole; the message says which there are, and why.
        """
        if round is None:
            found = self.checkpoints.newest(self._check)
            for reason in found.lost:
                logger.warning("lost, and run again: %s", reason)
            return found.round, found.state
        if round not in self.checkpoint_rounds():
            known = ", ".join(map(str, self.checkpoint_rounds())) or "none"
            raise ConfigError(f"{str(self.path)!r} has no checkpoint of round {round}; there are: {known}.")
        try:
            self._check(round)
            return round, self.checkpoints.load(round)
        except Damaged as reason:
            raise ConfigError(f"the checkpoint of round {round} cannot be used: {reason}. Take another.") from None

    def _check(self, round: int) -> None:
        recorded = {record["round"] for record in self.rounds()}
        missing = [str(earlier) for earlier in range(round + 1) if earlier not in recorded]
        if missing:
            raise Damaged(f"{self._records.name} has no record of round {', '.join(missing)}")
        check_states(self.client_states, round)

    def go_back_to(self, round: int) -> None:
        """Make ready for going on after ``round``: forget what came later, and what a kill has left half written."""
        remove_leftovers(self.path)
        self.checkpoints.forget_after(round)
        records, torn = self._read_rounds()
        if torn:
            logger.warning("the last line of %s was cut off; its round is run again", self._records.name)
        self._write_rounds([record for record in records if record["round"] <= round])

    def checkpoint_rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint, ascending."""
        return self.checkpoints.rounds()

    def how_to_go_on(self) -> str:
        """Return a sentence on what is saved, for a run that cannot go on now."""
        rounds = self.checkpoint_rounds()
        if not rounds:
            return "No round is saved yet; start the run anew."
        return f"Saved is all until round {rounds[-1]}; go on with: flsec run --resume {self.path}"


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("round"), int) else None
