"""Which node of a deployment has which partition, as the nodes say themselves."""

from flwr.server.client_manager import ClientManager
from flwr.serverapp import Grid

from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount, check_parameters
from flsec.strategies._partitions import Claim, conflicts_among, question, read_claim, refusal

__all__ = ["partition_ids"]


def partition_ids(
    nodes: Grid | ClientManager, *, num_partitions: PositiveCount | None = None, timeout: Positive = 60.0
) -> dict[int, int]:
    """Ask every connected node which partition it has; return {node id: partition id}.

    Flower's node ids, by which strategies know clients, are random numbers; which data a node has is known to its
    SuperNode alone, whose operator writes ``--node-config "partition-id=3 num-partitions=10"``. With this mapping,
    values that were written down by partition are found by node, such as ``client_samples`` of ``DiverseFL``::

        ids = partition_ids(grid)
        strategy = DiverseFL(FedAvg(), client_samples={node: samples[part] for node, part in ids.items()}, ...)

    A node says what it likes: ``node_config`` is its operator's, and the client process its owner's. Who lies about its
    partition is found out where two say the same, or one says what cannot be; and whoever it says it is, its verdicts
    stand under its node id, which with SuperNode authentication belongs to its key.

    Args:
        nodes: Flower's grid, or in the classic API the client manager; wait until all nodes are connected.
        num_partitions: how many there must be; None: as many as nodes are connected.
        timeout: seconds to wait for the answers.

    Raises:
        ConfigError: nodes that did not answer, or do not say one partition each, 0 to ``num_partitions`` - 1; all
            of them are listed. The client's app must answer: those of ``numpy_client_app`` do, any other does with
            ``tells_partition(app)``.

    Example:
        >>> from flwr.clientapp import ClientApp
        >>> from flsec.client_apps import tells_partition
        >>> from flsec.simulations.engines.grid import InProcessGrid
        >>> partition_ids(InProcessGrid(tells_partition(ClientApp()), num_clients=2))
        {0: 0, 1: 1}
    """
    check_parameters(partition_ids, {"num_partitions": num_partitions, "timeout": timeout}, name="partition_ids")
    grid, node_ids = _grid_and_ids(nodes)
    claims = {node_id: Claim(failure=f"none within {timeout:g} s") for node_id in node_ids}
    messages = [question(node_id) for node_id in node_ids]
    replies = grid.send_and_receive(messages, timeout=timeout)
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    for reply in replies:
        node_id = asked.get(reply.metadata.reply_to_message_id)
        if node_id is not None:
            claims[node_id] = read_claim(reply)
    problems = conflicts_among(claims, num_partitions or len(claims))
    if problems:
        raise refusal(problems, claims, num_partitions or len(claims))
    return {node_id: claim.partition_id for node_id, claim in claims.items()}


def _grid_and_ids(nodes: Grid | ClientManager) -> tuple[Grid, list[int]]:
    if isinstance(nodes, Grid):
        node_ids = sorted(nodes.get_node_ids())
        if not node_ids:
            raise ConfigError("partition_ids: no node is connected; wait until all are there.", parameter="nodes")
        return nodes, node_ids
    proxies = list(nodes.all().values())
    grid = next((getattr(proxy, "grid", None) for proxy in proxies), None)
    if not isinstance(grid, Grid):
        raise ConfigError(
            "partition_ids: the client manager knows no client that a grid reaches; wait until all are connected, for "
            "example with client_manager.wait_for(num_clients).",
            parameter="nodes",
        )
    return grid, sorted(int(proxy.cid) for proxy in proxies)
