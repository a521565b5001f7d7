"""What a page tells of a study of reconstruction: leakage by strength, and originals beside what was rebuilt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flsec.simulations.figure_style import PALETTE
from flsec.simulations.pages.page import Chart, Code, Column, Data, Fold, Part, Picture, Table, Text, altair
from flsec.simulations.readable_names import readable
from flsec.simulations.studies.clients_by_rounds import evenly
from flsec.simulations.studies.reconstruct_results import read_rows, setting_of, summarise

__all__ = ["reconstruction_parts"]

_BASELINES = {"mean_image": "mean image", "random_image": "random images"}


def reconstruction_parts(path: Path, number: int, most_bytes: int) -> list[Part]:
    """Return what is told of a study.

    Args:
        path: its folder.
        number: its own on the page.
        most_bytes: of pictures.
    """
    rows = read_rows(path)
    summary = summarise(rows)
    parts: list[Part] = [_table(summary)]
    parts += [chart for m in ("psnr", "ssim") if (chart := _leakage(summary, m, f"leakage-{number}-{m}"))]
    parts += _pictures(path, most_bytes)
    errors = sorted({row["error"] for row in rows if row["error"]})
    parts += [Text(f"Could not be inverted: {error}", "warning") for error in errors[:5]]
    config = path / "config.yaml"
    return [*parts, Code("The command that repeats it", f"flsec reconstruct {config}"), _settings(config)]


def _settings(config: Path) -> Part:
    return Fold("Configuration", [Code("config.yaml", config.read_text() if config.is_file() else "")])


def _table(summary: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for entry in summary:
        row = {"through": setting_of(entry), "failed": entry["failed"], "labels": entry["label_accuracy"]}
        for measure in ("psnr", "ssim", "mse"):
            row[measure] = entry[measure]
            row |= {f"{measure}-{baseline}": entry[baseline][measure] for baseline in _BASELINES}
        rows.append(row)
    columns = [Column("through", "Update went through")]
    for measure, title, digits in (("psnr", "PSNR, dB", 1), ("ssim", "SSIM", 2), ("mse", "MSE", 4)):
        columns.append(Column(measure, title, digits))
        columns += [
            Column(f"{measure}-{b}", f"{name}", digits, help=f"{title} of the {name}, which leak nothing")
            for b, name in _BASELINES.items()
        ]
    columns += [Column("labels", "Labels found", 2), Column("failed", "Failed", 0)]
    there = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    return Table("Likeness of reconstructions to the originals; means over clients and images", there, rows)


def _leakage(summary: Sequence[dict[str, Any]], measure: str, name: str) -> Chart | None:
    rows = []
    for entry in summary:
        values = {"reconstruction": entry[measure], **{label: entry[b][measure] for b, label in _BASELINES.items()}}
        for series, value in values.items():
            if value is not None:
                setting = " ".join(
                    [
                        readable(entry["through"]),
                        *(
                            [f"{entry['parameter'].replace('_', ' ')} {entry['strength']:g}"]
                            if entry["parameter"]
                            else []
                        ),
                    ]
                )
                rows.append({"setting": setting, "series": series, "value": round(value, 4)})
    if not rows:
        return None
    alt = altair()
    data = Data(name, rows)
    title = {"psnr": "PSNR, dB", "ssim": "SSIM"}[measure]
    order = list(dict.fromkeys(row["setting"] for row in rows))
    kinds = ["reconstruction", *_BASELINES.values()]
    scale = alt.Scale(domain=kinds, range=[PALETTE[0], PALETTE[1], PALETTE[4]])
    shapes = alt.Scale(domain=kinds, range=["circle", "triangle", "square"])
    chart = (
        alt.Chart(data.named)
        .mark_point(size=60, filled=True, aria=False)
        .encode(
            y=alt.Y("setting:N", title=None, sort=order, axis=alt.Axis(labelLimit=150)),
            x=alt.X("value:Q", title=title, scale=alt.Scale(zero=measure == "ssim")),
            color=alt.Color("series:N", title=None, scale=scale),
            shape=alt.Shape("series:N", title=None, scale=shapes),
            tooltip=["setting:N", "series:N", alt.Tooltip("value:Q", title=title)],
        )
    )
    what = (
        f"{title.partition(',')[0]} of reconstructions and of what leaks nothing; further right is a better likeness."
    )
    columns = [Column("setting", "Update went through"), Column("series", "What"), Column("value", title)]
    return Chart(what, what, chart.properties(height=max(90, 22 * len(order))), [data], columns)


def _pictures(path: Path, most_bytes: int) -> list[Part]:
    files = sorted((path / "pictures").glob("*.png"))
    sizes = [file.stat().st_size for file in files]
    fitting = len(files) if sum(sizes) <= most_bytes else int(len(files) * most_bytes / sum(sizes))
    shown = [file for file in evenly(files, fitting) if file.stat().st_size <= most_bytes] if fitting else []
    parts: list[Part] = [_picture(file) for file in shown]
    if len(shown) < len(files):
        left_out = f"Shown are {len(shown)} of {len(files)} pictures; the others are in {path / 'pictures'}."
        parts.insert(0, Text(left_out, "note"))
    return [Fold("Originals beside reconstructions", parts, opened=len(shown) <= 12)] if parts else []


def _picture(file: Path) -> Picture:
    what = file.stem.replace("-", " ").replace("_", " ")
    return Picture(what, f"Original images, each above its reconstruction: {what}", file.read_bytes())
