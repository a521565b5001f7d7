"""The server; guarded where the run configuration says ``defense = true``."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flsec.strategies import Median  # the first of the two lines
from sklearn_app.task import initial_parameters, load_test_data, model_with

app = ServerApp()


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy of the global model on the server's test data."""
    return MetricRecord({"accuracy": model_with(arrays.to_numpy_ndarrays()).score(*load_test_data())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    num_clients, num_rounds = context.run_config["num-clients"], context.run_config["num-server-rounds"]
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=num_clients, min_available_nodes=num_clients)
    if context.run_config["defense"]:
        strategy = Median(strategy)  # the second
    initial = ArrayRecord(initial_parameters())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=num_rounds, evaluate_fn=evaluate)
    context.state["result"] = result.evaluate_metrics_serverapp[num_rounds]
    print(f"accuracy: {context.state['result']['accuracy']:.3f}")
