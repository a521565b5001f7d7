"""Show that flsec refuses trees, and run the app bare where xgboost is installed: ``python -m examples.xgboost``."""

import importlib
import importlib.util
import sys
from pathlib import Path

from examples._run import accuracy_of, apps_of, quiet, run_config_of
from flsec.errors import ConfigError

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Return 0 if the wrapper is refused when it is built and, where xgboost is installed, the bare app learns."""
    sys.path.insert(0, str(FOLDER))
    server = importlib.import_module("xgboost_app.server_app")
    try:
        with quiet():
            server.new_strategy(10, defense=False)
            server.new_strategy(10, defense=True)
    except ConfigError as refusal:
        print(f"             xgboost  refused: {refusal}")
    else:
        print("NOT AS CLAIMED: xgboost: flsec wrapped a strategy that collects trees, which it cannot guard")
        return 1
    if importlib.util.find_spec("xgboost") is None:
        print("             xgboost  bare run left out: xgboost is not installed")
        return 0
    with quiet():
        accuracy = accuracy_of(*apps_of(FOLDER), run_config_of(FOLDER))
    print(f"             xgboost  bare accuracy {accuracy:.3f}")
    if accuracy < 0.8:
        print("NOT AS CLAIMED: xgboost: the bare app reaches 0.8")
    return 0 if accuracy >= 0.8 else 1


if __name__ == "__main__":
    raise SystemExit(main())
