"""What a simulation costs beside the training: overhead, start, memory over the rounds, against Flower's own engine.

    python benchmarks/engine.py many [--rounds 1000] [--engines inprocess pooled] [--json FILE]
    python benchmarks/engine.py throughput [--rounds 100] [--json FILE]
    python benchmarks/engine.py large [--json FILE]
    python benchmarks/engine.py flower35000 [--rounds 50] [--json FILE]

many         35,000 clients, 35 a round, each asked at most once; MNIST by writers, split further; a small CNN;
             Krum inside norm clipping; 2 % of the clients flip signs. Needs MNIST (see the README).
throughput   1000 clients, 100 a round, an MLP on MNIST: client-rounds a second on each engine, and whether they agree.
large        100 replies of a model of 28 MB that is not trained, from 1000 clients.
flower35000  Flower's own engine with 35,000 clients of `many`.

Overhead is what is left of the wall time for clients and aggregation when training is taken out: the seconds inside
``flsec.training.train``, divided by the number of workers. On a machine that has other work to do the wall says little;
so the processor's seconds of all processes, less those of training, are given as well, per client and round. Memory is
the sum over all processes (driver, workers, Ray's own) of the proportional set size: shared pages count once. Over
the rounds it is shown without pages of files (the data, which more and more clients look at) + these.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flsec.client_apps.app import numpy_client_app
from flsec.simulations import engine
from flsec.simulations.checks import check_data
from flsec.simulations.clients import client_fn
from flsec.simulations.config import Config, make_config
from flsec.simulations.engines.grid import InProcessGrid
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.engines.pooled import PooledGrid
from flsec.simulations.run_folder import RunFolder

MIB = 2**20


# --- all processes of this one -----------------------------------------------------------------------------------


def processes() -> list[int]:
    """Return this process and all that it has started, directly or not."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(pids: Iterable[int], part: str = "Pss") -> float:
    """Return the proportional set size in MiB, summed; of ``"Pss_File"``, the pages of files that are mapped."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith(f"{part}:")), 0)
    return total / 1024


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """Return user and system seconds by process."""
    ticks = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return ticks


class Peak:
    """The largest memory of all processes, or of this one, looked at now and then, and at the end."""

    def __init__(self, everybody: bool = True, every: float = 1.0):
        self.value = 0.0
        self._everybody, self._every = everybody, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self._look()

    def _look(self) -> None:
        self.value = max(self.value, memory(processes() if self._everybody else [os.getpid()]))

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()
        self._look()


# --- runs with a clock on the training ---------------------------------------------------------------------------


def clocked(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Add the seconds of training to a client's metrics (a Flower mod, pickled by value)."""
    import time

    from flsec.client_apps import torch_client

    if not hasattr(torch_client, "seconds_of_training"):
        inner = torch_client.train
        torch_client.seconds_of_training = [0.0, 0.0]

        def train(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter(), time.thread_time()
            try:
                return inner(*args, **kwargs)
            finally:
                spent = torch_client.seconds_of_training
                spent[0] += time.perf_counter() - started[0]
                spent[1] += time.thread_time() - started[1]

        torch_client.train = train
    before = list(torch_client.seconds_of_training)
    reply = call_next(message, context)
    if not reply.has_error():
        after = torch_client.seconds_of_training
        reply.content["metrics"]["train-wall"] = after[0] - before[0]
        reply.content["metrics"]["train-cpu"] = after[1] - before[1]
    return reply


class Totals:
    """Sums over the replies of a grid."""

    def __init__(self) -> None:
        self.errors = 0
        self.clear()

    def clear(self) -> None:
        self.wall = 0.0
        self.cpu = 0.0

    def add(self, replies: Iterable[Message]) -> list[Message]:
        replies = list(replies)
        for reply in replies:
            if reply.has_error():
                self.errors += 1
            else:
                metrics = reply.content["metrics"]
                self.wall += metrics.pop("train-wall")
                self.cpu += metrics.pop("train-cpu")
        return replies


class ClockedPool(PooledGrid):
    totals: Totals

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.totals.add(super().pull_messages(message_ids))


class ClockedHere(InProcessGrid):
    totals: Totals

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.totals.add(super().pull_messages(message_ids))


def many_config(rounds: int, folder: str) -> Config:
    return make_config(
        {
            "name": "many",
            "data": {"name": "mnist", "partition": {"name": "natural", "split_each": 80}},
            "model": {"name": "fedinv_cnn"},
            "training": {"learning_rate": 0.05, "steps": 1, "batch_size": 1.0},
            "defenses": [{"name": "norm_clipping", "max_norm": 1.0}, {"name": "krum", "num_byzantine": 5}],
            "attacks": [{"name": "sign_flipping", "scale": 4.0}],
            "adversaries": {"fraction": 0.02},
            "simulation": {
                "engine": "pooled",
                "num_clients": 35_000,
                "clients_per_round": 35,
                "num_rounds": rounds,
                "sampling": "without_replacement",
            },
            "output": {"folder": folder, "evaluate_every": rounds, "checkpoint_every": 50, "plots": False},
        }
    )


def many(engine_name: str, rounds: int) -> dict[str, Any]:
    """Run 35,000 clients on one of our engines, with a clock on the training."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = many_config(rounds, folder)
        ready = check_data(config)
        loop_folder = RunFolder.create(Path(folder), config.name, config.to_dict())
        app = numpy_client_app(
            partial(client_fn, json.dumps(config.to_dict()), states=loop_folder.client_states), mods=[clocked]
        )
        timeline: list[dict[str, float]] = []
        first: list[float] = []
        spent = {"clients": 0.0, "aggregation": 0.0}
        begin: dict[int, float] = {}
        end: dict[int, float] = {}
        trained: dict[str, float] = {}

        def on_round(record: dict[str, Any]) -> None:
            if record["round"] == 0:
                return
            if not first:
                first.append(time.perf_counter() - started - sum(record["seconds"].values()))
            if record["round"] == WARM:  # the first rounds load the data in every worker
                begin.update(cpu_seconds(processes()))
                totals.clear()
                return
            if WARM < record["round"] < rounds:  # the last one is evaluated as well
                for part in spent:
                    spent[part] += record["seconds"][part]
                if record["round"] == rounds - 1:
                    end.update(cpu_seconds(processes()))
                    trained.update(wall=totals.wall, cpu=totals.cpu)
            if record["round"] % max(1, rounds // 20) == 0:
                size, files = memory(processes()), memory(processes(), "Pss_File")
                timeline.append({"round": record["round"], "MiB": round(size, 1), "files": round(files, 1)})

        loop = ServerLoop(ready, loop_folder, on_round)
        totals = Totals()
        grid: Any
        if engine_name == "pooled":
            grid = ClockedPool(app, config.simulation.num_clients)
        else:
            grid = ClockedHere(app, config.simulation.num_clients)
        grid.totals = totals
        workers = grid.num_workers if engine_name == "pooled" else 1
        loop(grid, Context(1, 1, {}, RecordDict(), {}))
        own = end[os.getpid()] - begin[os.getpid()]
        if engine_name == "pooled":
            grid.close()
        records = loop_folder.rounds()
    client_rounds = (rounds - 1 - WARM) * config.simulation.cohort_size
    cpu = sum(seconds - begin.get(pid, 0.0) for pid, seconds in end.items())
    asked = [client for record in records[1:] for client in record["sampled"]]
    return {
        "engine": engine_name,
        "rounds": rounds,
        "workers": workers,
        "start_seconds": first[0],
        "wall_ms": 1e3 * (spent["clients"] + spent["aggregation"]) / client_rounds,
        "training_ms": 1e3 * trained["wall"] / client_rounds,
        "overhead_wall_ms": 1e3 * (spent["clients"] + spent["aggregation"] - trained["wall"] / workers) / client_rounds,
        "aggregation_ms": 1e3 * spent["aggregation"] / client_rounds,
        "overhead_cpu_ms": 1e3 * (cpu - trained["cpu"]) / client_rounds,
        "of_which_driver_ms": 1e3 * (own - (trained["cpu"] if engine_name == "inprocess" else 0)) / client_rounds,
        "errors": totals.errors,
        "asked_twice": len(asked) - len(set(asked)),
        "peak_MiB": max(point["MiB"] for point in timeline),
        "timeline": timeline,
        "accuracy": records[-1].get("accuracy"),
    }


WARM = 2


def throughput_config(engine_name: str, rounds: int, folder: str) -> Config:
    return make_config(
        {
            "name": "throughput",
            "data": {"name": "mnist"},
            "model": {"name": "mlp", "hidden": [32]},
            "training": {"learning_rate": 0.1, "steps": 1, "batch_size": 1.0},
            "defenses": [{"name": "median"}],
            "simulation": {
                "engine": engine_name,
                "num_clients": 1000,
                "clients_per_round": 100,
                "num_rounds": rounds,
            },
            "output": {"folder": folder, "evaluate_every": rounds, "checkpoint_every": rounds, "plots": False},
        }
    )


def throughput(engine_name: str, rounds: int) -> dict[str, Any]:
    """Run the same experiment on one engine; client-rounds a second, without the first round."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = engine.run(throughput_config(engine_name, rounds, folder))
        whole = time.perf_counter() - started
        records = run.rounds()[2:]  # neither the model before training nor the first round
        seconds = sum(record["seconds"]["clients"] + record["seconds"]["aggregation"] for record in records)
        return {
            "engine": engine_name,
            "rounds": rounds,
            "client_rounds_per_second": 100 * len(records) / seconds,
            "ms_per_client": 10 * seconds / len(records),
            "whole_run_seconds": whole,
            "loss": run.rounds()[-1]["loss"],
        }


LARGE = 7_000_000  # float32 parameters, 28 MB


def echo() -> ClientApp:
    """Return clients that send a model of their own of the size they were sent."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = [array.numpy() + np.float32(1) for array in message.content["arrays"].values()]
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    return app


def large(engine_name: str, rounds: int) -> dict[str, Any]:
    """Send 28 MB to 100 clients and hold their replies."""
    model = ArrayRecord([np.zeros(LARGE // 2, np.float32), np.zeros(LARGE // 2, np.float32)])
    grid: Any
    if engine_name == "pooled":
        grid = PooledGrid(echo(), 1000, init_args={"object_store_memory": 5 * 2**30})
    else:
        grid = InProcessGrid(echo(), 1000)
    seconds = []
    driver, everybody = 0.0, 0.0
    replies: Any = None
    for round_ in range(rounds + 1):
        del replies
        messages = [Message(RecordDict({"arrays": model}), node, "train") for node in range(100)]
        with Peak(everybody=False, every=0.2) as peak:
            started = time.perf_counter()
            replies = list(grid.send_and_receive(messages, timeout=600))
            if round_:  # the first fills memory that later ones use again
                seconds.append(time.perf_counter() - started)
        driver = max(driver, peak.value)
        assert len(replies) == 100
        assert not any(reply.has_error() for reply in replies)
        everybody = max(everybody, memory(processes()))
    size = 100 * LARGE * 4 / MIB
    del replies
    if engine_name == "pooled":
        grid.close()
    return {
        "engine": engine_name,
        "ms_per_client": 10 * float(np.median(seconds)),
        "driver_MiB": round(driver, 1),
        "driver_over_replies": driver / size,
        "all_processes_over_replies": everybody / size,
    }


def flower35000(engine_name: str, rounds: int) -> dict[str, Any]:
    """Run `many` on Flower's own engine."""
    with tempfile.TemporaryDirectory() as folder:
        config = many_config(rounds, folder)
        settings = config.to_dict()
        settings["simulation"]["engine"] = "flower"
        started = time.perf_counter()
        records = engine.run(make_config(settings)).rounds()[2:]
        seconds = sum(record["seconds"]["clients"] + record["seconds"]["aggregation"] for record in records)
        return {
            "engine": "flower",
            "rounds": rounds,
            "ms_per_client": 1e3 * seconds / len(records) / 35,
            "whole_run_seconds": time.perf_counter() - started,
            "usable": sum(len(record["sampled"]) - len(record["quarantined"]) for record in records),
        }


PARTS: dict[str, tuple[Callable[[str, int], dict[str, Any]], tuple[str, ...], int]] = {
    "many": (many, ("inprocess", "pooled"), 1000),
    "throughput": (throughput, ("inprocess", "pooled", "flower"), 100),
    "large": (large, ("inprocess", "pooled"), 3),
    "flower35000": (flower35000, ("flower",), 50),
}


def main() -> None:
    """Run one part on its engines, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--engines", nargs="+", choices=("inprocess", "pooled", "flower"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, help="torch threads of the server; on a busy machine, 1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    function, engines, rounds = PARTS[options.part]
    rounds = options.rounds or rounds
    if options.one:
        print(json.dumps(function(options.one, rounds)))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    rows = []
    for name in options.engines or engines:
        command = [sys.executable, __file__, options.part, "--rounds", str(rounds), "--one", name]
        command += ["--threads", str(options.threads)] if options.threads else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: failed\n{done.stderr[-2000:]}")
            continue
        rows.append(json.loads([row for row in done.stdout.splitlines() if row.startswith("{")][-1]))
        for key, value in rows[-1].items():
            if key == "timeline":
                value = "  ".join(f"{at['round']}: {at['MiB'] - at['files']:.0f} + {at['files']:.0f}" for at in value)
            print(f"{key:28}{value:.4g}" if isinstance(value, float) else f"{key:28}{value}", flush=True)
        print()
    if options.json:
        options.json.write_text(json.dumps({"load": os.getloadavg()[0], "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
