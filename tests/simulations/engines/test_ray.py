"""How many workers fit where, GPU shares without a GPU, and a cluster of two nodes."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from ray.cluster_utils import Cluster

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.engines import ray_cluster
from flsec.simulations.engines.pooled import PooledGrid

EXPERIMENT = """
data: {name: digits}
model: {name: mlp, hidden: [8]}
training: {learning_rate: 0.1}
simulation: {num_clients: 4, num_rounds: 2, engine: pooled}
output: {plots: false}
"""


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers"),
    [
        ([node(CPU=2)], 1, 0, 2),
        ([node(CPU=1)], 0.1, 0, 10),  # 1 / 0.1 is 10, whatever binary fractions say
        ([node(CPU=16, GPU=1)], 0.5, 0.05, 20),
        ([node(CPU=16, GPU=2)], 1, 0.25, 8),
        ([node(CPU=4, GPU=1)], 1, 0.05, 4),  # CPUs are the bottleneck
        ([node(CPU=8, GPU=2)], 1, 0.4, 4),  # not 5: no worker has 0.2 of one GPU and 0.2 of another
        ([node(CPU=8, GPU=2)], 1, 2, 1),
        ([node(CPU=8, GPU=1)], 1, 2, 0),
        ([node(CPU=8)], 1, 0.1, 0),
        ([node(CPU=1.5), node(CPU=1.5)], 1, 0, 2),  # not 3
        ([node(CPU=4), node(alive=False, CPU=4), node()], 1, 0, 4),
    ],
)
def test_no_worker_spans_two_nodes_or_shares_of_two_gpus(
    nodes: list[dict[str, Any]], cpus: float, gpus: float, workers: int
) -> None:
    assert ray_cluster.workers_that_fit(nodes, cpus, gpus) == workers


@pytest.fixture
def _no_ray_left() -> Any:
    yield
    ray.shutdown()


def where_am_i() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        runtime: Any = ray.get_runtime_context()
        own = MetricRecord({"node": int(runtime.get_node_id()[:8], 16), "gpus": len(ray.get_gpu_ids())})
        return Message(RecordDict({"metrics": own}), reply_to=message)

    return app


def ask(grid: PooledGrid, num_clients: int) -> list[Any]:
    messages = [Message(RecordDict(), client, "train") for client in range(num_clients)]
    return [reply.content["metrics"] for reply in grid.send_and_receive(messages, timeout=60)]


@pytest.mark.usefixtures("_no_ray_left")
def test_clients_share_a_gpu_by_fractions() -> None:
    grid = PooledGrid(where_am_i(), 8, num_cpus=0.5, num_gpus=0.34, init_args={"num_cpus": 2, "num_gpus": 1})
    try:
        assert grid.num_workers == 2
        assert [metrics["gpus"] for metrics in ask(grid, 8)] == [1] * 8
    finally:
        grid.close()
    assert not ray.is_initialized()


def test_an_address_at_which_nobody_answers_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(EXPERIMENT)
    config = load_config(file, [f"output.folder={tmp_path}", "simulation.ray_address=auto"])
    with pytest.raises(ConfigError, match=r"ray_address: no Ray cluster can be joined at 'auto'.*ray start --head"):
        engine.run(config)


def test_settings_of_a_new_ray_do_not_go_with_a_cluster() -> None:
    with pytest.raises(ConfigError, match=r"init_args.num_cpus: a cluster .* has its own; got 2. Leave it out"):
        ray_cluster.connect({"num_cpus": 2}, "auto")


def figures(folder: Path) -> list[Any]:
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [(record["round"], record["loss"], record["accuracy"], record.get("sampled")) for record in records]


@pytest.mark.slow
@pytest.mark.usefixtures("_no_ray_left")
def test_a_cluster_of_two_nodes_works_on_both_and_gives_the_same_numbers(tmp_path: Path) -> None:
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        grid = PooledGrid(where_am_i(), 8, address=cluster.address)
        assert grid.num_workers == 2
        assert len({metrics["node"] for metrics in ask(grid, 8)}) == 2
        grid.close()
        file = tmp_path / "cluster.yaml"
        file.write_text(EXPERIMENT)

        def go(name: str, *settings: str) -> list[Any]:
            return figures(engine.run(load_config(file, [f"output.folder={tmp_path / name}", *settings])).path)

        reference = go("inprocess", "simulation.engine=inprocess")
        joined = f"simulation.ray_address={cluster.address}"
        assert go("pooled", joined) == reference
        assert go("flower", joined, "simulation.engine=flower") == reference
    finally:
        ray.shutdown()
        cluster.shutdown()
