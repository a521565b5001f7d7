"""The server."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from defended_app.task import Net, load_test_data, test
from flsec.strategies import MultiKrum

app = ServerApp()


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy of the global model on the server's test data."""
    model = Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"accuracy": test(model, *load_test_data())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    strategy = FedAvg(min_train_nodes=config["num-clients"], min_available_nodes=config["num-clients"])
    if config["num-byzantine"]:
        strategy = MultiKrum(strategy, num_byzantine=config["num-byzantine"])
    torch.manual_seed(0)
    start = ArrayRecord(Net().state_dict())
    rounds = config["num-server-rounds"]
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds, evaluate_fn=evaluate)
    context.state["result"] = result.evaluate_metrics_serverapp[rounds]
    print(f"accuracy: {context.state['result']['accuracy']:.3f}")
