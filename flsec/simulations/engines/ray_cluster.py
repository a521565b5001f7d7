"""Ray, started here or joined where it runs, and how many clients fit on its nodes at a time."""

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from flsec.errors import ConfigError
from flsec.simulations.engines.surroundings import handlers_kept

__all__ = ["check_workers_fit", "connect", "workers_that_fit"]

_OF_A_NEW_RAY = ("address", "num_cpus", "num_gpus", "resources", "labels", "object_store_memory")


def connect(init_args: Mapping[str, Any] | None = None, address: str | None = None) -> bool:
    """Start Ray on this machine, or join a cluster, unless this process has done so; return whether it was done now.

    Workers find what this process can import below the same paths; a cluster's nodes need the same files there.

    Args:
        init_args: passed to ``ray.init``.
        address: of a running cluster, ``"host:port"`` or ``"auto"``; None: start Ray.

    Raises:
        ConfigError: nothing answers at the address, or the settings are those of a new Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Ray's agents wait so many seconds for a server that is gone with a run that was killed: 60 by default.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    import ray

    if ray.is_initialized():
        return False
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    settings = {
        "include_dashboard": False,
        "logging_level": "ERROR",
        "log_to_driver": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
        **(init_args or {}),
    }
    if address is None:
        with handlers_kept():
            ray.init(**settings)
        return True
    wrong = [name for name in _OF_A_NEW_RAY if name in (init_args or {})]
    if wrong:
        raise ConfigError(
            f"simulation.init_args.{wrong[0]}: a cluster that is joined by its ray_address has its own; got "
            f"{settings[wrong[0]]!r}. Leave it out."
        )
    try:
        with handlers_kept():
            ray.init(address=address, **settings)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"simulation.ray_address: no Ray cluster can be joined at {address!r}: {str(error).splitlines()[0]} "
            "Start one with `ray start --head --port=6379`, or leave ray_address out to use this machine alone."
        ) from None
    return True


def workers_that_fit(nodes: Iterable[Mapping[str, Any]], num_cpus: float, num_gpus: float) -> int:
    """Return how many workers find a place on the nodes of a cluster: none spans two nodes, no fraction two GPUs.

    Args:
        nodes: as ``ray.nodes()`` describes them.
        num_cpus: of one worker.
        num_gpus: of one worker; 20 of them share a GPU with 0.05.

    Example:
        >>> workers_that_fit([{"Alive": True, "Resources": {"CPU": 16, "GPU": 1}}], num_cpus=0.5, num_gpus=0.05)
        20
    """
    total = 0
    for node in nodes:
        if node.get("Alive", True):
            resources = node["Resources"]
            fit = int(resources.get("CPU", 0) / num_cpus + 1e-9)
            gpus = resources.get("GPU", 0)
            if num_gpus >= 1:
                fit = min(fit, int(gpus / num_gpus + 1e-9))
            elif num_gpus > 0:
                fit = min(fit, int(gpus) * int(1 / num_gpus + 1e-9))
            total += fit
    return total


def check_workers_fit(num_cpus: float, num_gpus: float) -> int:
    """Return how many workers fit on the nodes of the Ray that this process uses.

    Raises:
        ConfigError: not one.
    """
    import ray

    every: Any = ray.nodes  # untyped
    nodes = [node for node in every() if node.get("Alive", True)]
    fit = workers_that_fit(nodes, num_cpus, num_gpus)
    if fit < 1:
        most = {name: max((node["Resources"].get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
        raise ConfigError(
            f"simulation.client_resources: a client asks for {num_cpus:g} CPUs and {num_gpus:g} GPUs; Ray's largest "
            f"node has {most['CPU']:g} and {most['GPU']:g}. For example: num_cpus: 1, num_gpus: 0.0"
        )
    return fit
