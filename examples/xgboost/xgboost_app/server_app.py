"""The server. With ``defense = true`` it stops before the first round: flsec refuses trees."""

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging

from flsec.strategies import MultiKrum  # the first of the two lines

app = ServerApp()


def new_strategy(num_clients: int, defense: bool) -> FedXgbBagging:
    """Return the strategy; it needs no xgboost, nor does the refusal.

    Raises:
        flsec.errors.ConfigError: ``defense`` is true.
    """
    strategy = FedXgbBagging(fraction_evaluate=0.0, min_train_nodes=num_clients, min_available_nodes=num_clients)
    if defense:
        strategy = MultiKrum(strategy, num_byzantine=3)  # the second
    return strategy


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    num_clients, num_rounds = context.run_config["num-clients"], context.run_config["num-server-rounds"]
    strategy = new_strategy(num_clients, context.run_config["defense"])
    from xgboost_app.task import accuracy  # so that the refusal comes first, also where there is no xgboost

    no_tree = ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])
    result = strategy.start(grid=grid, initial_arrays=no_tree, num_rounds=num_rounds)
    context.state["result"] = MetricRecord({"accuracy": accuracy(result.arrays["0"].numpy().tobytes())})
    print(f"accuracy: {context.state['result']['accuracy']:.3f}")
