"""Whether this machine can give clients what an experiment asks for."""

import os

import torch

from flsec.simulations.engines.grid import check_own_grids
from flsec.simulations.problems import Findings, Problem, blame_parameter, say_where
from flsec.simulations.schema import Config, Simulation
from flsec.training import pick_device

__all__ = ["check_machine", "check_on_machine"]


def check_machine(config: Config) -> None:
    """Refuse what the machine cannot give one client.

    Flower itself would wait for ever for a worker that can never start. What a Ray cluster has is only known when it
    is joined.

    Raises:
        SettingsError: the machine cannot give one client what the configuration asks for.
    """
    with say_where(config.origin):
        check_on_machine(config)


def check_on_machine(config: Config, resources: object = None) -> None:
    """Do the same for settings of which some may be unreadable.

    Args:
        config: the experiment.
        resources: not used; there, because every check has it.

    Raises:
        Problem: the machine lacks something.
        Problems: several things.
    """
    findings = Findings()
    for check in (_check_grids, _check_device, _check_cpus, _check_gpus):
        with findings:
            check(config.simulation)
    findings.raise_all()


def _check_grids(simulation: Simulation) -> None:
    if simulation.engine != "flower":
        check_own_grids()


def _check_device(simulation: Simulation) -> None:
    if simulation.engine == "inprocess":
        blame_parameter(("simulation",), ("device",), pick_device, simulation.device)
    elif simulation.device == "cuda" and not simulation.num_gpus:
        raise Problem(
            ("simulation", "device"),
            "'cuda', and a client is given no share of a GPU: Ray hides the GPUs from it. For "
            "example, in client_resources: num_gpus: 0.05, which lets 20 clients share one",
        )


def _check_cpus(simulation: Simulation) -> None:
    if not _is_here(simulation):
        return
    wanted, cpus = simulation.client_resources.num_cpus, simulation.init_args.get("num_cpus", os.cpu_count() or 1)
    if wanted > cpus:
        raise Problem(
            ("simulation", "client_resources", "num_cpus"),
            f"a client asks for {wanted:g} CPUs, this machine has {cpus}. For example: num_cpus: 1",
        )


def _check_gpus(simulation: Simulation) -> None:
    if not _is_here(simulation):
        return
    wanted, gpus = simulation.num_gpus, simulation.init_args.get("num_gpus", torch.cuda.device_count())
    if wanted > gpus:
        raise Problem(
            ("simulation", "client_resources", "num_gpus"),
            f"a client asks for {wanted:g} GPUs, this machine has {gpus}. "
            "For example: num_gpus: 0.0; or, to leave the shares as they are and train without, device: cpu",
        )


def _is_here(simulation: Simulation) -> bool:
    """Whether Ray starts on this machine."""
    return simulation.engine != "inprocess" and simulation.ray_address is None
