"""Whether a server stays the same over many rounds: memory and threads of the process in which a ServerApp runs.

    python benchmarks/long_run.py [--rounds 500] [--clients 8]

A ServerApp of Flower's simulation runtime, on its real grid, in this process; the clients run in Ray's workers. It asks
clients for their partitions, as in a deployment, and one of eight fails in every round. Given are the resident memory
of this process without pages of files, in MiB, and its threads. Exit code 1 if the second half of the rounds took more
than 5 % more memory than the first, or a thread more.
"""

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from flsec.simulations.checks import check_data
from flsec.simulations.config import Config, make_config
from flsec.simulations.engines.flower_app import client_app
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.run_folder import RunFolder


class OneFails(ClientApp):
    """flsec's app, in which client 0 fails whenever it is to train."""

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 0:
            raise RuntimeError("as in every round")
        return client_app(message, context)


def experiment(rounds: int, clients: int, folder: Path) -> Config:
    return make_config(
        {
            "name": "long",
            "data": {"name": "digits"},
            "model": {"name": "softmax"},
            "training": {"learning_rate": 0.05, "batch_size": 16},
            "strategy": {"name": "fedadam"},
            "defenses": [{"name": "foolsgold"}],
            "simulation": {"num_clients": clients, "num_rounds": rounds},
            "output": {"folder": str(folder), "evaluate_every": 10, "checkpoint_every": 10, "plots": False},
        }
    )


def memory() -> float:
    """Return this process's resident memory without pages of files, in MiB."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def main() -> int:
    """Run, print a table, and return 0 if nothing grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    seen: list[tuple[int, float, int]] = []

    def look(record: dict[str, Any]) -> None:
        if record["round"] % max(1, given.rounds // 20) == 0:
            seen.append((record["round"], memory(), threading.active_count()))
            print("{:>6} rounds {:8.1f} MiB {:4} threads".format(*seen[-1]), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        config = experiment(given.rounds, given.clients, Path(folder))
        loop = ServerLoop(check_data(config), RunFolder.create(Path(folder), "long", config.to_dict()), look, asks=True)
        server_app = ServerApp()

        @server_app.main()
        def serve(grid: Grid, context: Context) -> None:
            loop(grid, context)

        run_simulation(
            server_app,
            OneFails(),
            given.clients,
            backend_config={
                "init_args": {"include_dashboard": False, "num_cpus": 2},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )
    half = len(seen) // 2
    (_, before, threads_before), (_, after, threads_after) = seen[half], seen[-1]
    return int(after > 1.05 * before or threads_after > threads_before)


if __name__ == "__main__":
    raise SystemExit(main())
