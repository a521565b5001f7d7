"""Real SuperLink, real SuperNodes, TLS and authentication: the same numbers as a simulation, whatever goes wrong."""

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples._deployment import Deployment, wait_until
from flsec.simulations.config import load_config
from flsec.simulations.engine import run
from flsec.simulations.run_folder import RunFolder
from tests.support.deployed_app import LIARS, lie_of, lies
from tests.support.figures import figures

EXPERIMENT = """
data: {name: digits, partition: {name: dirichlet, alpha: 1.0}}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16}
simulation: {engine: inprocess, num_clients: 5, num_rounds: 2, client_timeout: 240}
seed: 7
"""
ATTACKED = """
attacks: [{name: sign_flipping, scale: 4.0}]
adversaries: {count: 1}
"""
DEFENSES = {
    "diversefl": "defenses: [{name: diversefl}]",
    "siren": "defenses: [{name: siren}]",
    "sparsefed": "defenses: [{name: sparsefed, k: 0.1}]",
    "multi_krum": "defenses: [{name: multi_krum, num_byzantine: 1}]",
}
KILLED = """
strategy: {name: fedadam, eta: 0.05}
defenses: [{name: siren}]
simulation: {engine: inprocess, num_clients: 5, clients_per_round: 3, num_rounds: 5, client_timeout: 240}
"""
COLLUDING = "attacks: [{name: alie}]\nadversaries: {count: 1}\n"
ROUNDS_OF_LIES = math.ceil(len(lies()) / LIARS)
PATIENCE = 900.0  # seconds; for a machine that does much else


class Experiment:
    """A file, and where its runs go."""

    def __init__(self, folder: Path, name: str, *sections: str, **simulation: Any):
        self.name, self.runs = name, folder / "runs"
        self.file = folder / f"{name}.yaml"
        written: dict[str, str] = {}
        for line in "".join((EXPERIMENT, *sections)).splitlines():
            written[line.partition(":")[0]] = line  # later sections replace earlier ones
        self.file.write_text("\n".join(written.values()) + f"\noutput: {{folder: {self.runs}}}\n")
        self.settings = [f"simulation.{key}={value}" for key, value in simulation.items()]

    @property
    def folder(self) -> RunFolder:
        """The only run's folder."""
        (found,) = (path for path in self.runs.glob(f"{self.name}*") if path.name in (self.name, f"{self.name}-2"))
        return RunFolder(found)

    def submit(self, deployment: Deployment, app: Path, **more: Any) -> int:
        return deployment.submit(app, experiment=str(self.file), set=",".join(self.settings), **more)

    def simulated(self, folder: Path) -> RunFolder:
        return run(load_config(self.file, [*self.settings, f"output.folder={folder}"]))

    def rounds(self) -> int:
        """Return how many rounds of the run are recorded."""
        return len(self.folder.rounds()) - 1 if self.runs.is_dir() and any(self.runs.glob(self.name)) else -1


def server_apps(deployment: Deployment) -> set[int]:
    """Return the ids of the processes in which ServerApps run."""
    found = set()
    for pid in deployment.family(deployment.superlink):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"flwr-serverapp" in command:
            found.add(pid)
    return found


@pytest.fixture(scope="module")
def finished(deployment: Deployment, app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Several runs at once, of which one loses its ServerApp after round 3 and is gone on with."""
    folder = tmp_path_factory.mktemp("experiments")
    killed = Experiment(folder, "killed", ATTACKED, KILLED)
    run_ids = {"killed": killed.submit(deployment, app)}
    (server_app,) = wait_until(lambda: server_apps(deployment), "the ServerApp starts")
    others = {name: Experiment(folder, name, ATTACKED, defense) for name, defense in DEFENSES.items()}
    others["colluding"] = Experiment(folder, "colluding", COLLUDING)
    for name, experiment in others.items():
        run_ids[name] = experiment.submit(deployment, app)
    lying = others["lying"] = Experiment(folder, "lying", num_rounds=ROUNDS_OF_LIES)
    run_ids["lying"] = lying.submit(deployment, app, behaviour="lies")
    wait_until(lambda: killed.rounds() >= 3, "three rounds", PATIENCE)
    os.kill(server_app, signal.SIGKILL)
    wait_until(lambda: server_app not in server_apps(deployment), "the ServerApp ends")
    when = killed.rounds()
    run_ids["resumed"] = deployment.submit(app, resume=str(killed.folder.path))
    runs = deployment.wait_for(*(run_ids[name] for name in run_ids if name != "killed"), patience=PATIENCE)
    status = {name: runs.get(run_id) for name, run_id in run_ids.items()}
    return SimpleNamespace(experiments={"killed": killed, **others}, status=status, killed_after=when)


@pytest.mark.parametrize("name", DEFENSES)
def test_a_deployment_comes_to_the_same_as_the_simulation(finished: Any, name: str, tmp_path: Path) -> None:
    assert finished.status[name]["status"] == "finished:completed", finished.status[name]
    real, simulated = finished.experiments[name].folder, finished.experiments[name].simulated(tmp_path)
    assert figures(real) == figures(simulated)
    assert (real.path / "model.safetensors").read_bytes() == (simulated.path / "model.safetensors").read_bytes()
    hostile = {client for record in real.rounds()[1:] for client in record["adversaries"]}
    assert len(hostile) == 1  # and the verdicts name it by its partition
    for file in ("run.log", "accuracy.png", "summary.json"):
        assert (real.path / file).stat().st_size > 0


def test_an_attack_that_only_a_simulation_can_complete_is_refused(finished: Any) -> None:
    status = finished.status["colluding"]
    assert status["status"] == "finished:failed"
    assert "ALIE needs several clients' updates" in status["status-details"]
    assert status["elapsed"] < 120
    assert not finished.experiments["colluding"].runs.joinpath("colluding").exists()


def test_crafted_replies_cost_those_who_send_them(finished: Any) -> None:
    assert finished.status["lying"]["status"] == "finished:completed", finished.status["lying"]
    folder = finished.experiments["lying"].folder
    told = set()
    for record in folder.rounds()[1:]:
        assert record["adversaries"] is None  # the configuration does not know them
        reasons = {entry["client_id"]: entry["reason"] for entry in record["quarantined"]}
        lying = {client: lie_of(client, record["round"]) for client in range(1, LIARS + 1)}
        assert {lying.get(client, client) for client in reasons} == set(lying.values())
        assert len(record["quarantined"]) == LIARS  # nobody twice, and nobody who is not there
        assert record["kept_previous_model"] is None
        told |= set(lying.values())
    assert told == set(lies())
    assert len(told) >= 20
    assert folder.rounds()[-1]["loss"] < folder.rounds()[0]["loss"]


def test_a_run_whose_serverapp_was_killed_goes_on_to_the_same_model(finished: Any, tmp_path: Path) -> None:
    assert 3 <= finished.killed_after < 5
    assert finished.status["resumed"]["status"] == "finished:completed", finished.status["resumed"]
    killed = finished.experiments["killed"]
    simulated = killed.simulated(tmp_path)
    assert figures(killed.folder) == figures(simulated)
    assert (killed.folder.path / "model.safetensors").read_bytes() == (
        simulated.path / "model.safetensors"
    ).read_bytes()


def test_what_happens_to_a_supernode_costs_that_supernode(
    finished: Any, deployment: Deployment, app: Path, tmp_path: Path
) -> None:
    timeout = 40.0
    orders = tmp_path / "orders"
    orders.mkdir()
    (orders / "2-2").write_text(str(timeout + 10))  # client 2 hangs in round 2
    (orders / "3-2").write_text("600")  # and client 3 is at work when its machine loses power
    (orders / "1-3").write_text(str(timeout - 5))  # round 3 lasts until client 3 is there again, or nearly so long
    deployment.stop(deployment.nodes["node-4"])
    experiment = Experiment(tmp_path, "faults", num_rounds=5, client_timeout=timeout)
    run_id = experiment.submit(deployment, app, behaviour=str(orders))
    time.sleep(3)
    assert experiment.rounds() < 1
    deployment.start_node("node-4", partition_id=4, num_partitions=5)  # late, before the start
    wait_until((orders / "3-2.begun").exists, "client 3 is at work", PATIENCE)
    deployment.kill(deployment.nodes["node-3"])
    wait_until((orders / "2-2.begun").exists, "client 2 is at work", PATIENCE)
    wait_until(lambda: experiment.rounds() >= 2, "round 2 ends", PATIENCE)
    deployment.stop(deployment.nodes["node-4"])
    deployment.start_node("another-key", partition_id=4, num_partitions=5)  # late, and somebody else
    deployment.restart(deployment.nodes["node-3"])  # with the same key
    (orders / "1-3.go").touch()
    run = deployment.wait_for(run_id, patience=PATIENCE)[run_id]
    assert run["status"] == "finished:completed", run
    records = experiment.folder.rounds()
    lost = [{entry["client_id"] for entry in record["quarantined"]} for record in records[1:]]
    assert lost[0] == set()
    assert lost[1] == {2, 3}
    assert lost[2] <= {2, 3, 4}  # client 2 may be at work on round 2 still, and somebody new is asked who he is first
    assert lost[4] == set()  # all are back
    assert all(entry["client_id"] in range(5) for record in records[1:] for entry in record["quarantined"])
    assert all(len(record["quarantined"]) == len(clients) for record, clients in zip(records[1:], lost, strict=True))
    assert records[2]["seconds"]["clients"] < timeout + 15
    assert all(record["kept_previous_model"] is None for record in records[1:])
    log = (experiment.folder.path / "run.log").read_text()
    assert log.count("round 2: 3 of 5 replies usable") == 1
    assert "partition 4: node" in log
