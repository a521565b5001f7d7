"""The server; guarded where the run configuration says ``defense = true``."""

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from best_model_app.strategy import BestModel
from best_model_app.task import initial_weights, test_accuracy
from flsec.strategies import GeometricMedian  # the first of the two lines

app = ServerApp()


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy of the global model on the server's test data."""
    return MetricRecord({"accuracy": test_accuracy({name: array.numpy() for name, array in arrays.items()})})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    strategy = BestModel()
    if context.run_config["defense"]:
        strategy = GeometricMedian(strategy)  # the second
    if context.run_config["save-path"]:
        strategy.set_save_path(context.run_config["save-path"])
    initial = ArrayRecord({name: Array(array) for name, array in initial_weights().items()})
    num_rounds = context.run_config["num-server-rounds"]
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=num_rounds, evaluate_fn=evaluate)
    context.state["result"] = result.evaluate_metrics_serverapp[num_rounds]
    print(f"accuracy: {context.state['result']['accuracy']:.3f}, the best {strategy.best_accuracy:.3f}")
