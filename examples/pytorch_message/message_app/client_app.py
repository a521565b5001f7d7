"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flsec.client_apps import Adversaries, SignFlipping
from message_app.task import Net, load_data, test, train

sign_flipping = SignFlipping(scale=4.0, adversaries=Adversaries(num_clients=10, ids=[1, 4, 7]))


def attack(message: Message, context: Context, call_next) -> Message:
    """The attack's mod, which a run configuration can switch on."""
    mod = sign_flipping.mod if context.run_config["attack"] else None
    return mod(message, context, call_next) if mod else call_next(message, context)


app = ClientApp(mods=[attack])


def _model_and_data(message: Message, context: Context):
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model, load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def train_fn(message: Message, context: Context) -> Message:
    """Train the global model on the client's data."""
    model, loader = _model_and_data(message, context)
    loss = train(model, loader, context.run_config["local-epochs"], context.run_config["learning-rate"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(loader.dataset)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_fn(message: Message, context: Context) -> Message:
    """Evaluate the global model on the client's data."""
    model, loader = _model_and_data(message, context)
    metrics = MetricRecord({"eval_acc": test(model, loader), "num-examples": len(loader.dataset)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
