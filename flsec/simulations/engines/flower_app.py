"""The same experiments through Flower's own command: ``flwr run .``, or a deployment with SuperNodes.

``pyproject.toml`` names ``server_app`` and ``client_app``; the run configuration's ``experiment`` is a packaged
experiment or the absolute path of a YAML file, ``set`` holds overrides separated by commas, whose values may be lists
and sections: ``"seed=3,defenses=[{name: krum, num_byzantine: 2}]"``.
"""

import functools
import json
from typing import Any

from flwr.app import Context
from flwr.client import NumPyClient
from flwr.serverapp import Grid, ServerApp

from flsec.client_apps.app import numpy_client_app
from flsec.simulations.clients import client_fn
from flsec.simulations.config import Config, load_config, resolve_experiment, split_overrides

__all__ = ["client_app", "server_app"]


@functools.lru_cache(maxsize=4)
def _config(experiment: str, overrides: str) -> Config:
    return load_config(resolve_experiment(experiment), split_overrides(overrides))


def _config_of(context: Context) -> Config:
    run_config: dict[str, Any] = dict(context.run_config)
    return _config(str(run_config.get("experiment", "quickstart")), str(run_config.get("set", "")))


server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds on Flower's grid; the run's folder is made below the process's current directory."""
    from pathlib import Path

    from flsec.errors import ConfigError
    from flsec.simulations.checks import check_data
    from flsec.simulations.engines.loop import ServerLoop  # here: every client process imports this module, too
    from flsec.simulations.run_folder import RunFolder

    config = _config_of(context)
    ready = check_data(config)
    folder = RunFolder.create(Path(config.output.folder).absolute(), config.name, config.to_dict())
    print(f"flsec: writing to {folder.path}")
    try:
        ServerLoop(ready, folder)(grid, context)
    except ConfigError:
        folder.remove_unless_begun()
        raise


def _client_fn(context: Context) -> NumPyClient:
    return client_fn(json.dumps(_config_of(context).to_dict()), context)


client_app = numpy_client_app(_client_fn)
