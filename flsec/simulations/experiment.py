"""What a configuration means as objects: data, partition, model, attackers, clients; built once per process."""

import contextlib
import functools
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from flsec.client_apps.app import numpy_client_app
from flsec.client_apps.base import Attack
from flsec.client_apps.client_half import ClientHalf
from flsec.client_apps.client_state import state_folder
from flsec.client_apps.torch_client import TorchClient
from flsec.models.build import build_model
from flsec.parameters import parameters_of
from flsec.randomness import numpy_generator
from flsec.simulations.config import Config, build_adversaries, build_attacks, build_data, build_partition, needs
from flsec.training import pick_device

__all__ = ["Experiment", "client_app", "client_fn", "experiment"]


class Experiment:
    """The parts of one experiment that clients and server share.

    Args:
        config: the experiment's configuration.
    """

    def __init__(self, config: Config):
        self.config = config
        self.dataset, self._root = build_data(config)
        self.partition = build_partition(config, self.dataset)
        self.adversaries = build_adversaries(config)
        self.training = config.training
        self.halves = client_halves(config)
        self.attacks: list[Attack] = build_attacks(config, self.adversaries, self.attack_resources())

    def new_model(self) -> torch.nn.Module:
        """Return the model with its initial weights, which depend on the seed alone."""
        model = self.config.model
        return build_model(
            model.name, self.dataset.input_shape, self.dataset.num_classes, self.config.seed, **model.params
        )

    def resources(self) -> dict[str, Any]:
        """Return what defenses may ask for by name, and the attacks that a strategy around them completes."""
        return {
            "adversaries": self.adversaries,
            "root_data": None if self._root is None else self._root.tensors(),
            "client_samples": self._client_samples() if needs(self.config, "client_samples") else None,
            "client_sample_share": self.config.data.client_sample_share,
            "input_shape": self.dataset.input_shape,
            "num_classes": self.dataset.num_classes,
            "model_factory": self.new_model,
            "training": self.training,
            "num_rounds": self.config.simulation.num_rounds,
            "seed": self.config.seed,
            "attacks": self.attacks,
        }

    def attack_resources(self) -> dict[str, Any]:
        """Return what attacks may ask for by name. Attackers copy test samples, the test set itself stays as it is."""
        return {
            "auxiliary_data": self.dataset.test.tensors() if needs(self.config, "auxiliary_data") else None,
            "client_sample_share": self.config.data.client_sample_share,
            "model_factory": self.new_model,
            "training": self.training,
            "clients_per_round": self.config.simulation.cohort_size,
            "num_rounds": self.config.simulation.num_rounds,
            "device": pick_device(self.config.simulation.device),
        }

    def _client_samples(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Return the samples that each client gives to the server before training, and goes on using itself."""
        samples = {}
        for client_id in range(len(self.partition)):
            indices = self.partition[client_id]
            count = max(1, round(self.config.data.client_sample_share * len(indices)))
            drawn = numpy_generator(self.config.seed, 0, client_id, "client sample").permutation(len(indices))[:count]
            samples[client_id] = self.dataset.train.tensors(indices[np.sort(drawn)])
        return samples

    @functools.cached_property
    def _model(self) -> torch.nn.Module:
        return self.new_model()  # one a process: every client overwrites its weights

    def test_tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whole test set on a device."""
        x, y = self._test
        return x.to(device), y.to(device)

    @functools.cached_property
    def _test(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.dataset.test.tensors()

    def client(self, client_id: int) -> NumPyClient:
        """Return one client, with its own part of the data, the defenses' client halves and then attacks around it."""
        client: NumPyClient = TorchClient(
            self._model,
            self.dataset.train.subset(self.partition[client_id]),
            self.training,
            client_id=client_id,
            num_rounds=self.config.simulation.num_rounds,
            device=pick_device(self.config.simulation.device),
            seed=self.config.seed,
        )
        for around in (*self.halves, *self.attacks):
            client = around(client)
        return client


def client_halves(config: Config) -> list[ClientHalf]:
    """Return what the defenses have their clients do, the innermost defense's first."""
    halves = []
    for entry in reversed(config.defenses):
        if entry.member.client_half is not None:
            module, _, name = entry.member.client_half.partition(":")
            half = getattr(importlib.import_module(module), name)
            halves.append(half(**({"seed": config.seed} if "seed" in parameters_of(half) else {})))
    return halves


@functools.lru_cache(maxsize=2)
def experiment(config_json: str) -> Experiment:
    """Return the experiment of a configuration; a worker process builds it for its first client."""
    return Experiment(Config.model_validate(json.loads(config_json)))


def client_app(config: Config, states: Path | None = None) -> ClientApp:
    """Return the ClientApp of an experiment; what travels to a worker is the configuration's text.

    Args:
        config: the experiment.
        states: where clients keep what they need in later rounds; None: in their Flower contexts.
    """
    return numpy_client_app(functools.partial(client_fn, json.dumps(config.to_dict()), states=states))


def client_fn(config_json: str, context: Context, *, states: Path | None = None) -> NumPyClient:
    """Return the client of a context."""
    whole = experiment(config_json)
    client = whole.client(int(context.node_config["partition-id"]))
    return _InProcess(client, max(1, int(whole.config.simulation.client_resources.num_cpus)), states)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use the same number of torch threads in every engine: sums depend on it in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _InProcess(NumPyClient):
    """A client with its number of threads and its folder for state."""

    def __init__(self, client: NumPyClient, threads: int, states: Path | None):
        self._client = client
        self._threads = threads
        self._states = states

    def fit(self, parameters: Any, config: Any) -> Any:
        with _threads(self._threads), state_folder(self._states):
            return self._client.fit(parameters, config)
