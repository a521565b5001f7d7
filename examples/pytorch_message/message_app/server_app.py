"""The server; guarded where the run configuration says ``defense = true``."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flsec.strategies import MultiKrum  # the first of the two lines
from message_app.task import Net, load_test_data, test

app = ServerApp()


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy of the global model on the server's test data."""
    model = Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"accuracy": test(model, load_test_data())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    num_clients, num_rounds = context.run_config["num-clients"], context.run_config["num-server-rounds"]
    torch.manual_seed(0)
    initial = ArrayRecord(Net().state_dict())
    strategy = FedAvg(min_train_nodes=num_clients, min_available_nodes=num_clients)
    if context.run_config["defense"]:
        strategy = MultiKrum(strategy, num_byzantine=3)  # the second
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=num_rounds, evaluate_fn=evaluate)
    context.state["result"] = result.evaluate_metrics_serverapp[num_rounds]
    print(f"accuracy: {context.state['result']['accuracy']:.3f}")
