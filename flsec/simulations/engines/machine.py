"""Whether this machine can give clients what an experiment asks for."""

import os

import torch

from flsec.errors import ConfigError
from flsec.simulations.engines.grid import check_own_grids
from flsec.simulations.problems import blame_parameter, say_where
from flsec.simulations.schema import Config
from flsec.training import pick_device

__all__ = ["check_machine"]


def check_machine(config: Config) -> None:
    """Raise ``ConfigError`` if the machine cannot give one client what the configuration asks for.

    Flower itself would wait for ever for a worker that can never start. What a Ray cluster has is only known when it
    is joined.
    """
    simulation = config.simulation
    if simulation.engine != "flower":
        check_own_grids()
    if simulation.engine == "inprocess":
        with say_where(config.origin):
            blame_parameter(("simulation",), ("device",), pick_device, simulation.device)
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
