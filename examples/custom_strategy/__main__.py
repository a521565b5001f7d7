"""Run this example bare, defended, attacked, and attacked and defended: ``python -m examples.custom_strategy``."""

import tempfile
from pathlib import Path

import numpy as np

from examples._run import compare

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Compare the four runs, and look at the model that each has saved."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "best.npz"

        def check_saved(run: str, accuracy: float) -> str | None:
            if not path.exists():
                return "the strategy's own start() did not save its best model"
            best = float(np.load(path)["accuracy"])
            path.unlink()
            return None if best >= accuracy else f"saved a model of accuracy {best:.3f}, below the last one's"

        return compare(FOLDER, overrides={"save-path": str(path)}, after=check_saved)


if __name__ == "__main__":
    raise SystemExit(main())
