"""Run one example through Flower's own command, ``flwr run``: ``python -m examples.flower_run pytorch_message``.

``--defense`` and ``--attack`` set the run configuration. Everything that Flower leaves behind goes into a temporary
folder, on ports of its own, so that a SuperLink of yours is not touched.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples._deployment import descendants, free_port
from examples._run import run_config_of

EXAMPLES = Path(__file__).resolve().parent
START = 60.0  # seconds that the SuperLink may take to start
QUESTION = 60.0  # seconds that it may take to answer
PAUSE = 0.5  # seconds between two looks at the status


@contextlib.contextmanager
def superlink() -> Iterator[dict[str, str]]:
    """Start a SuperLink with Flower's simulation runtime, and stop it; yield the environment that reaches it.

    ``flwr run`` would start one by itself, and leave it running.
    """
    http, control = free_port(), free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "FLWR_HOME": home,
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(http),
            "FLWR_LOCAL_CONTROL_API_PORT": str(control),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # take what is installed, without a network
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--control-api-address", f"127.0.0.1:{control}", "--host", "127.0.0.1", "--port", str(http)]
        with Path(home, "superlink.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True)
            try:
                _wait_for(f"http://127.0.0.1:{http}/health", process)
                yield env
            finally:
                started = descendants(process.pid)
                process.terminate()
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                for pid in descendants(*started):  # a run that was not waited for goes on by itself
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(PAUSE)
    raise RuntimeError(f"flower-superlink did not start within {START:.0f} s (exit code {process.poll()})")


def flower_run(example: str, *, patience: float = 300.0, **switches: bool) -> tuple[str, str]:
    """Run an example and return Flower's status and what was logged.

    The exit code of ``flwr run`` says nothing: it is 0 also where the ServerApp has failed.

    Args:
        example: a folder of ``examples``.
        patience: seconds that it may take.
        switches: ``defense`` and ``attack``.

    Raises:
        RuntimeError: ``flwr`` could not start the run.
        subprocess.TimeoutExpired: it took longer.
    """
    folder = EXAMPLES / example
    nodes = f"num-supernodes={run_config_of(folder)['num-clients']} client-resources-num-cpus=1"
    settings = " ".join(f"{name}={str(value).lower()}" for name, value in switches.items())
    with superlink() as env:

        def flwr(*arguments: str, timeout: float) -> str:
            command = ["flwr", *arguments]
            done = subprocess.run(
                command, env=env, cwd=env["FLWR_HOME"], capture_output=True, text=True, timeout=timeout
            )
            if done.returncode:
                raise RuntimeError(f"flwr {arguments[0]} failed: {done.stdout} {done.stderr}")
            return done.stdout

        log = flwr("run", str(folder), "--federation-config", nodes, "-c", settings, "--stream", timeout=patience)
        listed: dict[str, Any] = json.loads(flwr("ls", "--format", "json", timeout=QUESTION))
        return listed["runs"][0]["status"], log


def main() -> int:
    """Run what the command line names; return 0 if Flower says that it was completed, with the accuracy asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example", choices=sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml")))
    parser.add_argument("--defense", action="store_true")
    parser.add_argument("--attack", action="store_true")
    parser.add_argument("--at-least", type=float, default=0.0, metavar="ACCURACY", help="fail below this")
    parser.add_argument("--verbose", action="store_true", help="show what Flower logs")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # who is told to stop stops the SuperLink as well
    switches = {name: getattr(given, name) for name in ("defense", "attack")}
    known = run_config_of(EXAMPLES / given.example)
    status, log = flower_run(given.example, **{name: value for name, value in switches.items() if name in known})
    if given.verbose or status != "finished:completed":
        print(log)
    reached = re.findall(r"accuracy: ([0-9.]+)", log)
    print(f"{given.example}: {status}, accuracy {reached[-1] if reached else 'not reported'}")
    return 0 if status == "finished:completed" and reached and float(reached[-1]) >= given.at_least else 1


if __name__ == "__main__":
    raise SystemExit(main())
