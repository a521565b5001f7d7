"""One look for all figures: ``figures.mplstyle``, the palette, and how a figure is written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flsec._files import replacing
from flsec.errors import ConfigError

__all__ = ["DASHES", "FORMATS", "PALETTE", "SHADE", "figures", "save_figure", "shade_rounds", "spans"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ("-", "--", ":", "-.")  # after the palette is used up
FORMATS = ("pdf", "svg", "png")
SHADE = "#D55E00"
_FILE = Path(__file__).with_name("figures.mplstyle")
# The same figure is the same file.
_NO_DATE: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


@contextlib.contextmanager
def figures() -> Iterator[Any]:
    """Yield ``matplotlib.pyplot`` without a window, in the style of all figures, and close what was drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.style.context(_FILE):
        before = set(plt.get_fignums())
        try:
            yield plt
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def save_figure(figure: Any, path: Path, dpi: int = 200) -> None:
    """Write a figure whole or not at all.

    Args:
        figure: of matplotlib.
        path: the file; its ending, pdf, svg or png, says in what format.
        dpi: dots an inch, of a PNG.

    Raises:
        ConfigError: another ending.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"{str(path)!r}: a figure is written as {', '.join(FORMATS)}. Try {path.stem}.pdf")
    small = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=dpi, metadata=_NO_DATE[kind], **small)


def shade_rounds(axes: Any, rounds: list[int]) -> None:
    """Shade the rounds in which somebody attacked."""
    for place, (first, last) in enumerate(spans(rounds)):
        label = "rounds under attack" if place == 0 else None
        axes.axvspan(first - 0.5, last + 0.5, color=SHADE, alpha=0.07, linewidth=0, label=label)


def spans(rounds: list[int]) -> list[tuple[int, int]]:
    """Return (first, last) of each unbroken row of rounds.

    Example:
        >>> spans([1, 2, 3, 7, 9, 10])
        [(1, 3), (7, 7), (9, 10)]
    """
    found: list[tuple[int, int]] = []
    for round_ in sorted(rounds):
        if found and round_ == found[-1][1] + 1:
            found[-1] = (found[-1][0], round_)
        else:
            found.append((round_, round_))
    return found
