"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from best_model_app.task import load_data, train
from flsec.client_apps import Adversaries, GaussianAttack

noise = GaussianAttack(std=3.0, adversaries=Adversaries(num_clients=10, ids=[1, 4, 7]))


def attack(message: Message, context: Context, call_next) -> Message:
    """The attack's mod, which a run configuration can switch on."""
    return noise.mod(message, context, call_next) if context.run_config["attack"] else call_next(message, context)


app = ClientApp()


@app.train(mods=[attack])
def train_fn(message: Message, context: Context) -> Message:
    """Train the global model on the client's data."""
    weights = {name: array.numpy() for name, array in message.content["model"].items()}
    x, y = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    weights = train(weights, x, y, context.run_config["local-epochs"], context.run_config["learning-rate"])
    content = {
        "model": ArrayRecord({name: Array(array) for name, array in weights.items()}),
        "counts": MetricRecord({"num-examples": len(y)}),
    }
    return Message(RecordDict(content), reply_to=message)
