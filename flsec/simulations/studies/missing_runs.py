"""Runs of a study: one that is finished is taken as it is, one that was stopped goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Config

__all__ = ["earlier_run", "finish_run", "is_finished", "one_thread"]


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end."""
    return (folder / "summary.json").is_file()


def earlier_run(config: Config) -> RunFolder | None:
    """Return the folder of a run if there is one that can be used or continued.

    One process at a time may ask for a run: an unfinished one is taken for a stopped one.

    Args:
        config: of the run; its folder is ``output.folder/name``.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """
    path = Path(config.output.folder) / config.name
    if not path.exists():
        return None
    if {file.name for file in path.iterdir() if file.suffix != ".partial"} <= {"environment.json"}:
        shutil.rmtree(path)  # stopped while it was made
        return None
    folder = RunFolder.open(path)
    if load_config(path / "config.yaml").to_dict() != config.to_dict():
        raise ConfigError(
            f"{str(path)!r} holds a run with other settings. Remove it, or give the study another name or folder."
        )
    if not is_finished(path) and not folder.checkpoint_rounds():
        with folder.lock.held():  # stopped before its first checkpoint: there is nothing to go on with
            shutil.rmtree(path)
        return None
    return folder


def finish_run(
    config: Config, *, on_round: Callable[[dict[str, Any]], None] = lambda record: None, verbose: bool = False
) -> RunFolder:
    """Return a finished run of this configuration: an earlier one, an earlier one continued, or a new one.

    Args:
        config: of the run.
        on_round: called with the record of every round that is still to be run.
        verbose: also show Flower's and Ray's messages on the terminal.

    Raises:
        ConfigError: the folder holds a run with other settings.
        Interrupted: the user stopped it.
    """
    folder = earlier_run(config)
    if folder is None:
        return engine.run(config, on_round=on_round, verbose=verbose)
    if not is_finished(folder.path):
        return engine.resume(folder.path, on_round=on_round, verbose=verbose)
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread: runs that go on at once share the cores, and any machine gives the same numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
