"""Run every example, and one through ``flwr run``: ``python -m examples.run_all``. Exit code 1 if one fails."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
LONGEST = 600.0  # seconds for one; what Flower's own command may take is limited in flower_run, and less


def commands() -> list[list[str]]:
    """Return what is run, as arguments of ``python -m``."""
    apps = sorted(path.parent.name for path in EXAMPLES.glob("*/__main__.py"))
    real = ["examples.flower_run", "pytorch_message", "--defense", "--attack", "--at-least", "0.85"]
    return [["examples.fedavg_under_attack"], *([f"examples.{app}"] for app in apps), real]


def _exit_code(command: list[str]) -> int:
    """Run a command; end it where it takes too long, and let it end what it has started."""
    with subprocess.Popen(command, cwd=EXAMPLES.parent) as process:
        try:
            return process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            print(f"{' '.join(command)}: stopped after {LONGEST:.0f} s", flush=True)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(60) or 1
            process.kill()
            return 1


def main() -> int:
    """Run them one after another, and say which failed."""
    failed = []
    for command in commands():
        started = time.perf_counter()
        code = _exit_code([sys.executable, "-m", *command])
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
