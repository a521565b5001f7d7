"""The rows that a study of reconstruction has measured, and the table that they come to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from flsec._files import replacing
from flsec.simulations.problems import as_yaml_text

__all__ = ["leakage_table", "read_rows", "setting_of", "summarise"]

Row = dict[str, Any]


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of ``reconstruction.jsonl``; a last line that was cut off is dropped."""
    file = folder / "reconstruction.jsonl"
    if not file.is_file():
        return []
    text = file.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        with replacing(file) as stream:
            stream.write(complete.encode())
    return [json.loads(line) for line in complete.splitlines()]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return one row a setting: means over clients and sets of images, in the order of the rows."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["through"], row["strength"]), []).append(row)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(group: Sequence[Row]) -> Row:
    good = [row for row in group if row["error"] is None]
    means = {name: _mean(good, name) for name in ("mse", "psnr", "ssim", "label_accuracy")}
    baselines = {
        baseline: {name: _mean([row[baseline] for row in good], name) for name in ("mse", "psnr", "ssim")}
        for baseline in ("mean_image", "random_image")
    }
    settings = {name: group[0][name] for name in ("through", "parameter", "strength")}
    return {**settings, **means, **baselines, "psnrs": [row["psnr"] for row in good], "failed": len(group) - len(good)}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return fmean(values) if values else None


def leakage_table(folder: Path) -> Table:
    """Return the table that ``flsec reconstruct`` prints: one line a setting, the baselines beside."""
    table = Table(
        title=folder.name,
        caption="PSNR in dB; mean, random: of the mean image and of random images, which leak nothing",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("through", no_wrap=True)
    for title in ("PSNR", "mean", "random", "SSIM", "mean", "random", "labels"):
        table.add_column(title, justify="right")
    for row in summarise(read_rows(folder)):
        figures = [(row["psnr"], 1), (row["mean_image"]["psnr"], 1), (row["random_image"]["psnr"], 1)]
        figures += [(row["ssim"], 2), (row["mean_image"]["ssim"], 2), (row["random_image"]["ssim"], 2)]
        figures += [(row["label_accuracy"], 2)]
        cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in figures]
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        table.add_row(setting_of(row) + failed, *cells)
    return table


def setting_of(row: Row) -> str:
    """Return what an update went through, in words."""
    return (
        f"{row['through']} {row['parameter']} {as_yaml_text(row['strength'])}"
        if row["parameter"]
        else str(row["through"])
    )
