"""Seconds of the aggregation rules, against the fastest correct peer and against what the machine allows.

    python benchmarks/aggregation.py [--quick] [--clients 20 100] [--parameters 100000 1000000] [--rules median]
        [--threads 1 --cpu-time] [--json FILE]

Peers are Flower's functions, byzfl (if it is installed: `pip install "flsec[peers]"`), ByzPy and one-liners in numpy
and torch. Each is first compared with a float64 computation; a wrong one is named, and its time is not used. The rest
are timed in turn with ours, in one process; times are medians, so that a ratio is of the same minutes on the same
machine.

The floor of a rule is the time to read what it must read at the memory bandwidth measured in the same process, or, for
rules that need the inner products of all rows, of that matrix product in float64 if this takes longer. Krum's peers
must also be right for parameters whose differences are 1e-5 of their size, which is what Flower hands to its own.

On a machine that has other work to do, `--threads 1 --cpu-time` counts the processor's seconds in one thread.
"""

import argparse
import functools
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.server.strategy import FedAvg
from flwr.server.strategy import aggregate as flower

from flsec import aggregation as flsec
from flsec.strategies import Krum, NearestNeighborMixing
from flsec.strategies.cohort import Cohort, Layout

Vector = Any  # (d,) of numpy or torch
BARS = {
    "median": 5,
    "trimmed_mean": 5,
    "geometric_median": 10,
    "centered_clipping": 10,
    "krum": 3,
    "multi_krum": 3,
    "bulyan": 10,
    "nnm_krum": 3,
}  # at n = 100, d = 1e6
CORRECT = 1e-4  # largest error over the largest entry
SPREAD, HOSTILE_SPREAD = 0.01, 1.0
STEPS = 10  # of centered clipping


@dataclass(frozen=True)
class Data:
    """One matrix of updates as the contenders want it."""

    updates: torch.Tensor
    f: int

    @property
    def array(self) -> Any:
        return self.updates.numpy()

    @property
    def n(self) -> int:
        return len(self.updates)

    @property
    def flower(self) -> list[tuple[list[Any], int]]:
        return [([row], 1) for row in self.array]

    @property
    def radius(self) -> float:
        return float(SPREAD * self.updates.shape[1] ** 0.5)


def draw(n: int, d: int) -> Data:
    """Return honest updates of one size around a common direction, and a fifth that are 100 times larger."""
    f = n // 5
    generator = torch.Generator().manual_seed(0)
    updates = torch.empty(n, d)
    direction = torch.randn(d, generator=generator)
    for i in range(n):
        spread = HOSTILE_SPREAD if i < f else SPREAD
        updates[i] = spread * torch.randn(d, generator=generator)
        updates[i] += SPREAD / 2 * direction
    return Data(updates, f)


# --- float64 ---------------------------------------------------------------------------------------------------


def products(data: Data) -> Any:
    """Return the Gram matrix in float64."""
    total = np.zeros((data.n, data.n))
    for left in range(0, data.array.shape[1], 100_000):
        block = data.array[:, left : left + 100_000].astype(np.float64)
        total += block @ block.T
    return total


def combined(data: Data, weights: Any) -> Any:
    """Return sum_i weights[i] updates[i] in float64."""
    return np.concatenate(
        [weights @ data.array[:, i : i + 100_000].astype(np.float64) for i in range(0, data.array.shape[1], 100_000)]
    )


def sorted_mean(data: Data, low: int, high: int, rows: Any = None) -> Any:
    array = data.array if rows is None else data.array[rows]
    return np.concatenate(
        [
            np.sort(array[:, i : i + 20_000].astype(np.float64), axis=0)[low:high].mean(axis=0)
            for i in range(0, array.shape[1], 20_000)
        ]
    )


def exact_median(data: Data) -> Any:
    return sorted_mean(data, (data.n - 1) // 2, data.n // 2 + 1)


def exact_trimmed_mean(data: Data) -> Any:
    return sorted_mean(data, data.f, data.n - data.f)


def squared_distances(data: Data) -> Any:
    gram = products(data)
    squares = np.diag(gram)
    return squares[:, None] + squares[None, :] - 2 * gram


def krum_order(distances: Any, f: int) -> Any:
    n = len(distances)
    return np.argsort(np.sort(distances, axis=1)[:, 1 : n - f - 1].sum(axis=1), kind="stable")


def exact_krum(data: Data) -> Any:
    return data.array[krum_order(squared_distances(data), data.f)[0]].astype(np.float64)


def exact_multi_krum(data: Data) -> Any:
    weights = np.zeros(data.n)
    weights[krum_order(squared_distances(data), data.f)[: data.n - data.f]] = 1 / (data.n - data.f)
    return combined(data, weights)


def exact_bulyan(data: Data) -> Any:
    distances, f = squared_distances(data), data.f
    active, selected = list(range(data.n)), []
    while len(selected) < data.n - 2 * f:
        among = distances[np.ix_(active, active)]
        keep = max(1, len(active) - f - 2)
        sums = np.sort(among, axis=1)[:, 1 : keep + 1].sum(axis=1)
        selected.append(active.pop(int(np.argmin(sums))))
    rows = np.sort(selected)
    parts = []
    for i in range(0, data.array.shape[1], 20_000):
        values = np.sort(data.array[rows, i : i + 20_000].astype(np.float64), axis=0)
        nearest = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0, kind="stable")
        parts.append(np.take_along_axis(values, nearest[: len(rows) - 2 * f], axis=0).mean(axis=0))
    return np.concatenate(parts)


def exact_geometric_median(data: Data) -> Any:
    gram, weights = products(data), np.full(data.n, 1 / data.n)
    for _ in range(2000):
        distances = np.sqrt(np.diag(gram) - 2 * gram @ weights + weights @ gram @ weights)
        weights = (1 / distances) / (1 / distances).sum()
    return combined(data, weights)


def exact_centered_clipping(data: Data) -> Any:
    gram, weights = products(data), np.zeros(data.n)
    for _ in range(STEPS):
        distances = np.sqrt(np.diag(gram) - 2 * gram @ weights + weights @ gram @ weights)
        shares = np.minimum(1, data.radius / distances) / data.n
        weights = (1 - shares.sum()) * weights + shares
    return combined(data, weights)


# --- peers -----------------------------------------------------------------------------------------------------


def torch_krum(data: Data, mode: str) -> Any:
    """Return the order of rows by Krum's score from ``torch.cdist``."""
    distances = torch.cdist(data.updates, data.updates, compute_mode=mode) ** 2
    return distances.sort(dim=1).values[:, 1 : data.n - data.f - 1].sum(dim=1).argsort()


def float64_krum(data: Data) -> Any:
    """Return the order of rows by Krum's score from one product in float64, about the first row."""
    rows = (data.updates - data.updates[0]).double()
    gram = rows @ rows.T
    distances = gram.diagonal()[:, None] + gram.diagonal()[None, :] - 2 * gram
    return distances.sort(dim=1).values[:, 1 : data.n - data.f - 1].sum(dim=1).argsort()


def weiszfeld(data: Data, steps: int) -> Any:
    center = data.updates.mean(dim=0)
    for _ in range(steps):
        weights = 1 / (data.updates - center).norm(dim=1)
        center = (weights / weights.sum()) @ data.updates
    return center


def clip_towards(data: Data) -> Any:
    center = torch.zeros_like(data.updates[0])
    for _ in range(STEPS):
        differences = data.updates - center
        shares = (data.radius / differences.norm(dim=1)).clamp(max=1) / data.n
        center = center + shares @ differences
    return center


def byzfl(data: Data, name: str, **settings: Any) -> Any:
    """Call one of byzfl's aggregators; its package imports far more than they need."""
    module = importlib.import_module("byzfl.aggregators.aggregators")
    return getattr(module, name)(**settings)(data.updates)


def has_byzfl() -> bool:
    """Import byzfl's aggregators alone: its package draws plots as well."""
    folder = next((Path(p) / "byzfl" for p in sys.path if (Path(p) / "byzfl" / "aggregators").is_dir()), None)
    if folder is None:
        return False
    if "byzfl" not in sys.modules:
        package = type(sys)("byzfl")
        package.__path__ = [str(folder)]
        sys.modules["byzfl"] = package
    return True


@functools.cache
def _wrappers(f: int) -> NearestNeighborMixing:
    return NearestNeighborMixing(Krum(FedAvg(), num_byzantine=f), num_byzantine=f)


def mixed_krum(data: Data) -> Any:
    """Run nearest-neighbour mixing and Krum inside it as a round does: one wrapper's stage after the other's."""
    outer = _wrappers(data.f)
    everybody = tuple(range(data.n))
    cohort = Cohort(
        updates=data.updates,
        num_examples=torch.ones(data.n, dtype=torch.float64),
        client_ids=everybody,
        metrics=({},) * data.n,
        global_parameters=torch.zeros_like(data.updates[0]),
        round=1,
        layout=Layout([data.array[0]]),
        sources=everybody,
    )
    return outer.strategy.before_aggregation(outer.before_aggregation(cohort)).updates[0]


def exact_mixed_krum(data: Data) -> Any:
    values = data.array.astype(np.float64)
    mixed = Data(torch.from_numpy(exact_mixing(values, data.f)), data.f)
    return exact_krum(mixed)


def exact_mixing(values: Any, f: int) -> Any:
    distances = np.stack([np.square(values - row).sum(axis=1) for row in values])
    return np.stack([values[np.argsort(row, kind="stable")[: len(values) - f]].mean(axis=0) for row in distances])


def byzfl_mixed_krum(data: Data) -> Any:
    module = importlib.import_module("byzfl.aggregators.preaggregators")
    return byzfl(Data(module.NNM(data.f)(data.updates), data.f), "Krum", f=data.f)


def byzpy_mixed_krum(data: Data) -> Any:
    mixing = importlib.import_module("byzpy.pre_aggregators.nnm").NearestNeighborMixing(data.f)
    rule = importlib.import_module("byzpy.aggregators.geometric_wise.krum").Krum(data.f)
    return rule.aggregate(mixing.pre_aggregate(list(data.updates)))


def exact_diameter(data: Data) -> Any:
    values = data.array.astype(np.float64)
    distances = np.stack([np.square(values - row).sum(axis=1) for row in values])
    honest = np.arange(data.f, data.n)  # the others are 100 times larger
    assert distances[np.ix_(honest, honest)].max() < distances[data.f :, : data.f].min()
    return values[honest].mean(axis=0)


WEISZFELD = 60  # steps that take the peers to within 1e-4 of the limit, on these data


@dataclass(frozen=True)
class Rule:
    """One rule: ours, the truth, the peers, and what it must read (in matrices)."""

    ours: Callable[[Data], Vector]
    exact: Callable[[Data], Vector]
    peers: dict[str, Callable[[Data], Vector]]
    reads: float
    gram: bool = False


def rules() -> dict[str, Rule]:
    def middle(values: Any, data: Data, axis: int) -> Any:
        low, high = (data.n - 1) // 2, data.n // 2 + 1
        return values[low:high].mean(0) if axis == 0 else values[:, low:high].mean(1)

    def kept(values: Any, data: Data, axis: int) -> Any:
        low, high = data.f, data.n - data.f
        return values[low:high].mean(0) if axis == 0 else values[:, low:high].mean(1)

    def columns(data: Data) -> Any:
        return np.ascontiguousarray(data.array.T)

    return {
        "mean": Rule(
            lambda x: flsec.mean(x.updates),
            lambda x: combined(x, np.full(x.n, 1 / x.n)),
            {"numpy": lambda x: x.array.mean(axis=0), "torch": lambda x: x.updates.mean(dim=0)},
            reads=1,
        ),
        "median": Rule(
            lambda x: flsec.median(x.updates),
            exact_median,
            {
                "numpy.median": lambda x: np.median(x.array, axis=0),
                "numpy.sort": lambda x: middle(np.sort(x.array, axis=0), x, 0),
                "numpy.sort of columns": lambda x: middle(np.sort(columns(x), axis=1), x, 1),
                "numpy.partition": lambda x: middle(np.partition(x.array, ((x.n - 1) // 2, x.n // 2), axis=0), x, 0),
                "torch.median": lambda x: x.updates.median(dim=0).values,
                "torch.quantile": lambda x: x.updates.quantile(0.5, dim=0),
                "torch.sort": lambda x: middle(x.updates.sort(dim=0).values, x, 0),
                "Flower": lambda x: flower.aggregate_median(x.flower)[0],
                "byzfl": lambda x: byzfl(x, "Median"),
            },
            reads=1,
        ),
        "trimmed_mean": Rule(
            lambda x: flsec.trimmed_mean(x.updates, x.f),
            exact_trimmed_mean,
            {
                "numpy.sort": lambda x: kept(np.sort(x.array, axis=0), x, 0),
                "numpy.sort of columns": lambda x: kept(np.sort(columns(x), axis=1), x, 1),
                "numpy.partition": lambda x: kept(np.partition(x.array, (x.f, x.n - x.f - 1), axis=0), x, 0),
                "torch.sort": lambda x: kept(x.updates.sort(dim=0).values, x, 0),
                "Flower": lambda x: flower.aggregate_trimmed_avg(x.flower, x.f / x.n)[0],
                "byzfl": lambda x: byzfl(x, "TrMean", f=x.f),
            },
            reads=1,
        ),
        "krum": Rule(
            lambda x: flsec.krum(x.updates, x.f),
            exact_krum,
            {
                "torch.cdist": lambda x: x.updates[torch_krum(x, "use_mm_for_euclid_dist_if_necessary")[0]],
                "torch.cdist, exact": lambda x: x.updates[torch_krum(x, "donot_use_mm_for_euclid_dist")[0]],
                "torch, float64": lambda x: x.updates[float64_krum(x)[0]],
                "Flower": lambda x: flower.aggregate_krum(x.flower, x.f, 1)[0],
                "byzfl": lambda x: byzfl(x, "Krum", f=x.f),
            },
            reads=1,
            gram=True,
        ),
        "multi_krum": Rule(
            lambda x: flsec.multi_krum(x.updates, x.f),
            exact_multi_krum,
            {
                "torch.cdist": lambda x: x.updates[
                    torch_krum(x, "use_mm_for_euclid_dist_if_necessary")[: x.n - x.f]
                ].mean(0),
                "torch.cdist, exact": lambda x: x.updates[
                    torch_krum(x, "donot_use_mm_for_euclid_dist")[: x.n - x.f]
                ].mean(0),
                "torch, float64": lambda x: x.updates[float64_krum(x)[: x.n - x.f]].mean(0),
                "Flower": lambda x: flower.aggregate_krum(x.flower, x.f, x.n - x.f)[0],
                "byzfl": lambda x: byzfl(x, "MultiKrum", f=x.f),
            },
            reads=2,
            gram=True,
        ),
        "nnm_krum": Rule(
            mixed_krum,
            exact_mixed_krum,
            {
                "byzfl": byzfl_mixed_krum,
                "ByzPy": byzpy_mixed_krum,
            },
            reads=2,
            gram=True,
        ),
        "minimum_diameter_averaging": Rule(
            lambda x: flsec.minimum_diameter_averaging(x.updates, x.f),
            exact_diameter,
            {"byzfl": lambda x: byzfl(x, "MDA", f=x.f)},
            reads=2,
            gram=True,
        ),
        "bulyan": Rule(
            lambda x: flsec.bulyan(x.updates, x.f),
            exact_bulyan,
            {"Flower": lambda x: flower.aggregate_bulyan(x.flower, x.f, flower.aggregate_krum, to_keep=0)[0]},
            reads=2,
            gram=True,
        ),
        "geometric_median": Rule(
            lambda x: flsec.geometric_median(x.updates),
            exact_geometric_median,
            {
                "torch": lambda x: weiszfeld(x, WEISZFELD),
                "byzfl": lambda x: byzfl(x, "GeometricMedian", nu=1e-6, T=WEISZFELD),
            },
            reads=2,
            gram=True,
        ),
        "centered_clipping": Rule(
            lambda x: flsec.centered_clipping(x.updates, torch.zeros_like(x.updates[0]), x.radius, STEPS),
            exact_centered_clipping,
            {
                "torch": clip_towards,
                "byzfl": lambda x: byzfl(x, "CenteredClipping", L=STEPS, tau=x.radius),
            },
            reads=2,
            gram=True,
        ),
    }


# --- measuring -------------------------------------------------------------------------------------------------


class Clock:
    """What time is: the clock's, or the processor's."""

    read = staticmethod(time.perf_counter)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = Clock.read()
    result = call()
    return Clock.read() - started, result


def error_of(result: Vector, truth: Any) -> float:
    difference = np.abs(np.asarray(result, dtype=np.float64) - truth).max() / np.abs(truth).max()
    return float(difference) if difference == difference else float("inf")


def right_about_close_models(rule: Rule, call: Callable[[Data], Vector]) -> bool:
    """Say whether Krum chooses as in float64 among parameters whose differences are 1e-5 of their size."""
    updates = draw(30, 5000)
    parameters = torch.rand(5000, generator=torch.Generator().manual_seed(1)) / 2 + 0.5
    models = updates.updates * (1e-5 / SPREAD) + parameters
    centred = Data(models.double() - models[0].double(), updates.f)
    truth = rule.exact(centred) + models[0].double().numpy()
    # float32 rounds the models' mean by some 1e-7; one wrong row among 24 moves it by 2e-6
    return float(np.abs(np.asarray(call(Data(models, updates.f)), np.float64) - truth).max()) < 5e-7


def machine(data: Data) -> dict[str, float]:
    """Return seconds to read the matrix once, and for the product of all rows with all rows in float64."""
    read = statistics.median(timed(lambda: data.updates.sum())[0] for _ in range(7))
    width = min(data.updates.shape[1], max(64, 2**20 // data.n))
    block = data.updates[:, :width].double()
    values = block.numpy()  # numpy does half the work, for the product is symmetric
    ways = (lambda: block @ block.T, lambda: values @ values.T)
    product = min(statistics.median(timed(way)[0] for _ in range(15)) for way in ways)
    return {"read": read, "product": product * data.updates.shape[1] / width}


def measure(name: str, n: int, d: int, repeats: int, patience: float) -> dict[str, Any]:
    """Time one rule and its peers on one size."""
    rule, data = rules()[name], draw(n, d)
    share = draw(n, max(1000, d // 20))
    few = share if n <= 100 else draw(100, share.updates.shape[1])  # some peers would take hours for all rows
    larger = n * d / few.updates.numel()
    small_truth = rule.exact(share)
    truth = rule.exact(data)
    contenders = {"ours": rule.ours}
    left_out = {}
    for peer, call in rule.peers.items():
        if (peer == "byzfl" and not has_byzfl()) or (peer == "ByzPy" and find_spec("byzpy") is None):
            left_out[peer] = "not installed"
            continue
        try:
            call(few)  # warm up
            if n > 100 and (at_least := larger * timed(lambda call=call: call(few))[0]) > patience:
                left_out[peer] = f"at least {at_least:.0f} s"
                continue
            seconds, result = timed(lambda call=call: call(share))
        except (RuntimeError, ValueError, MemoryError) as error:
            left_out[peer] = f"fails: {str(error)[:60]}"
            continue
        if (error := error_of(result, small_truth)) > CORRECT:
            left_out[peer] = f"wrong: error {error:.0e}"
        elif name in ("krum", "multi_krum") and not right_about_close_models(rule, call):
            left_out[peer] = "wrong for parameters that differ by 1e-5 of their size"
        elif (estimate := seconds * data.updates.shape[1] / share.updates.shape[1]) > patience:
            left_out[peer] = f"about {estimate:.0f} s"
        else:
            contenders[peer] = call
    seconds_of: dict[str, list[float]] = {}
    errors = {}
    for contender, call in contenders.items():
        first, result = timed(lambda call=call: call(data))
        errors[contender] = error_of(result, truth)
        if contender != "ours" and errors[contender] > CORRECT:
            left_out[contender] = f"wrong: error {errors[contender]:.0e}"
        else:
            seconds_of[contender] = [first] if contender != "ours" else []  # ours is warm from now on
        del result
    fastest = min((times[0] for times in seconds_of.values() if times), default=0.0)
    rivals = [c for c, times in seconds_of.items() if not times or times[0] < 1.5 * fastest]
    for _ in range(repeats):  # only those that could be the fastest go on
        for contender in rivals:
            time.sleep(0.05)  # the threads of the one before spin for a while
            seconds_of[contender].append(timed(lambda c=contender: contenders[c](data))[0])
    medians = {c: statistics.median(times) for c, times in seconds_of.items()}
    peer = min((c for c in medians if c != "ours"), key=medians.__getitem__, default=None)
    limits = machine(data)
    floor = max(rule.reads * limits["read"], limits["product"] if rule.gram else 0.0)
    return {
        "rule": name,
        "n": n,
        "d": d,
        "seconds": medians,
        "errors": {c: errors[c] for c in medians},
        "left_out": left_out,
        "peer": peer,
        "speedup": medians[peer] / medians["ours"] if peer else None,
        "patience": patience,
        "floor": floor,
        "over_floor": medians["ours"] / floor,
        "gigabytes_per_second": n * d * 4 / limits["read"] / 1e9,
        "product_seconds": limits["product"],
    }


def line(row: dict[str, Any]) -> str:
    ours, speedup = row["seconds"]["ours"], row["speedup"]
    peer, ratio = f"{row['peer']} {row['seconds'][row['peer']]:.3f}" if row["peer"] else "none", "-"
    if speedup:
        ratio = f"{speedup:.1f}"
    elif any(reason.startswith("about") for reason in row["left_out"].values()):  # right, and not worth waiting for
        speedup = row["patience"] / ours
        peer, ratio = f"none within {row['patience']:.0f} s", f">{speedup:.0f}"
    bar = BARS.get(row["rule"]) if (row["n"], row["d"]) == (100, 1_000_000) else None
    verdict = "" if bar is None else ("  met" if speedup and speedup >= bar else "  MISSED") + f" ({bar})"
    return (
        f"{row['rule']:18}{row['n']:6}{row['d']:10}{ours:9.4f}  {peer:32}{ratio:>7}"
        f"{row['over_floor']:8.1f}  {row['errors']['ours']:.0e}{verdict}"
    )


def main() -> None:
    """Run all combinations, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--rules", nargs="+", choices=list(rules()), default=list(rules()))
    parser.add_argument("--quick", action="store_true", help="n = 20 and 100, d = 100,000 and 1,000,000; 3 repeats")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--patience", type=float, default=30, help="seconds that a peer's call may take")
    parser.add_argument("--memory", type=float, help="largest matrix, GiB; default: a tenth of the memory")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="processor seconds instead of the clock's")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.cpu_time:
        Clock.read = staticmethod(time.process_time)
    if options.one:
        name, n, d = options.one[0], int(options.one[1]), int(options.one[2])
        print(json.dumps(measure(name, n, d, options.repeats, options.patience)))
        return
    if options.quick:
        options.clients, options.parameters, options.repeats = [20, 100], [100_000, 1_000_000], 3
    largest = options.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 10 / 2**30
    about = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": options.threads,
        "time": "processor" if options.cpu_time else "clock",
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'rule':18}{'n':>6}{'d':>10}{'ours s':>9}  {'fastest correct peer, s':32}{'ratio':>7}{'/floor':>8}  error")
    rows = []
    for d in options.parameters:
        for n in options.clients:
            if n * d * 4 > largest * 2**30:
                print(f"n = {n}, d = {d}: left out, the matrix alone takes {n * d * 4 / 2**30:.1f} GiB")
                continue
            for name in options.rules:
                command = [sys.executable, __file__, "--repeats", str(options.repeats)]
                command += ["--patience", str(options.patience), "--threads", str(options.threads)]
                command += ["--cpu-time"] * options.cpu_time + ["--one", name, str(n), str(d)]
                environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}  # numpy's products, too
                environment["OPENBLAS_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(options.threads)
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    print(f"{name:18}{n:6}{d:10}  failed: {(done.stderr.splitlines() or ['killed'])[-1]}", flush=True)
                    continue
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
