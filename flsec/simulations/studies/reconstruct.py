"""What a curious server can rebuild of its clients' data, and what is left of it once updates are changed on the way.

The work of ``flsec reconstruct``: clients train as in an experiment, each on a few of its own images; their updates go
through changes such as clipping or noise; an inversion makes images of what arrives; and these are compared with the
true ones, beside two answers that leak nothing.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flsec._files import append_line, replacing
from flsec.errors import ConfigError
from flsec.metrics import reconstruction_scores
from flsec.reconstruction import Observation
from flsec.simulations.problems import say_where
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies.leakage_plots import plot_leakage, plot_pairs
from flsec.simulations.studies.reconstruct_clients import Bench, Case, cases_of
from flsec.simulations.studies.reconstruct_results import leakage_table, read_rows, setting_of, summarise
from flsec.simulations.studies.reconstruct_settings import ReconstructionStudy, load_reconstruction

__all__ = ["ReconstructionStudy", "leakage_table", "load_reconstruction", "run_reconstruction"]

Row = dict[str, Any]


def run_reconstruction(
    study: ReconstructionStudy, on_row: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Measure what has not been measured yet, and write it.

    A study that was stopped goes on with the same call. ``reconstruction.jsonl`` has one line a setting and set of
    images: MSE, PSNR, SSIM and label accuracy after the best matching, and beside them the same of two answers that
    leak nothing, the mean image and random training images. ``pictures/`` has originals beside reconstructions,
    ``leakage.png`` the PSNR against the strength of each change.

    Args:
        study: what to measure.
        on_row: called with (rows done, rows in all), for progress.

    Returns:
        The folder.

    Raises:
        ConfigError: the data is not there or too small, the model does not fit it, or the folder holds another study.
    """
    with say_where(study.origin):
        bench = Bench(study)
    folder = _folder(study)
    file = folder / "reconstruction.jsonl"
    done = {_key(row) for row in read_rows(folder)}
    cases = list(cases_of(study))
    for number, case in enumerate(cases, start=1):
        if case.key not in done:
            row = _measured(bench, case, folder)
            append_line(file, json.dumps(row))
        on_row(number, len(cases))
    summary = summarise(read_rows(folder))
    with replacing(folder / "summary.json") as stream:
        stream.write(json.dumps(summary, indent=2).encode() + b"\n")
    plot_leakage(summary, folder / "leakage.png", study.name)
    return folder


def _folder(study: ReconstructionStudy) -> Path:
    """Return the study's folder, new or as it was left."""
    path = study.folder
    if not path.exists():
        path = RunFolder.create(path.parent, path.name, study.to_dict()).path
    elif not (path / "config.yaml").is_file() or load_reconstruction(path / "config.yaml").to_dict() != study.to_dict():
        raise ConfigError(
            f"{str(path)!r} holds something else than this study. Remove it, or give the study another name or folder."
        )
    return path


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("through", "strength", "client", "batch"))


def _measured(bench: Bench, case: Case, folder: Path) -> Row:
    """Return one row; an inversion that cannot be made at all is a row with the reason and without figures."""
    started = time.perf_counter()
    row: Row = {
        "through": case.through,
        "parameter": case.change.strength,
        "strength": case.strength,
        "client": case.client,
        "batch": case.batch,
    }
    observation = bench.observation(case)
    x, y = bench.examples(case)
    row |= {"images": len(y), "update_norm": _update_norm(bench, observation), "steps": observation.steps}
    images = len(bench.experiment.dataset.input_shape) == 3
    try:
        result = bench.invert(case, observation)
    except ConfigError as error:
        nothing = dict.fromkeys(("mse", "psnr", "ssim", "label_accuracy", "mean_image", "random_image", "loss"))
        return {**row, **nothing, "error": str(error), "seconds": time.perf_counter() - started}
    rebuilt = result.inputs.cpu()
    if images:
        rebuilt = rebuilt.clamp(0, 1)  # an attacker knows what pixels are
    scores = reconstruction_scores(
        rebuilt,
        x,
        bench.others,
        labels=result.labels.cpu(),
        true_labels=y,
        peak=1.0 if images else float(bench.others.max() - bench.others.min()),
        seed=bench.study.seed,
    )
    if images and bench.study.output.pictures:
        name = "-".join([*setting_of(row).split(), f"client-{case.client}", f"batch-{case.batch}.png"])
        picture = folder / "pictures" / name.replace("/", "-")
        similarity = scores.reconstruction
        caption = f"{setting_of(row)}: {similarity.psnr:.1f} dB, SSIM {similarity.ssim or 0:.2f}"
        rows = torch.from_numpy(scores.rows)
        found = result.labels.cpu()[rows].tolist()
        captions = [f"label {true}, found {label}" for true, label in zip(y.tolist(), found, strict=True)]
        plot_pairs(x.numpy(), rebuilt[rows].numpy(), picture, caption, captions)
    return {
        **row,
        **asdict(scores.reconstruction),
        "label_accuracy": scores.label_accuracy,
        "mean_image": asdict(scores.mean_image),
        "random_image": asdict(scores.random_image),
        "loss": result.loss,
        "iterations": sum(len(losses) - 1 for losses in result.history),
        "restarts": result.restarts,
        "error": None,
        "seconds": time.perf_counter() - started,
    }


def _update_norm(bench: Bench, observation: Observation) -> float:
    squares = (
        float(np.square(after.astype(np.float64) - before.astype(np.float64)).sum())
        for slot, before, after in zip(bench.layout.slots, observation.sent, observation.received, strict=True)
        if slot.start is not None  # a weight
    )
    return math.sqrt(sum(squares))
