"""The papers' image networks at full size: seconds and memory of a training step.

    python benchmarks/models.py [--models resnet9 vgg11] [--steps 3] [--threads 2] [--json FILE]

Each network is measured in a process of its own: ``flsec.training.train`` on random images, after one step that is not
counted. The batch is that of a client in the paper, smaller where the table says so. Memory is the growth of the
resident set's peak from the built model, before its first step; parameters and what the import of torch takes are not
in it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flsec.models import build_model
from flsec.training import Training, train

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


class Case(NamedTuple):
    """A network as a paper has it."""

    model: str
    shape: tuple[int, ...]
    classes: int
    batch: int
    whose: str  # batch
    settings: dict[str, Any] = {}  # noqa: RUF012


CASES = {
    "softmax": Case("softmax", MNIST, 10, 300, "DiverseFL"),
    "mlp": Case("mlp", MNIST, 10, 300, "DiverseFL, a tenth of 3000"),
    "fedinv_fcn": Case("fedinv_fcn", (561,), 6, 10, "FedInv"),
    "fedinv_cnn": Case("fedinv_cnn", MNIST, 10, 100, "FedInv"),
    "dlg_lenet": Case("dlg_lenet", CIFAR, 100, 1, "Zhu et al."),
    "lenet": Case("lenet", MNIST, 10, 32, "ours"),
    "femnist_cnn": Case("femnist_cnn", MNIST, 62, 10, "McMahan et al."),
    "siren_cnn": Case("siren_cnn", MNIST, 10, 64, "SIREN"),
    "siren_cifar_cnn": Case("siren_cifar_cnn", CIFAR, 10, 32, "SIREN"),
    "resnet_gn": Case("resnet_gn", CIFAR, 10, 128, "He et al."),
    "resnet20": Case("resnet", CIFAR, 10, 128, "He et al."),
    "resnet56": Case("resnet", CIFAR, 100, 128, "He et al.", {"blocks": 9}),
    "resnet9": Case("resnet9", CIFAR, 10, 50, "SparseFed, cross-silo"),
    "vgg11": Case("vgg11", CIFAR, 10, 250, "DiverseFL, a tenth of 2500"),
    "resnet101_ln": Case("resnet101_ln", MNIST, 62, 17, "SparseFed, 600 a round over 35 devices"),
    "resnet18": Case("torchvision_model", CIFAR, 10, 32, "ours"),
}


def measure(case: Case, steps: int) -> dict[str, Any]:
    """Return count, seconds a step (wall and processor) and MiB of one network."""
    model = build_model(case.model, case.shape, case.classes, seed=0, **case.settings)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(case.batch, *case.shape, generator=generator)
    y = torch.randint(case.classes, (case.batch,), generator=generator)

    def run(number: int) -> None:
        training = Training(learning_rate=0.01, steps=number, batch_size=case.batch)
        loss = train(model, x, y, training, round=1, generator=generator).loss
        if not loss < float("inf"):
            raise SystemExit(f"{case.model}: the loss is {loss}")

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    run(1)  # builds thread pools and buffers
    wall, processor = time.perf_counter(), time.process_time()
    run(steps)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": wall / steps,
        "processor_seconds_per_step": processor / steps,
        "mib": (_status("VmHWM") - before) / 1024,
    }


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    """Run each network in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(CASES[options.one], options.steps)))
        return
    print(f"torch {torch.__version__}, {options.threads} threads, {options.steps} steps each\n")
    print("| network | input | parameters | batch | whose | s a step | processor s | MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for name in options.models:
        row = {"network": name, **CASES[name]._asdict(), **_child(name, options)}
        rows.append(row)
        shape = " x ".join(map(str, row["shape"]))
        print(
            f"| {name} | {shape} | {row['parameters']:,} | {row['batch']} | {row['whose']} | "
            f"{row['seconds_per_step']:.3f} | {row['processor_seconds_per_step']:.3f} | {row['mib']:.0f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _child(name: str, options: argparse.Namespace) -> Any:
    numbers = ["--steps", str(options.steps), "--threads", str(options.threads)]
    command = [sys.executable, __file__, *numbers, "--one", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
