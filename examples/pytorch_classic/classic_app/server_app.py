"""The server; guarded where the run configuration says ``defense = true``."""

import torch
from flwr.app import Context, MetricRecord
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

from classic_app.task import Net, get_parameters, load_test_data, set_parameters, test
from flsec.strategies import TrimmedMean  # the first of the two lines


def mean_accuracy(metrics):
    """Return the clients' mean accuracy."""
    total = sum(num_examples for num_examples, _ in metrics)
    return {"accuracy": sum(num_examples * values["accuracy"] for num_examples, values in metrics) / total}


def server_fn(context: Context) -> ServerAppComponents:
    """Return the strategy and the number of rounds."""
    num_clients, num_rounds = context.run_config["num-clients"], context.run_config["num-server-rounds"]

    def evaluate(server_round, parameters, config):
        model = Net()
        set_parameters(model, parameters)
        loss, accuracy = test(model, load_test_data())
        context.state["result"] = MetricRecord({"accuracy": accuracy})
        print(f"accuracy: {accuracy:.3f}")
        return loss, {"accuracy": accuracy}

    torch.manual_seed(0)
    strategy = FedAvg(
        min_fit_clients=num_clients,
        min_available_clients=num_clients,
        initial_parameters=ndarrays_to_parameters(get_parameters(Net())),
        evaluate_fn=evaluate,
        evaluate_metrics_aggregation_fn=mean_accuracy,
    )
    if context.run_config["defense"]:
        strategy = TrimmedMean(strategy, num_trimmed=3)  # the second
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=num_rounds))


app = ServerApp(server_fn=server_fn)
