"""Starting a run, or going on with one: checked first, then driven by the chosen engine, and drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError, SaveError
from flsec.simulations.checks import Ready, check_on_data
from flsec.simulations.config import load_config
from flsec.simulations.engines.flower_simulation import run_on_flower
from flsec.simulations.engines.interrupted import Interrupted
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.engines.machine import check_on_machine
from flsec.simulations.engines.own import run_in_process, run_pooled
from flsec.simulations.engines.surroundings import interruptible, little_to_collect, logged
from flsec.simulations.plots import plot_rounds
from flsec.simulations.problems import Findings, say_where
from flsec.simulations.resources import resources_of
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Config

__all__ = ["Interrupted", "resume", "run"]

OnRound = Callable[[dict[str, Any]], None]

_ENGINES: dict[str, Callable[[ServerLoop], None]] = {
    "inprocess": run_in_process,
    "pooled": run_pooled,
    "flower": run_on_flower,
}


def run(config: Config, *, on_round: OnRound = lambda record: None, verbose: bool = False) -> RunFolder:
    """Run an experiment from its first round.

    Args:
        config: the experiment; data and resources are checked before anything is written.
        on_round: called with every round's record.
        verbose: also show Flower's and Ray's messages on the terminal.

    Returns:
        The folder with everything the run left behind.

    Raises:
        ConfigError: the data are missing, or the machine lacks what the configuration asks for; nothing is left behind.
        Interrupted: the user stopped the run; its last complete round is checkpointed.
        SaveError: the disk is full, say; what is saved, and how to go on, is in the message.

    Example:
        >>> import tempfile
        >>> from flsec.simulations.config import make_config
        >>> config = make_config({
        ...     "name": "tiny", "data": {"name": "digits"}, "model": {"name": "softmax"},
        ...     "training": {"learning_rate": 0.1},
        ...     "simulation": {"engine": "inprocess", "num_clients": 2, "num_rounds": 1},
        ...     "output": {"folder": tempfile.mkdtemp(), "plots": False},
        ... })
        >>> folder = run(config)
        >>> [record["round"] for record in folder.rounds()], (folder.path / "summary.json").exists()
        ([0, 1], True)
    """
    ready = _checked(config)
    folder = RunFolder.create(Path(config.output.folder), config.name, config.to_dict())
    with folder.lock.held():
        try:
            with logged(folder.log, verbose):
                return _run(ServerLoop(ready, folder, on_round))
        except ConfigError:  # such as a Ray cluster that cannot be joined
            folder.remove_unless_begun()
            raise


def resume(
    path: Path,
    *,
    from_round: int | None = None,
    on_start: Callable[[int], None] = lambda done: None,
    on_round: OnRound = lambda record: None,
    verbose: bool = False,
) -> RunFolder:
    """Continue a run from a checkpoint in its folder, to the same numbers as an uninterrupted run.

    A checkpoint that is cut off or changed is passed over, with a warning that says what is lost and run again.

    Args:
        path: the run's folder.
        from_round: continue after this round; None: after the last one whose checkpoint is whole, or from the
            beginning if nothing has been saved yet.
        on_start: called with the round after which the run goes on.
        on_round: called with every round's record.
        verbose: also show Flower's and Ray's messages on the terminal.

    Raises:
        ConfigError: no run folder, no such checkpoint or none that is whole, another process is at work in the
            folder, and as in ``run``.
        Interrupted, SaveError: as in ``run``.
    """
    folder = RunFolder.open(path)
    with folder.lock.held(), logged(folder.log, verbose):
        config = load_config(path / "config.yaml")
        ready = _checked(config)
        done, state = folder.load_checkpoint(from_round)  # complain before anything starts
        on_start(done)
        return _run(ServerLoop(ready, folder, on_round, -1 if state is None else done))


def _checked(config: Config) -> Ready:
    """Return what the run needs; what machine and data lack is said at once."""
    findings, resources, strategy = Findings(), resources_of(config), None
    with findings:
        check_on_machine(config)
    with findings:
        strategy = check_on_data(config, resources)
    with say_where(config.origin):
        findings.raise_all()
    assert strategy is not None  # since all could be read
    return Ready(resources, strategy)


def _run(loop: ServerLoop) -> RunFolder:
    with interruptible(loop.stop), little_to_collect():
        _ENGINES[loop.config.simulation.engine](loop)
    if loop.error is not None:
        raise loop.error
    if loop.config.output.plots:
        try:
            plot_rounds(loop.folder.rounds(), loop.folder.path / "accuracy.png", loop.config.name)
        except SaveError as error:
            raise SaveError(f"{error} All else of the run is saved in {str(loop.folder.path)!r}.") from error
    return loop.folder
