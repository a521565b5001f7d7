"""Flower's simulation runtime on Ray: the only place that calls ``run_simulation``."""

import os
import threading

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flsec.simulations.clients import client_app
from flsec.simulations.engines.interrupted import Interrupted
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.engines.ray_cluster import check_workers_fit, connect
from flsec.simulations.engines.surroundings import starting_ray

__all__ = ["run_on_flower"]


def run_on_flower(loop: ServerLoop) -> None:
    """Use Flower's simulation runtime on Ray.

    ``Server.set_max_workers`` is a setting of its classic API, where a thread waits for each client; here all messages
    of a round are sent at once.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # a simulation needs no network
    from flwr.simulation import run_simulation

    simulation = loop.config.simulation
    num_cpus, num_gpus = simulation.client_resources.num_cpus, simulation.num_gpus
    with starting_ray("Workers load flsec in round 1."):  # Flower uses the Ray that is there, and shuts it down
        connect(simulation.init_args, simulation.ray_address)
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
        run_simulation(
            server_app=server_app,
            client_app=client_app(loop.config, loop.folder.client_states),
            num_supernodes=simulation.num_clients,
            backend_config={
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
