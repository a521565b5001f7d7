"""The engines of our own: everything in this process, or clients on a pool of Ray actors."""

import contextlib

from flwr.app import Context, RecordDict

from flsec.simulations.clients import client_app, client_app_here
from flsec.simulations.engines.grid import InProcessGrid
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.engines.pooled import PooledGrid
from flsec.simulations.engines.surroundings import starting_ray

__all__ = ["run_in_process", "run_pooled"]


def run_in_process(loop: ServerLoop) -> None:
    """Run every client in this process."""
    app = client_app_here(loop.resources, loop.folder.client_states)
    grid = InProcessGrid(app, loop.config.simulation.num_clients)
    with contextlib.suppress(Exception):  # kept in loop.error
        loop(grid, Context(1, 1, {}, RecordDict(), {}))


def run_pooled(loop: ServerLoop) -> None:
    """Use the same apps on a pool of Ray actors."""
    simulation = loop.config.simulation
    with starting_ray():
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
