"""The pictures of a reconstruction study: originals beside reconstructions, and leakage against strength."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsec.simulations.figure_style import PALETTE, figures, save_figure
from flsec.simulations.readable_names import readable

__all__ = ["plot_leakage", "plot_pairs"]

_COLUMNS = 8  # of pairs in a picture
_DPI = 120
_AXES = {"psnr": "PSNR, dB", "ssim": "SSIM"}
_BASELINES = (("mean_image", PALETTE[4], "_"), ("random_image", PALETTE[1], "x"))


def plot_pairs(
    originals: NDArray[Any], rebuilt: NDArray[Any], path: Path, title: str, captions: Sequence[str] = ()
) -> None:
    """Draw a contact sheet: originals, each above its reconstruction.

    Args:
        originals: (n, channels, height, width), pixels in [0, 1].
        rebuilt: (n, channels, height, width), in the order of the originals.
        path: the file to write; its folder is made.
        title: above the picture.
        captions: above each pair, such as its label; none: no captions.
    """
    columns = min(_COLUMNS, len(originals))
    rows = -(-len(originals) // columns)
    with figures() as plt:
        size = (max(3.6, 1.2 * columns + 0.4), 2.5 * rows + 0.6)
        figure, axes = plt.subplots(2 * rows, columns, figsize=size, squeeze=False)
        for place in axes.flat:
            place.set(xticks=[], yticks=[], frame_on=False)
            place.grid(False)
        for index, pair in enumerate(zip(originals, rebuilt, strict=True)):
            row, column = divmod(index, columns)
            for below, image in enumerate(pair):
                shown = np.moveaxis(image, 0, -1).clip(0, 1)  # channels last
                grey = shown.shape[-1] != 3
                axes[2 * row + below, column].imshow(shown[..., 0] if grey else shown, cmap="gray", vmin=0, vmax=1)
            if captions:
                axes[2 * row, column].set_title(captions[index], fontsize=7)
        for row in range(rows):
            axes[2 * row, 0].set_ylabel("original", fontsize=7)
            axes[2 * row + 1, 0].set_ylabel("rebuilt", fontsize=7)
        figure.suptitle(title, fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path, _DPI)


def plot_leakage(summary: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw PSNR and SSIM of reconstructions against the strength of each change, with what knowing nothing gives.

    Args:
        summary: one entry a setting, as in ``summary.json``.
        path: the file to write.
        title: above the plots.
    """
    changes = {entry["through"]: entry["parameter"] for entry in summary if entry["parameter"]}
    plain = [entry for entry in summary if not entry["parameter"]]
    names = list(changes) or [entry["through"] for entry in plain[:1]]
    measures = [measure for measure in _AXES if any(entry[measure] is not None for entry in summary)] or ["psnr"]
    size = (max(4.5, 2.6 * len(names)), 0.9 + 2.5 * len(measures))
    with figures() as plt:
        figure, all_axes = plt.subplots(len(measures), len(names), figsize=size, sharey="row", squeeze=False)
        for row, measure in zip(all_axes, measures, strict=True):
            for axes, name in zip(row, names, strict=True):
                _draw_change(axes, [entry for entry in summary if entry["through"] == name], measure)
                for entry in plain if name in changes else ():
                    if entry[measure] is not None:
                        axes.axhline(entry[measure], color="black", linestyle=":", label=readable(entry["through"]))
            row[0].set_ylabel(_AXES[measure])
        for axes, name in zip(all_axes[0], names, strict=True):
            axes.set_title(readable(name))
        for axes, name in zip(all_axes[-1], names, strict=True):
            axes.set_xlabel((changes.get(name) or "").replace("_", " "))
        handles = {
            label: line for axes in all_axes.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=7)
        figure.suptitle(title)
        save_figure(figure, path, _DPI)


def _draw_change(axes: Any, entries: Sequence[dict[str, Any]], measure: str) -> None:
    """Draw one change of updates: each reconstruction where it is known, their mean, and the baselines."""
    measured = sorted((entry for entry in entries if entry[measure] is not None), key=lambda entry: entry["strength"])
    strengths = [entry["strength"] for entry in measured]
    for entry in measured if measure == "psnr" else ():
        axes.plot([entry["strength"]] * len(entry["psnrs"]), entry["psnrs"], "o", color=PALETTE[0], alpha=0.35)
    axes.plot(strengths, [entry[measure] for entry in measured], "o-", color=PALETTE[0], label="rebuilt")
    for baseline, colour, marker in _BASELINES:
        values = [entry[baseline][measure] for entry in measured]
        if all(value is not None for value in values):
            axes.plot(strengths, values, color=colour, linestyle="--", marker=marker, label=readable(baseline))
    if len(set(strengths)) > 1 and strengths[0] > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
    if strengths:
        axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
