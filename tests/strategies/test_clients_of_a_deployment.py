"""What needs the truth about clients, or all of them in one place, says so where they are SuperNodes."""

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.server import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg

from flsec._contracts.server import MODEL, ClassicServer, flower_strategy, honest, identify, npy_bytes
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import ALIE, numpy_client_app, tells_partition
from flsec.errors import ConfigError
from flsec.simulations.engines.grid import InProcessGrid
from flsec.strategies import Adversary, DefenseState, Median, OracleSGD, partition_ids
from tests.support.deployed import IDS, Deployed, deployed, echo

N = 4
ARRAYS = ArrayRecord({name: Array(value) for name, value in MODEL.items()})


@pytest.fixture(autouse=True)
def _identified() -> None:
    identify()


def message_api(wrap, grid) -> None:
    strategy = wrap(FedAvg(min_train_nodes=N, min_available_nodes=N))
    strategy.configure_train(1, ARRAYS, ConfigRecord(), grid)


def manager_of(grid: Deployed) -> SimpleClientManager:
    manager = SimpleClientManager()
    for node_id in grid.nodes:
        manager.register(GridClientProxy(node_id, grid, run_id=1))
    return manager


def classic_api(wrap, grid) -> None:
    from flwr.common import Parameters

    strategy = wrap(ClassicFedAvg(min_fit_clients=N, min_available_clients=N))
    parameters = Parameters([npy_bytes(array) for array in MODEL.values()], "numpy.ndarray")
    strategy.configure_fit(server_round=1, parameters=parameters, client_manager=manager_of(grid))


both = pytest.mark.parametrize("configure", [message_api, classic_api])


def colluding(num_clients: int) -> ALIE:
    return ALIE(adversaries=Adversaries(num_clients=num_clients, ids=[1]))


@both
@pytest.mark.parametrize("num_clients", [N, 2**64])  # whether or not it knows the nodes
def test_adversary_is_refused_where_clients_are_supernodes(configure, num_clients: int, tmp_path) -> None:
    attacks = [colluding(num_clients)]
    with pytest.raises(ConfigError, match=r"Adversary: ALIE needs .* these clients are SuperNodes\. Leave it out"):
        configure(lambda base: Adversary(Median(base), attacks=attacks), deployed(0, 1, 2, 3))
    with pytest.raises(ConfigError, match="these clients are SuperNodes"):  # also inside what may stand around it
        configure(lambda base: DefenseState(Adversary(base, attacks=attacks), path=tmp_path), deployed(0, 1, 2, 3))


def test_adversary_is_refused_where_it_does_not_know_the_clients() -> None:
    strategy = Adversary(flower_strategy("classic", "FedAvg", N), attacks=[colluding(N)])
    with pytest.raises(ConfigError, match="whether client 4 attacks is not known; Flower's node ids are no partition"):
        ClassicServer(strategy, range(N + 1)).play([1], honest)


@both
def test_the_oracle_is_refused_where_it_does_not_know_the_clients(configure) -> None:
    adversaries = Adversaries(num_clients=N, ids=[1])
    with pytest.raises(ConfigError, match=rf"OracleSGD: .* so whether client {min(IDS[:N])} attacks is not known"):
        configure(lambda base: OracleSGD(base, adversaries=adversaries), deployed(0, 1, 2, 3))


@both
def test_the_oracle_knows_nodes_by_what_they_say(configure) -> None:
    grid = deployed(2, 0, 3, 1)
    known = partition_ids(grid)
    hostile = [node_id for node_id, partition in known.items() if partition in (1, 2)]
    assert sorted(hostile) == sorted([IDS[0], IDS[3]])
    adversaries = Adversaries(num_clients=2**64, ids=hostile)
    configure(lambda base: OracleSGD(base, adversaries=adversaries), grid)


def test_a_client_manager_is_asked_like_a_grid() -> None:
    grid = deployed(2, 0, 3, 1)
    assert partition_ids(manager_of(grid)) == partition_ids(grid) == dict(zip(IDS, (2, 0, 3, 1), strict=False))
    with pytest.raises(ConfigError, match="the client manager knows no client that a grid reaches"):
        partition_ids(SimpleClientManager())
    with pytest.raises(ConfigError, match="no node is connected"):
        partition_ids(Deployed())


def test_an_app_that_cannot_answer_is_said() -> None:
    from flwr.clientapp import ClientApp

    grid = deployed(0, 1, 2, 3)
    for node in grid.nodes.values():
        node.client = ClientApp()
    with pytest.raises(ConfigError, match="gave no answer"):
        partition_ids(grid)
    with pytest.raises(ConfigError, match="num_partitions"):
        partition_ids(grid, num_partitions=0)


def test_both_kinds_of_apps_answer_and_still_train() -> None:
    def client_fn(context):
        raise AssertionError("who is asked for its partition builds no client")

    for app in (numpy_client_app(client_fn), tells_partition(echo())):
        assert partition_ids(InProcessGrid(app, 3)) == {0: 0, 1: 1, 2: 2}
    grid = deployed(0, 1)
    from flwr.app import Message

    replies = list(grid.send_and_receive([Message(RecordDict(), node_id, "train") for node_id in grid.nodes]))
    assert not any(reply.has_error() for reply in replies)
