"""Run every example, and one through ``flwr run``: ``python -m examples.run_all``. Exit code 1 if one fails."""

import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent


def commands() -> list[list[str]]:
    """Return what is run, as arguments of ``python -m``."""
    apps = sorted(path.parent.name for path in EXAMPLES.glob("*/__main__.py"))
    real = ["examples.flower_run", "pytorch_message", "--defense", "--attack", "--at-least", "0.85"]
    return [["examples.fedavg_under_attack"], *([f"examples.{app}"] for app in apps), real]


def main() -> int:
    """Run them one after another, and say which failed."""
    failed = []
    for command in commands():
        started = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", *command], cwd=EXAMPLES.parent, check=False).returncode
        print(
            f"{' '.join(command)}: {'ok' if code == 0 else 'FAILED'}, {time.perf_counter() - started:.0f} s", flush=True
        )
        if code:
            failed.append(command[0])
    if failed:
        print(f"{len(failed)} of {len(commands())} failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
