"""Seconds and peak memory of ``aggregate_fit``, serialised replies in and parameters out, against Flower's own rules.

    python benchmarks/strategies.py [--clients 20 100] [--parameters 100000 1000000] [--rules krum] [--json FILE]

Times are medians of alternating calls in one process, so that the ratio is of the same minutes on the same machine; a
rule of Flower's whose first call takes longer than ``--patience`` seconds is not called again, and this call counts.
Memory is the growth of the resident set's peak during one call, in a fresh process, in multiples of the replies' bytes.
Each result is first compared with a float64 computation; the largest relative error is printed beside the time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Bulyan as FlowerBulyan
from flwr.server.strategy import FedAvg, FedMedian, FedTrimmedAvg
from flwr.server.strategy import Krum as FlowerKrum

from flsec.strategies import Bulyan, Krum, Median, MultiKrum, TrimmedMean

SHARES = (0.6, 0.3, 0.1)  # of the parameters in three arrays


class Proxy(ClientProxy):
    """A client that only has an id."""

    def __init__(self, node_id: int):
        super().__init__(str(node_id))
        self.node_id = node_id

    def get_properties(self, *_: Any) -> Any: ...
    def get_parameters(self, *_: Any) -> Any: ...
    def fit(self, *_: Any) -> Any: ...
    def evaluate(self, *_: Any) -> Any: ...
    def reconnect(self, *_: Any) -> Any: ...


def byzantine(n: int) -> int:
    """f = 20 % of n, for Bulyan too: 4 f + 3 <= n."""
    return n // 5


def pairs(n: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return {rule: (ours, Flower's)}, as functions that make a fresh strategy."""
    f = byzantine(n)
    return {
        "krum": (lambda: Krum(FedAvg(), num_byzantine=f), lambda: FlowerKrum(num_malicious_clients=f)),
        "multi_krum": (
            lambda: MultiKrum(FedAvg(), num_byzantine=f, num_selected=n - f),
            lambda: FlowerKrum(num_malicious_clients=f, num_clients_to_keep=n - f),
        ),
        "bulyan": (lambda: Bulyan(FedAvg(), num_byzantine=f), lambda: FlowerBulyan(num_malicious_clients=f, to_keep=0)),
        "median": (lambda: Median(FedAvg()), FedMedian),
        "trimmed_mean": (lambda: TrimmedMean(FedAvg(), num_trimmed=f), lambda: FedTrimmedAvg(beta=f / n)),
    }


def replies(n: int, d: int) -> tuple[Parameters, list[tuple[ClientProxy, FitRes]]]:
    """Return a global model and n serialised replies, a fifth of them hostile."""
    generator = np.random.default_rng(0)
    sizes = [int(share * d) for share in SHARES[:-1]]
    cuts = np.cumsum(sizes)
    model = generator.normal(size=d).astype(np.float32)
    results: list[tuple[ClientProxy, FitRes]] = []
    for i in range(n):
        spread = 1.0 if i < byzantine(n) else 0.01
        local = model + spread * generator.normal(size=d).astype(np.float32)
        parameters = ndarrays_to_parameters(np.split(local, cuts))
        results.append((Proxy(i + 1), FitRes(Status(Code.OK, ""), parameters, 10, {})))
    return ndarrays_to_parameters(np.split(model, cuts)), results


def prepared(make: Callable[[], Any], model: Parameters, results: Any) -> Callable[[], Any]:
    """Return a call of ``aggregate_fit`` on a strategy that has sent out ``model``."""
    strategy = make()
    manager = SimpleClientManager()
    for proxy, _ in results:
        manager.register(proxy)
    strategy.configure_fit(server_round=1, parameters=model, client_manager=manager)
    return lambda: strategy.aggregate_fit(1, results, [])


def time_pair(rule: str, n: int, d: int, repeats: int, patience: float) -> dict[str, Any]:
    """Time ours and Flower's in turn."""
    model, results = replies(n, d)
    ours, theirs = pairs(n)[rule]
    calls = {"ours": prepared(ours, model, results), "flower": prepared(theirs, model, results)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    outputs: dict[str, Any] = {}
    for name, call in list(calls.items()):  # warm up, and keep what came out
        started = time.perf_counter()
        outputs[name] = np.concatenate(parameters_to_ndarrays(call()[0]))
        if name == "flower" and time.perf_counter() - started > patience:
            seconds[name].append(time.perf_counter() - started)
            del calls[name]
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    truth = exact(rule, n, model, results)
    errors = {name: float(np.abs(output - truth).max() / np.abs(truth).max()) for name, output in outputs.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"seconds": medians, "speedup": medians["flower"] / medians["ours"], "relative_error": errors}


def exact(rule: str, n: int, model: Parameters, results: Any) -> Any:
    """Compute the rule in float64, slowly."""
    f = byzantine(n)
    rows = np.stack([np.concatenate(parameters_to_ndarrays(r.parameters)) for _, r in results]).astype(np.float64)
    if rule == "median":
        return np.median(rows, axis=0)
    if rule == "trimmed_mean":
        return np.sort(rows, axis=0)[f : n - f].mean(axis=0)
    distances = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])

    def scores(active: list[int]) -> list[float]:
        keep = len(active) - f - 2
        return [sum(sorted(distances[i, j] for j in active if j != i)[: max(keep, 1)]) for i in active]

    everyone = list(range(n))
    order = [everyone[i] for i in np.argsort(scores(everyone), kind="stable")]
    if rule == "krum":
        return rows[order[0]]
    if rule == "multi_krum":
        return rows[order[: n - f]].mean(axis=0)
    selected: list[int] = []
    while len(selected) < n - 2 * f:
        active = [i for i in everyone if i not in selected]
        selected.append(active[int(np.argmin(scores(active)))])
    values = np.sort(rows[selected], axis=0)
    middle = np.median(values, axis=0)
    nearest = np.argsort(np.abs(values - middle), axis=0, kind="stable")[: n - 4 * f]
    return np.take_along_axis(values, nearest, axis=0).mean(axis=0)


def peak_memory(rule: str, side: str, n: int, d: int) -> float:
    """Return the growth of the peak resident set during one call, over the replies' bytes."""
    model, results = replies(n, d)
    small_model, small_results = replies(n, 5_000_000 // n)  # enough that rules compile what they would for more
    make = pairs(n)[rule][0 if side == "ours" else 1]
    prepared(make, small_model, small_results)()  # imports and thread pools are not the call's
    call = prepared(make, model, results)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) * 1024 / (n * d * 4)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    """Run all combinations, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rules", nargs="+", choices=list(pairs(20)), default=list(pairs(20)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=30.0, help="seconds; a slower rule is called once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, rule, n, d = options.one[0], options.one[1], int(options.one[2]), int(options.one[3])
        if what == "time":
            print(json.dumps(time_pair(rule, n, d, options.repeats, options.patience)))
        else:
            print(json.dumps(peak_memory(rule, what, n, d)))
        return
    print(f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads")
    print(f"{'rule':14}{'n':>5}{'d':>9}{'ours s':>9}{'Flower s':>10}{'speedup':>9}{'memory':>8}{'Flower':>8}  errors")
    rows = []
    for d in options.parameters:
        for n in options.clients:
            for rule in options.rules:
                row: dict[str, Any] = {"rule": rule, "n": n, "d": d, **_child("time", rule, n, d, options)}
                row["memory"] = {side: _child(side, rule, n, d, options) for side in ("ours", "flower")}
                rows.append(row)
                print(
                    f"{rule:14}{n:5}{d:9}{row['seconds']['ours']:9.3f}{row['seconds']['flower']:10.3f}"
                    f"{row['speedup']:9.1f}{row['memory']['ours']:8.2f}{row['memory']['flower']:8.2f}"
                    f"  {row['relative_error']['ours']:.0e} {row['relative_error']['flower']:.0e}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _child(what: str, rule: str, n: int, d: int, options: argparse.Namespace) -> Any:
    command = [sys.executable, __file__, "--one", what, rule, str(n), str(d)]
    command += ["--repeats", str(options.repeats), "--patience", str(options.patience)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
