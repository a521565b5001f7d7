"""The folder that a run writes: everything needed to trust it, to repeat it and to go on with it."""

import contextlib
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError
from flsec.simulations.run_names import check_folder_name
from flsec.simulations.start_model import start_record
from flsec.simulations.state import load_state, save_state
from flsec.simulations.yaml_lines import dump

__all__ = ["RunFolder"]

PACKAGES = ("flsec", "flwr", "ray", "torch", "numpy")


class RunFolder:
    """Files of one run.

    ``config.yaml`` (resolved), ``environment.json`` (versions, machine, a model that was started from),
    ``rounds.jsonl`` (one line a round), ``summary.json``, ``model.safetensors`` (the final model), ``checkpoints/``,
    ``accuracy.png``, ``run.log``; and ``client_states/`` where a defense has its clients keep something from round to
    round.

    Args:
        path: the folder; it must exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._made: list[Path] = []  # the folders above that did not exist, innermost first

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
        folder.checkpoints.mkdir()
        (path / "config.yaml").write_text(dump(config))
        environment: dict[str, Any] = {
            "packages": {package: metadata.version(package) for package in PACKAGES},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seed": config["seed"],
        }
        if start := config["model"].get("from"):
            environment["model_from"] = start_record(start)
        (path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
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

    def remove_unless_begun(self) -> None:
        """Remove the folder, and those made around it, if no client has trained yet."""
        if any(record["round"] > 0 for record in self.rounds()):
            return
        shutil.rmtree(self.path)
        with contextlib.suppress(OSError):  # somebody else has put something there
            for folder in self._made:
                folder.rmdir()

    def append_round(self, record: dict[str, Any]) -> None:
        """Add one round's line to ``rounds.jsonl``."""
        with (self.path / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=True) + "\n")

    def rounds(self) -> list[dict[str, Any]]:
        """Return the records of ``rounds.jsonl``."""
        file = self.path / "rounds.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def truncate_rounds(self, last: int) -> None:
        """Forget rounds after ``last``: a resumed run writes them again."""
        kept = [record for record in self.rounds() if record["round"] <= last]
        partial = self.path / "rounds.partial"
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(partial, self.path / "rounds.jsonl")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        (self.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    def save_checkpoint(self, round: int, state: Any, keep: int | None) -> None:
        """Write the state after ``round``; keep the newest ``keep`` checkpoints (None: all)."""
        save_state(self.checkpoints / f"round-{round:06d}.safetensors", state)
        if keep is not None:
            for old in self.checkpoint_rounds()[:-keep]:
                (self.checkpoints / f"round-{old:06d}.safetensors").unlink()

    def load_checkpoint(self, round: int | None = None) -> tuple[int, Any]:
        """Return (round, state) of the newest checkpoint, or of the one after ``round``.

        Raises:
            ConfigError: there is no such checkpoint; the message lists those there are.
        """
        rounds = self.checkpoint_rounds()
        if not rounds or (round is not None and round not in rounds):
            known = ", ".join(map(str, rounds)) or "none"
            raise ConfigError(f"{str(self.path)!r} has no checkpoint of round {round}; there are: {known}.")
        chosen = rounds[-1] if round is None else round
        return chosen, load_state(self.checkpoints / f"round-{chosen:06d}.safetensors")

    def checkpoint_rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint, ascending."""
        return sorted(int(path.stem.removeprefix("round-")) for path in self.checkpoints.glob("round-*.safetensors"))
