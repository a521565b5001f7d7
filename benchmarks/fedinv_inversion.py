"""FedInv's inversions of a round: all clients in one batch against one client after another.

    python benchmarks/fedinv_inversion.py [--models fedinv_cnn fedinv_fcn softmax] [--clients 20] [--dummies 10]
                                          [--steps 20] [--repeats 3] [--threads N] [--json FILE]

Two ways to go one after another: "autograd" differentiates the plain network twice and steps torch's own Adam, as the
paper's Algorithm 1 reads; "single" calls ``invert_update`` for each client. Times are medians of alternating runs in
one process, per step; a round is 700 of them. Memory is the growth of the resident set's peak during the batched
inversion, in a fresh process. The error is the distance between the dummies of the batch and of "autograd",
relative to how far they have moved.
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

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flsec.models import build_model
from flsec.reconstruction import InvertedUpdates, invert_update

FORMS = {"fedinv_cnn": ((1, 28, 28), 10), "fedinv_fcn": ((561,), 6), "softmax": ((1, 28, 28), 10)}
ROUND = 700  # steps, the paper's


def problem(name: str, clients: int) -> tuple[torch.nn.Module, Tensor, dict[str, Any]]:
    """Return a model, (n, d) gradients of examples of two classes each, and the form of the inversion."""
    shape, classes = FORMS[name]
    model = build_model(name, shape, classes, seed=0)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for client in range(clients):
        x = torch.rand(32, *shape, generator=generator)
        y = (client + torch.randint(2, (32,), generator=generator)) % classes
        gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return model, torch.stack(rows), {"input_shape": shape, "num_classes": classes}


def with_autograd(model: torch.nn.Module, rows: Tensor, start: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Invert one client after another, each by differentiating the network twice."""
    parameters = list(model.parameters())
    found = []
    for row in rows:
        targets = [
            part.view_as(p) for part, p in zip(row.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        x = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.03)
        for _ in range(steps):
            gradients = torch.autograd.grad(cross_entropy(model(x), labels), parameters, create_graph=True)
            error = sum((a - b).square().sum() for a, b in zip(gradients, targets, strict=True))
            x.grad = torch.autograd.grad(error, x)[0]
            optimizer.step()
        found.append(x.detach())
    return torch.stack(found)


def time_model(name: str, clients: int, dummies: int, steps: int, repeats: int) -> dict[str, Any]:
    """Time the three ways in turn."""
    model, rows, form = problem(name, clients)
    options = {**form, "batch_size": dummies, "num_steps": steps}
    first: InvertedUpdates = invert_update(model, rows, **options)  # warm up, and the shared start
    ways: dict[str, Callable[[], Tensor]] = {
        "batch": lambda: invert_update(model, rows, **options).inputs,
        "autograd": lambda: with_autograd(model, rows, first.start, first.labels, steps),
        "single": lambda: invert_update(model, rows, **options, clients_at_once=1).inputs,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, Tensor] = {}
    for _ in range(repeats):
        for way, call in ways.items():
            started = time.perf_counter()
            results[way] = call()
            seconds[way].append((time.perf_counter() - started) / steps)
    per_step = {way: statistics.median(values) for way, values in seconds.items()}
    moved = (results["batch"] - first.start).norm()
    return {
        "seconds_per_step": per_step,
        "seconds_per_round": ROUND * per_step["batch"],
        "ratio": per_step["autograd"] / per_step["batch"],
        "ratio_single": per_step["single"] / per_step["batch"],
        "error": float((results["batch"] - results["autograd"]).norm() / moved),
    }


def peak_memory(name: str, clients: int, dummies: int) -> float:
    """Return the growth of the peak resident set during a batched inversion, in MiB."""
    model, rows, form = problem(name, clients)
    invert_update(model, rows[:1], **form, batch_size=1, num_steps=1)  # imports and thread pools are not the call's
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    invert_update(model, rows, **form, batch_size=dummies, num_steps=3)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    """Run each model in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--dummies", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = (options.clients, options.dummies)
    if options.one:
        what, name = options.one
        measured = time_model(name, *sizes, options.steps, options.repeats) if what == "time" else None
        print(json.dumps(measured or peak_memory(name, *sizes)))
        return
    print(f"torch {torch.__version__}, {options.threads} threads, {sizes[0]} clients, {sizes[1]} dummies each")
    titles = ("batch ms", "autograd", "single", "ratio", "(single)", "s/round", "MiB")
    print("model".ljust(13) + "".join(title.rjust(9) for title in titles) + "  error")
    rows = []
    for name in options.models:
        row: dict[str, Any] = {"model": name, **_child("time", name, options), "mib": _child("memory", name, options)}
        rows.append(row)
        ms = {way: 1000 * value for way, value in row["seconds_per_step"].items()}
        print(
            f"{name:13}{ms['batch']:9.1f}{ms['autograd']:9.1f}{ms['single']:9.1f}{row['ratio']:9.1f}"
            f"{row['ratio_single']:9.1f}{row['seconds_per_round']:9.1f}{row['mib']:9.0f}  {row['error']:.0e}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _child(what: str, name: str, options: argparse.Namespace) -> Any:
    numbers = {key: getattr(options, key) for key in ("clients", "dummies", "steps", "repeats", "threads")}
    arguments = [part for key, value in numbers.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, __file__, *arguments, "--one", what, name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
