"""Draw README's picture from three runs of the quickstart: python -m docs.picture."""

import tempfile
from pathlib import Path

import matplotlib

from flsec.simulations.config import load_config, resolve_experiment
from flsec.simulations.engine import run

PICTURE = Path(__file__).parent / "images" / "quickstart.png"
CURVES: dict[str, list[str]] = {
    "nobody attacks": ["attacks=[]", "adversaries=null", "defenses=[]"],
    "8 of 20 clients attack, Multi-Krum on the server": [],
    "8 of 20 clients attack, no defense": ["defenses=[]"],
}
LOOKS = (("#555555", "--", "o"), ("#0072b2", "-", "s"), ("#d55e00", "-", "^"))  # told apart without colour, too


def curves() -> dict[str, dict[int, float]]:
    """Return {label: {round: accuracy after it}} of the three runs; round 0 is the start."""
    found = {}
    for label, changes in CURVES.items():
        with tempfile.TemporaryDirectory() as folder:
            settings = ["simulation.engine=inprocess", f"output.folder={folder}", "output.plots=false", *changes]
            done = run(load_config(resolve_experiment("quickstart"), settings))
            found[label] = {line["round"]: line["accuracy"] for line in done.rounds()}
    return found


def draw(found: dict[str, dict[int, float]], picture: Path) -> None:
    """Draw the curves into a PNG file."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for (label, values), (color, line, marker) in zip(found.items(), LOOKS, strict=True):
        axes.plot(list(values), list(values.values()), line, color=color, marker=marker, markersize=4, label=label)
    axes.set(xlabel="round", ylabel="test accuracy", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center right", frameon=False)
    picture.parent.mkdir(exist_ok=True)
    figure.savefig(picture, dpi=140)


if __name__ == "__main__":
    draw(curves(), PICTURE)
