"""Starting a run: resources checked, logs redirected, the chosen engine driven, interruptions handled."""

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from flsec.errors import ConfigError
from flsec.simulations._ray import check_workers_fit, connect
from flsec.simulations.config import Config, check_data, load_config
from flsec.simulations.experiment import client_app
from flsec.simulations.grid import InProcessGrid, Interrupted, check_own_grids
from flsec.simulations.loop import ServerLoop
from flsec.simulations.plots import plot_rounds
from flsec.simulations.pooled import PooledGrid
from flsec.simulations.run_folder import RunFolder

__all__ = ["Interrupted", "check_resources", "resume", "run"]

OnRound = Callable[[dict[str, Any]], None]


def run(config: Config, *, on_round: OnRound = lambda record: None, verbose: bool = False) -> RunFolder:
    """Run an experiment from its first round.

    Args:
        config: the experiment; data and resources are checked before anything is written.
        on_round: called with every round's record.
        verbose: also show Flower's and Ray's messages on the terminal.

    Returns:
        The folder with everything the run left behind.

    Raises:
        ConfigError: the data are missing, or the machine lacks what the configuration asks for.
        Interrupted: the user stopped the run; its last complete round is checkpointed.
    """
    check_resources(config)
    check_data(config)
    folder = RunFolder.create(Path(config.output.folder), config.name, config.to_dict())
    return _run(ServerLoop(config, folder, on_round), verbose)


def resume(
    path: Path, *, from_round: int | None = None, on_round: OnRound = lambda record: None, verbose: bool = False
) -> RunFolder:
    """Continue a run from a checkpoint in its folder, to the same numbers as an uninterrupted run.

    Args:
        path: the run's folder.
        from_round: continue after this round; None: after the last one that has a checkpoint.
        on_round: called with every round's record.
        verbose: also show Flower's and Ray's messages on the terminal.

    Raises:
        ConfigError: no run folder or no such checkpoint, and as in ``run``.
    """
    folder = RunFolder.open(path)
    config = load_config(path / "config.yaml")
    check_resources(config)
    check_data(config)
    folder.load_checkpoint(from_round)  # complain before anything starts
    return _run(ServerLoop(config, folder, on_round, -1 if from_round is None else from_round), verbose)


def _run(loop: ServerLoop, verbose: bool) -> RunFolder:
    with _logged(loop.folder.log, verbose), _interruptible(loop.stop), _little_to_collect():
        if loop.config.simulation.engine == "inprocess":
            _run_in_process(loop)
        elif loop.config.simulation.engine == "pooled":
            _run_pooled(loop)
        else:
            _run_on_flower(loop)
    if loop.error is not None:
        raise loop.error
    if loop.config.output.plots:
        plot_rounds(loop.folder.rounds(), loop.folder.path / "accuracy.png", loop.config.name)
    return loop.folder


@contextlib.contextmanager
def _little_to_collect() -> Iterator[None]:
    """Keep the garbage collector from looking through all that has been imported, again and again, in a run."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run_in_process(loop: ServerLoop) -> None:
    grid = InProcessGrid(client_app(loop.config, loop.folder.client_states), loop.config.simulation.num_clients)
    with contextlib.suppress(Exception):  # kept in loop.error
        loop(grid, Context(1, 1, {}, RecordDict(), {}))


def _run_pooled(loop: ServerLoop) -> None:
    """Use the same apps on a pool of Ray actors."""
    simulation = loop.config.simulation
    grid = PooledGrid(
        client_app(loop.config, loop.folder.client_states),
        simulation.num_clients,
        num_cpus=simulation.client_resources.num_cpus,
        num_gpus=simulation.num_gpus,
        max_workers=simulation.cohort_size,
        init_args=simulation.init_args,
        address=simulation.ray_address,
        client_timeout=simulation.client_timeout,
    )
    try:
        with contextlib.suppress(Exception):  # kept in loop.error
            loop(grid, Context(1, 1, {}, RecordDict(), {}))
    finally:
        grid.close()


def _run_on_flower(loop: ServerLoop) -> None:
    """Use Flower's simulation runtime on Ray.

    ``Server.set_max_workers`` is a setting of its classic API, where a thread waits for each client; here all messages
    of a round are sent at once.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # a simulation needs no network
    from flwr.simulation import run_simulation

    simulation = loop.config.simulation
    num_cpus, num_gpus = simulation.client_resources.num_cpus, simulation.num_gpus
    if simulation.ray_address is not None:
        connect(simulation.init_args, simulation.ray_address)  # Flower uses the Ray that is there
        check_workers_fit(num_cpus, num_gpus)
    server_app = ServerApp()
    finished = threading.Event()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            loop(grid, context)
        finally:
            finished.set()

    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        run_simulation(
            server_app=server_app,
            client_app=client_app(loop.config, loop.folder.client_states),
            num_supernodes=simulation.num_clients,
            backend_config={
                "init_args": {"include_dashboard": False, **simulation.init_args},
                "client_resources": {
                    "num_cpus": num_cpus,
                    "num_gpus": num_gpus,
                    # Flower puts an actor that died back into its pool; Ray restarts it if it may.
                    "max_restarts": -1,
                },
            },
        )
    except Exception as error:
        loop.stop.set()  # a server that waits for replies would wait for ever
        finished.wait(timeout=30)
        if loop.error is None or isinstance(loop.error, Interrupted):
            loop.error = error


def check_resources(config: Config) -> None:
    """Raise ``ConfigError`` if the machine cannot give one client what the configuration asks for.

    Flower itself would wait for ever for a worker that can never start. What a Ray cluster has is only known when it
    is joined.
    """
    simulation = config.simulation
    if simulation.engine != "flower":
        check_own_grids()
    if simulation.engine == "inprocess":
        return
    gpus_wanted = simulation.num_gpus
    if simulation.device == "cuda" and not gpus_wanted:
        raise ConfigError(
            "simulation.device: 'cuda', and a client is given no share of a GPU: Ray hides the GPUs from it. For "
            "example, in client_resources: num_gpus: 0.05, which lets 20 clients share one"
        )
    if simulation.ray_address is not None:
        return
    cpus = simulation.init_args.get("num_cpus", os.cpu_count() or 1)
    if simulation.client_resources.num_cpus > cpus:
        raise ConfigError(
            f"simulation.client_resources.num_cpus: a client asks for {simulation.client_resources.num_cpus:g} CPUs, "
            f"this machine has {cpus}. For example: num_cpus: 1"
        )
    gpus = simulation.init_args.get("num_gpus", torch.cuda.device_count())
    if gpus_wanted > gpus:
        raise ConfigError(
            f"simulation.client_resources.num_gpus: a client asks for {gpus_wanted:g} GPUs, this machine has {gpus}. "
            "For example: num_gpus: 0.0; or, to leave the shares as they are and train without, device: cpu"
        )


@contextlib.contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop at the next safe point; the second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _logged(path: Path, verbose: bool) -> Iterator[None]:
    """Send Flower's, Ray's and our messages to a file; our warnings, or all with ``verbose``, to the terminal too."""
    to_file = logging.FileHandler(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    with contextlib.ExitStack() as stack:
        for name in ("flwr", "ray", "flsec"):
            handlers: list[logging.Handler] = [to_file]
            if verbose or name == "flsec":
                handlers.append(to_terminal)
            stack.enter_context(_handlers(logging.getLogger(name), handlers))
        try:
            yield
        finally:
            to_file.close()


@contextlib.contextmanager
def _handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> Iterator[None]:
    before, propagated, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagated
        logger.setLevel(level)
