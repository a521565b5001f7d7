"""What a sweep gave, as one small file and one picture that are kept here.

flsec sweep fedmlsecurity/exp9_pubmedqa --set output.folder=runs
python -m results.record runs/exp9_pubmedqa results/fedmlsecurity/exp9_pubmedqa --measure loss
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

NOT_RESULTS = ("name", "output")  # settings that change no number


def record(sweep: Path) -> dict[str, Any]:
    """Return the curves of every finished run of a sweep, with its settings and what it ran on."""
    runs = {}
    environment: dict[str, Any] = {}
    for summary_path in sorted(sweep.glob("*/summary.json")):
        folder = summary_path.parent
        summary = json.loads(summary_path.read_text())
        rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        environment = json.loads((folder / "environment.json").read_text())
        runs[folder.name] = {
            "config": settings(yaml.safe_load((folder / "config.yaml").read_text())),
            "curves": _curves([r for r in rounds if r.get("accuracy") is not None]),
            "detection": summary["detection"],
            "rounds_that_kept_the_previous_model": summary["rounds_that_kept_the_previous_model"],
            "seconds": round(summary["seconds"], 1),
        }
    return {"command": f"flsec sweep {sweep.name}", "versions": environment, "runs": runs}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's settings without those that change no number."""
    return {key: value for key, value in config.items() if key not in NOT_RESULTS}


def _curves(rounds: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    curves: dict[str, list[float | None]] = {"round": [r["round"] for r in rounds]}
    for name in ("accuracy", "loss"):
        curves[name] = [_short(r[name]) for r in rounds]
    for group in ("measures", "attack"):
        for name in dict.fromkeys(key for r in rounds for key in r[group]):
            curves[name] = [_short(r[group].get(name)) for r in rounds]
    return curves


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def draw(recorded: dict[str, Any], path: Path, measure: str) -> None:
    """Draw one measure of all runs over the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, run in recorded["runs"].items():
        curve = run["curves"]
        if measure in curve:  # a run without an attack has no success of it
            axes.plot(curve["round"], curve[measure], marker="o", markersize=3, label=name.replace("_", " "))
    axes.set(xlabel="round", ylabel=f"test {measure.replace('_', ' ')}", title=path.stem.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Write OUT.json and OUT_MEASURE.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="the folder of a finished sweep")
    parser.add_argument("out", type=Path, help="where to write, without an ending")
    parser.add_argument("--measure", default=["accuracy"], nargs="+", help="what to draw")
    arguments = parser.parse_args()
    recorded = record(arguments.sweep)
    paper = arguments.out.parent.name
    recorded["command"] = f"flsec sweep {paper}/{arguments.out.name}"
    arguments.out.with_suffix(".json").write_text(json.dumps(recorded, indent=1) + "\n")
    for measure in arguments.measure:
        draw(recorded, arguments.out.with_name(f"{arguments.out.name}_{measure}.png"), measure)


if __name__ == "__main__":
    main()
