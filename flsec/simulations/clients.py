"""The clients of a simulation: a part of the data, the defenses' client halves and the attacks around its training."""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from flsec.client_apps.app import numpy_client_app
from flsec.client_apps.client_state import state_folder
from flsec.client_apps.torch_client import TorchClient
from flsec.simulations.resources import Resources, resources_of_text
from flsec.simulations.schema import Config

__all__ = ["CHECKPOINTS", "RUN", "SETTINGS", "build_client", "client_app", "client_app_here", "client_fn"]

# What clients of a deployment are told with each message, as entries of its configuration:
SETTINGS = "flsec-settings"  # the experiment's settings
RUN = "flsec-run"  # an id of the run, which it keeps when it is gone on with
CHECKPOINTS = "flsec-checkpoints"  # the rounds from which it can be


def build_client(resources: Resources, client_id: int) -> NumPyClient:
    """Return one client, with its own part of the data, the defenses' client halves and then attacks around it."""
    client: NumPyClient = TorchClient(
        resources.client_model,
        resources.dataset.train.subset(resources.partition[client_id]),
        resources.training,
        client_id=client_id,
        num_rounds=resources.num_rounds,
        device=resources.device,
        seed=resources.seed,
        task=resources.task,
        augmentation=resources.config.data.augment,
    )
    for around in (*resources.halves, *resources.attacks):
        client = around(client)
    return client


def client_app(config: Config, states: Path | None = None) -> ClientApp:
    """Return the ClientApp of an experiment; what travels to a worker is the configuration's text.

    Args:
        config: the experiment.
        states: where clients keep what they need in later rounds; None: in their Flower contexts.
    """
    return numpy_client_app(functools.partial(client_fn, json.dumps(config.to_dict()), states=states))


def client_app_here(resources: Resources, states: Path) -> ClientApp:
    """Return the same app for clients in this process."""
    return numpy_client_app(functools.partial(_client_of, resources, states=states))


def client_fn(config_json: str, context: Context, *, states: Path | None = None) -> NumPyClient:
    """Return the client of a context, in whichever process this is."""
    return _client_of(resources_of_text(config_json), context, states=states)


def _client_of(resources: Resources, context: Context, *, states: Path | None) -> NumPyClient:
    client = build_client(resources, int(context.node_config["partition-id"]))
    return _AtWork(client, max(1, int(resources.config.simulation.client_resources.num_cpus)), states)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use the same number of torch threads in every engine: sums depend on it in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _AtWork(NumPyClient):
    """A client with its number of threads and its folder for state."""

    def __init__(self, client: NumPyClient, threads: int, states: Path | None):
        self._client = client
        self._threads = threads
        self._states = states

    def fit(self, parameters: Any, config: Any) -> Any:
        with _threads(self._threads), state_folder(self._states):
            return self._client.fit(parameters, config)
