"""Which partition a client has, said by itself when the server asks."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

__all__ = ["tells_partition"]

ACTION = "flsec_partition"
QUESTION = f"query.{ACTION}"  # the type of the message that asks
SAID = "partition"  # the record of the answer
KEYS = ("partition-id", "num-partitions")  # of Flower's node_config, and of that record


def answer(message: Message, context: Context) -> Message:
    """Return what this client's ``node_config`` says of its partition."""
    said = {key: context.node_config[key] for key in KEYS if key in context.node_config}
    return Message(RecordDict({SAID: ConfigRecord(dict(said))}), reply_to=message)


class _Telling(ClientApp):
    def __init__(self, app: ClientApp):
        super().__init__()
        self._app = app

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == QUESTION:
            return answer(message, context)
        return self._app(message, context)


def tells_partition(app: ClientApp) -> ClientApp:
    """Return a ClientApp that also answers ``flsec.strategies.partition_ids``, which asks clients for their partition.

    It says what the operator of its SuperNode has written: ``--node-config "partition-id=3 num-partitions=10"``. Apps
    made by ``numpy_client_app`` answer by themselves.

    Args:
        app: of either Flower API.

    Example:
        >>> from flwr.app import Context, Message, RecordDict
        >>> from flwr.clientapp import ClientApp
        >>> from flsec.simulations.engines.grid import InProcessGrid
        >>> from flsec.strategies import partition_ids
        >>> partition_ids(InProcessGrid(tells_partition(ClientApp()), num_clients=3))
        {0: 0, 1: 1, 2: 2}
    """
    return _Telling(app)
