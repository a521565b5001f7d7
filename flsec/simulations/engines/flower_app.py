"""The same experiments through Flower's own command: ``flwr run .``, or a deployment with SuperNodes.

``pyproject.toml`` names ``server_app`` and ``client_app``; the run configuration says what to run:

* ``experiment``: a packaged experiment, the absolute path of a YAML file on the server, or the settings themselves as
  YAML text in braces;
* ``set``: settings to change, separated by commas, whose values may be lists and sections:
  ``"seed=3,defenses=[{name: krum, num_byzantine: 2}]"``;
* ``resume``: the folder of an earlier run, on the server, to go on with; it takes the place of both.

The server sends the settings with each message, so that clients need no file of the experiment, only its data. What a
defense has its clients keep from round to round, each node keeps in files below ``$FLWR_HOME/flsec_states``, so that it
outlives the SuperNode, and the run, which may be gone on with.
"""

import functools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flsec.client_apps.app import numpy_client_app
from flsec.client_apps.client_state import prune_states
from flsec.client_apps.partition import ACTION, answer
from flsec.errors import ConfigError
from flsec.simulations.clients import CHECKPOINTS, RUN, SETTINGS, client_fn

if TYPE_CHECKING:
    from flsec.simulations.config import Config

__all__ = ["client_app", "server_app"]


@functools.lru_cache(maxsize=4)
def _config(experiment: str, overrides: str) -> "Config":
    from flsec.simulations.config import load_config, load_settings, resolve_experiment, split_overrides

    changes = split_overrides(overrides)
    if experiment.lstrip().startswith("{"):
        return load_settings(experiment, changes)
    return load_config(resolve_experiment(experiment), changes)


def _config_of(context: Context) -> "Config":
    run_config = context.run_config
    return _config(str(run_config.get("experiment", "quickstart")), str(run_config.get("set", "")))


# --- the server; what only it needs is imported where it is needed: each message of a deployment starts a client ------

server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds on Flower's grid; a new run's folder is made below the process's current directory."""
    from flsec.simulations.checks import check_data
    from flsec.simulations.config import load_config
    from flsec.simulations.engines.loop import ServerLoop
    from flsec.simulations.engines.surroundings import little_to_collect, logged
    from flsec.simulations.plots import plot_rounds
    from flsec.simulations.run_folder import RunFolder
    from flsec.strategies.base import RobustStrategy

    earlier = str(context.run_config.get("resume", ""))
    config = _config_of(context) if not earlier else load_config(RunFolder.open(Path(earlier)).path / "config.yaml")
    ready = check_data(config)
    for wrapper in ready.strategy.chain() if isinstance(ready.strategy, RobustStrategy) else ():
        wrapper.check_clients(range(config.simulation.num_clients), grid)
    if earlier:
        folder = RunFolder.open(Path(earlier))
    else:
        folder = RunFolder.create(Path(config.output.folder).absolute(), config.name, config.to_dict())
    print(f"flsec: writing to {folder.path}")
    with folder.lock.held():
        try:
            with logged(folder.log, verbose=True), little_to_collect():
                ServerLoop(ready, folder, resume_from=-1 if earlier else None, asks=True)(grid, context)
        except ConfigError:
            if not earlier:
                folder.remove_unless_begun()
            raise
        if config.output.plots:
            plot_rounds(folder.rounds(), folder.path / "accuracy.png", config.name)


# --- the clients ------------------------------------------------------------------------------------------------------

client_app = ClientApp()


@client_app.train()
def _train(message: Message, context: Context) -> Message:
    config: ConfigRecord = next(iter(message.content.config_records.values()), ConfigRecord())
    settings, run_id, checkpoints = (config.get(key) for key in (SETTINGS, RUN, CHECKPOINTS))
    told = settings if isinstance(settings, str) else json.dumps(_config_of(context).to_dict())
    states = _states_of(run_id)
    reply = _app_of(told, states)(message, context)
    if states is not None and isinstance(checkpoints, list):
        prune_states(states, [int(context.node_config["partition-id"])], [int(round_) for round_ in checkpoints])
    return reply


def _states_of(run_id: object) -> Path | None:
    """Return where this node keeps what its client needs in later rounds of a run."""
    if not isinstance(run_id, str) or re.fullmatch("[0-9a-f]{32}", run_id) is None:
        return None
    return Path(os.environ.get("FLWR_HOME", Path.home() / ".flwr")) / "flsec_states" / run_id


@functools.lru_cache(maxsize=4)
def _app_of(settings: str, states: Path | None) -> ClientApp:
    return numpy_client_app(functools.partial(client_fn, settings, states=states))


client_app.query(ACTION)(answer)
