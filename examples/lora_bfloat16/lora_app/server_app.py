"""The server; guarded where the run configuration says ``defense = true``."""

from collections.abc import Iterable

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flsec.strategies import Median  # the first of the two lines
from lora_app.task import as_tensor, get_adapters, load_test_data, new_model, set_adapters, test

app = ServerApp()


class Bfloat16FedAvg(FedAvg):
    """Flower's FedAvg cannot add raw arrays; this one reads them as bfloat16 and writes the mean as it came."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average in float32."""
        replies = list(replies)
        for reply in replies:
            if reply.has_content():
                sent = reply.content["arrays"]
                reply.content["arrays"] = ArrayRecord({n: Array(as_tensor(a).float().numpy()) for n, a in sent.items()})
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None:
            rounded = {name: torch.from_numpy(a.numpy()).bfloat16().view(torch.int16) for name, a in arrays.items()}
            arrays = ArrayRecord({name: Array(value.numpy().view("V2")) for name, value in rounded.items()})
        return arrays, metrics


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the accuracy of the frozen network with these adapters on the server's test data."""
    model = new_model()
    set_adapters(model, arrays)
    return MetricRecord({"accuracy": test(model, *load_test_data())})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    num_clients, num_rounds = context.run_config["num-clients"], context.run_config["num-server-rounds"]
    strategy = Bfloat16FedAvg(fraction_evaluate=0.0, min_train_nodes=num_clients, min_available_nodes=num_clients)
    if context.run_config["defense"]:
        strategy = Median(strategy)  # the second
    initial = get_adapters(new_model())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=num_rounds, evaluate_fn=evaluate)
    context.state["result"] = result.evaluate_metrics_serverapp[num_rounds]
    print(f"accuracy: {context.state['result']['accuracy']:.3f}")
