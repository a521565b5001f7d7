"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

from flwr.app import Context
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp

from classic_app.task import Net, get_parameters, load_data, set_parameters, test, train
from flsec.client_apps import SignFlipping

HOSTILE = (1, 4, 7)


class DigitsClient(NumPyClient):
    """An honest client."""

    def __init__(self, partition_id: int, num_partitions: int, epochs: int, learning_rate: float) -> None:
        self.model = Net()
        self.trainset = load_data(partition_id, num_partitions)
        self.epochs, self.learning_rate = epochs, learning_rate

    def fit(self, parameters, config):
        """Train the global model on the client's data."""
        set_parameters(self.model, parameters)
        train(self.model, self.trainset, self.epochs, self.learning_rate)
        return get_parameters(self.model), len(self.trainset.dataset), {}

    def evaluate(self, parameters, config):
        """Evaluate the global model on the client's data."""
        set_parameters(self.model, parameters)
        loss, accuracy = test(self.model, self.trainset)
        return loss, len(self.trainset.dataset), {"accuracy": accuracy}


@SignFlipping(scale=4.0)
class HostileClient(DigitsClient):
    """The same client, which sends its update reversed and four times as long."""


def client_fn(context: Context) -> Client:
    """Return the client of a node."""
    partition_id, num_partitions = context.node_config["partition-id"], context.node_config["num-partitions"]
    kind = HostileClient if context.run_config["attack"] and partition_id in HOSTILE else DigitsClient
    run_config = context.run_config
    return kind(partition_id, num_partitions, run_config["local-epochs"], run_config["learning-rate"]).to_client()


app = ClientApp(client_fn)
