"""A defended deployment under attack, on loopback: ``python -m examples.deployment``.

A SuperLink with TLS and SuperNode authentication, six SuperNodes, an attacker among them; in the middle of the run one
SuperNode loses power. The commands are shown as they are typed. ``--cold`` starts each process as Flower does, which
takes seconds for each message; otherwise their imports are made once, see ``examples/_fork_server.py``.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples._deployment import Deployment, wait_until

HERE = Path(__file__).resolve().parent
CLIENTS, ATTACKER, VICTIM = 6, 4, 2  # partitions; the attacker's stands in experiment.yaml
KILLED_AFTER = 2  # rounds
AT_LEAST = 0.8  # accuracy
PRELOADED = ("flsec.simulations.engines.flower_app", "flsec.simulations.engine", "flsec.simulations.engines.loop")


def shown(command: list[str]) -> None:
    """Print a command as it would be typed."""
    print("$", shlex.join(command), flush=True)


def records_in(runs: Path) -> list[dict[str, Any]]:
    """Return the rounds that are recorded so far."""
    files = list(runs.glob("*/rounds.jsonl"))
    return [json.loads(line) for line in files[0].read_text().splitlines()] if files else []


def run(folder: Path, *, cold: bool) -> tuple[int, list[dict[str, Any]]]:
    """Start everything, submit the experiment, kill a SuperNode; return the exit code and the records."""
    runs = folder / "runs"
    root = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))
    with Deployment(folder / "d", {"PYTHONPATH": root}, () if cold else PRELOADED) as deployment:
        shown(deployment.superlink.args)  # type: ignore[union-attr, arg-type]
        for partition in range(CLIENTS):
            node = deployment.start_node(f"node-{partition}", partition_id=partition, num_partitions=CLIENTS)
            shown(node.process.args)  # type: ignore[arg-type]
        command = ["flsec", "submit", str(HERE / "experiment.yaml"), "--set", f"output.folder={runs}"]
        shown(command)
        log = folder / "submit.log"
        with log.open("wb") as file:
            call = [sys.executable, "-m", "flsec.simulations.cli", *command[1:]]
            submitted = subprocess.Popen(call, env=deployment.environment, cwd=folder, stdout=file, stderr=file)
        try:
            wait_until(
                lambda: len(records_in(runs)) > KILLED_AFTER or submitted.poll() is not None, "two rounds", 300.0
            )
            if submitted.poll() is None:
                print(f"the SuperNode of partition {VICTIM} loses power", flush=True)
                deployment.kill(deployment.nodes[f"node-{VICTIM}"])
            code = submitted.wait(timeout=300)
        finally:
            submitted.kill()
        if code:
            print(log.read_text(errors="replace"))
        return code, records_in(runs)


def what_happened(records: list[dict[str, Any]]) -> list[str]:
    """Print a line for each round; return what is not as it should be."""
    wrong = []
    print(f"{'round':>5}{'accuracy':>10}  dropped as attackers  lost")
    for record in records[1:]:
        kept = set(record["defenses"][0]["kept"])
        lost = {entry["client_id"]: entry["reason"] for entry in record["quarantined"]}
        dropped = sorted(set(record["sampled"]) - kept - set(lost))
        said = "; ".join(f"{client}: {reason}" for client, reason in lost.items())
        print(f"{record['round']:>5}{record['accuracy']:>10.3f}  {', '.join(map(str, dropped)):20}  {said}")
        if ATTACKER in kept:
            wrong.append(f"round {record['round']}: the attacker was kept")
    if not any(VICTIM in {entry["client_id"] for entry in record["quarantined"]} for record in records[1:]):
        wrong.append(f"nobody noticed that client {VICTIM} is gone")
    if not records or records[-1]["accuracy"] < AT_LEAST:
        wrong.append(f"the last model has an accuracy below {AT_LEAST}")
    return wrong


def main() -> int:
    """Run it, and return 0 if it went as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true", help="start each process as Flower does")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # who is told to stop stops what it has started
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        code, records = run(Path(folder), cold=given.cold)
        wrong = what_happened(records)
    for line in wrong:
        print(f"NOT AS IT SHOULD BE: {line}")
    return 1 if code or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
