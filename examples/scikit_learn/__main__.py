"""Run this example bare, defended, attacked, and attacked and defended: ``python -m examples.scikit_learn``."""

from pathlib import Path

from examples._run import compare

if __name__ == "__main__":
    raise SystemExit(compare(Path(__file__).resolve().parent))
