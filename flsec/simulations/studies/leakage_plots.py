"""The pictures of a reconstruction study: originals beside reconstructions, and leakage against strength."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsec._files import replacing

__all__ = ["plot_leakage", "plot_pairs"]

_COLUMNS = 8  # of pairs in a picture


def plot_pairs(originals: NDArray[Any], rebuilt: NDArray[Any], path: Path, title: str) -> None:
    """Draw originals, each above its reconstruction.

    Args:
        originals: (n, channels, height, width), pixels in [0, 1].
        rebuilt: (n, channels, height, width), in the order of the originals.
        path: the PNG to write; its folder is made.
        title: above the picture.
    """
    plt = _pyplot()
    columns = min(_COLUMNS, len(originals))
    rows = -(-len(originals) // columns)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(max(3.6, 1.2 * columns), 2.4 * rows + 0.6), squeeze=False, layout="constrained"
    )
    for place in axes.flat:
        place.axis("off")
    for index, pair in enumerate(zip(originals, rebuilt, strict=True)):
        row, column = divmod(index, columns)
        for below, image in enumerate(pair):
            shown = np.moveaxis(image, 0, -1).clip(0, 1)  # channels last
            grey = shown.shape[-1] != 3
            axes[2 * row + below, column].imshow(shown[..., 0] if grey else shown, cmap="gray", vmin=0, vmax=1)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def plot_leakage(summary: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the PSNR of reconstructions against the strength of each change, with what knowing nothing gives.

    Args:
        summary: one entry a setting, as in ``summary.json``.
        path: the PNG to write.
        title: above the plots.
    """
    plt = _pyplot()
    changes = {entry["through"]: entry["parameter"] for entry in summary if entry["parameter"]}
    plain = [entry for entry in summary if not entry["parameter"]]
    names = list(changes) or [entry["through"] for entry in plain[:1]]
    figure, all_axes = plt.subplots(
        1, len(names), figsize=(max(4, 3 * len(names)), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(all_axes[0], names, strict=True):
        measured = sorted((e for e in summary if e["through"] == name), key=lambda entry: entry["strength"])
        measured = [entry for entry in measured if entry["psnr"] is not None]
        for entry in measured:
            axes.plot([entry["strength"]] * len(entry["psnrs"]), entry["psnrs"], "o", color="tab:blue", alpha=0.35)
        strengths = [entry["strength"] for entry in measured]
        axes.plot(strengths, [entry["psnr"] for entry in measured], color="tab:blue", label="rebuilt")
        for entry in plain if name in changes else ():
            if entry["psnr"] is not None:
                axes.axhline(entry["psnr"], color="black", linestyle=":", label=entry["through"])
        for baseline, colour in (("mean_image", "tab:orange"), ("random_image", "tab:red")):
            values = [entry[baseline]["psnr"] for entry in measured]
            axes.plot(strengths, values, color=colour, linestyle="--", marker="_", label=baseline.replace("_", " "))
        if strengths and strengths[0] > 0 and strengths[-1] > 20 * strengths[0]:
            axes.set_xscale("log")
        axes.set(xlabel=changes.get(name, ""), title=name)
        axes.grid(alpha=0.3)
    all_axes[0, 0].set_ylabel("PSNR, dB")
    all_axes[0, -1].legend(fontsize=7)
    figure.suptitle(title)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt
