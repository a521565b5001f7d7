"""Real runs on Flower's Ray engine: few, small, and shut down after each."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp as ClassicServerApp
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from flsec.simulations.config import load_config
from flsec.simulations.engine import resume, run
from flsec.strategies import RobustStrategy
from tests.support import faulty

START = [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)]
BACKEND = {
    "init_args": {"include_dashboard": False, "num_cpus": 2},
    "client_resources": {"num_cpus": 1, "num_gpus": 0.0, "max_restarts": -1},
}
EXPECTED_REASONS = {
    "nan": "NaN or infinity",
    "inf": "NaN or infinity",
    "wrong_shape": "has shape",
    "broadcastable_shape": "has shape",
    "integers": "has dtype",
    "complex": "has dtype",
    "strings": "has dtype",
    "missing_array": "1 arrays where the model has 2",
    "extra_array": "3 arrays where the model has 2",
    "empty_list": "0 arrays where the model has 2",
    "zero_examples": "num_examples",
    "negative_examples": "num_examples",
    "absurd_examples": "num_examples",
}


@pytest.fixture(autouse=True)
def _shut_down_ray() -> Any:
    yield
    ray.shutdown()


class Recording(RobustStrategy):
    """Keep every round's report and the order in which node ids took part."""

    def __init__(self, strategy: Any) -> None:
        super().__init__(strategy)
        self.reports: list[Any] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        out = super().aggregate_fit(server_round, results, failures)
        self.reports.append(self.last_report)
        return out

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        out = super().aggregate_train(server_round, replies)
        self.reports.append(self.last_report)
        return out


def check_reports(reports: list[Any]) -> None:
    """All K clients in round 1; every faulty one named with its reason in round 2; all back in round 3."""
    assert [len(report.quarantined) for report in reports] == [0, len(faulty.FAULTS), 0]
    assert [len(report.verdicts[0].participants) for report in reports] == [
        faulty.NUM_CLIENTS,
        faulty.HONEST,
        faulty.NUM_CLIENTS,
    ]
    assert len({entry.client_id for entry in reports[1].quarantined}) == len(faulty.FAULTS)
    reasons = [entry.reason for entry in reports[1].quarantined]
    for fault, words in EXPECTED_REASONS.items():
        assert any(words in reason for reason in reasons), (fault, reasons)


def test_no_hostile_reply_stops_a_classic_run_or_moves_its_model() -> None:
    final: list[Any] = []
    inner = ClassicFedAvg(
        min_fit_clients=faulty.NUM_CLIENTS,
        min_available_clients=faulty.NUM_CLIENTS,
        fraction_evaluate=0.0,
        initial_parameters=ndarrays_to_parameters(START),
        evaluate_fn=lambda round_, arrays, config: final.append(arrays),
    )
    strategy = Recording(inner)
    server = ClassicServerApp(
        server_fn=lambda context: ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))
    )
    run_simulation(server, faulty.classic_app, faulty.NUM_CLIENTS, backend_config=BACKEND)
    check_reports(strategy.reports)
    for array, start in zip(final[-1], START, strict=True):
        np.testing.assert_allclose(array, start + 3 * faulty.STEP, rtol=1e-6)  # Flower's mean rounds
        assert array.dtype == start.dtype


def test_no_hostile_reply_stops_a_message_run_and_silence_costs_its_own_timeout() -> None:
    patience = {1: 120.0, 2: 5.0, 3: 120.0}
    seconds: dict[int, float] = {}
    final: list[Any] = []
    everybody = faulty.NUM_CLIENTS
    strategy = Recording(FedAvg(min_train_nodes=everybody, min_available_nodes=everybody))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(START)
        for round_, timeout in patience.items():
            started = time.monotonic()
            messages = strategy.configure_train(round_, arrays, ConfigRecord(), grid)
            replies = grid.send_and_receive(messages, timeout=timeout)
            seconds[round_] = time.monotonic() - started
            arrays, _ = strategy.aggregate_train(round_, replies)
        final.extend(arrays.to_numpy_ndarrays())

    run_simulation(server, faulty.message_app, everybody, backend_config=BACKEND)
    check_reports(strategy.reports)
    assert "sent no reply" in [entry.reason for entry in strategy.reports[1].quarantined]
    assert patience[2] <= seconds[2] < 60  # the round waited for the silent client, and then went on
    for array, start in zip(final, START, strict=True):
        np.testing.assert_allclose(array, start + 3 * faulty.STEP, rtol=1e-6)


def test_a_dead_worker_is_replaced() -> None:
    strategy = Recording(FedAvg(min_train_nodes=6, min_available_nodes=6, fraction_evaluate=0.0))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, ArrayRecord(START), num_rounds=5, timeout=60)

    run_simulation(server, faulty.dying_app, 6, backend_config=BACKEND)
    lost = [len(report.quarantined) for report in strategy.reports]
    assert 1 <= lost[0] < 6  # the one that died, and at most what its worker had in hand
    assert lost[-1] == 0  # Ray has brought the worker back, and with it everybody


EXPERIMENT = """
seed: 3
data: {name: digits, partition: {name: dirichlet, alpha: 1.0}}
model: {name: mlp, hidden: [16]}
training: {learning_rate: 0.1, momentum: 0.5, epochs: 1, batch_size: 16}
strategy: {name: fedadam, eta: 0.02}
defenses:
  - {name: ban_list, after: 1, within: 1, for_rounds: 2}
  - {name: three_sigma}
  - {name: centered_clipping, radius: 1.0}
attacks: [{name: gaussian_attack, std: 0.1}]
adversaries: {count: 2, redraw: every_round}
simulation: {num_clients: 8, clients_per_round: 5, num_rounds: 4}
"""


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return a run's records without what depends on the clock."""
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds", None)
        record.pop("stages", None)
        for defense in record.get("defenses", []):
            defense.pop("seconds")
    return records


def test_engines_workers_and_resumption_agree_to_the_bit(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT)

    def go(name: str, *settings: str) -> Path:
        return run(load_config(file, [f"output.folder={tmp_path / name}", *settings])).path

    reference = go("inprocess", "simulation.engine=inprocess")
    one = go("one", "simulation.engine=flower", "simulation.init_args.num_cpus=1")
    two = go("two", "simulation.engine=flower", "simulation.init_args.num_cpus=2")
    pooled = go("pooled", "simulation.engine=pooled", "simulation.init_args.num_cpus=2")
    assert len(figures(reference)) == 5
    assert any(record["defenses"][0]["notes"].get("banned") for record in figures(reference)[1:3])
    for folder in (one, two, pooled):
        assert figures(folder) == figures(reference)
        assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    assert resume(two, from_round=2).path == two
    assert figures(two) == figures(reference)
    assert (two / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
