"""Runs that are killed: at a chosen access to their folder, or by whoever started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ACCESS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate"}  # before each of these a kill is tried
MAIN = "from flsec.simulations.cli import main; main()"


def run_until(file: str, overrides: list[str], folder: str, access: int) -> None:
    """Run an experiment, and be killed before the access of this number to what lies below the folder."""
    import torch

    from flsec.simulations import engine
    from flsec.simulations.config import load_config

    torch.set_num_threads(1)
    left = access

    def hook(event: str, arguments: Any) -> None:
        nonlocal left
        if event in ACCESS and str(arguments[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    config = load_config(Path(file), overrides)
    sys.addaudithook(hook)
    engine.run(config)
    sys.exit(100)  # not killed


def killed_at(file: Path, overrides: list[str], folder: Path, access: int) -> bool:
    """Return whether a process that runs the experiment came to this access, where it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flsec.simulations.engine", "flsec.simulations.config"])
    process = context.Process(target=run_until, args=(str(file), overrides, str(folder), access))
    process.start()
    process.join(120)
    assert process.exitcode in (-signal.SIGKILL, 100), process.exitcode
    return process.exitcode != 100


class Started:
    """The command ``flsec run``, in a session of its own, by which all its processes are known."""

    def __init__(self, *arguments: str, cwd: Path):
        self.folder = cwd
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "run", *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for_rounds(self, records: Path, count: int, patience: float = 300) -> None:
        """Wait until so many rounds are recorded."""
        deadline = time.monotonic() + patience
        while not (records.is_file() and records.read_bytes().count(b"\n") > count):
            assert self.process.poll() is None, self.process.stdout.read()  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, number: int = signal.SIGKILL) -> str:
        """Send a signal, wait, and return what was printed."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> str:
        printed, _ = self.process.communicate(timeout=300)
        return printed

    def left(self) -> list[int]:
        """Return the processes of the session that are still there."""
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(state[3]) == self.process.pid and state[0] not in "ZX"

    def seconds_until_nothing_is_left(self, patience: float = 60) -> float:
        begun = time.monotonic()
        while self.left():
            assert time.monotonic() - begun < patience, self.left()
            time.sleep(0.1)
        return time.monotonic() - begun
