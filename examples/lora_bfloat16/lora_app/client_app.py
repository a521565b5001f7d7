"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flsec.client_apps import Adversaries, SignFlipping
from lora_app.task import get_adapters, load_data, new_model, set_adapters, train

sign_flipping = SignFlipping(scale=4.0, adversaries=Adversaries(num_clients=10, ids=[1, 4, 7]))


def attack(message: Message, context: Context, call_next) -> Message:
    """The attack's mod, which a run configuration can switch on."""
    mod = sign_flipping.mod if context.run_config["attack"] else None
    return mod(message, context, call_next) if mod else call_next(message, context)


app = ClientApp(mods=[attack])


@app.train()
def train_fn(message: Message, context: Context) -> Message:
    """Train the adapters on the client's data."""
    model = new_model()
    set_adapters(model, message.content["arrays"])
    x, y = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    train(model, x, y, context.run_config["local-epochs"], context.run_config["learning-rate"])
    content = {"arrays": get_adapters(model), "metrics": MetricRecord({"num-examples": len(y)})}
    return Message(RecordDict(content), reply_to=message)
