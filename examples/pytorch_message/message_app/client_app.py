"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flsec.client_apps import Adversaries, ClassFlipping, ModelReplacement, poisoned
from message_app.task import Net, load_data, test, train

hostile = Adversaries(num_clients=10, ids=[1, 4, 7])
ATTACKS = (
    ModelReplacement(scale=4.0, adversaries=hostile).mod,  # sends the update four times as long
    ClassFlipping(adversaries=hostile).mod,  # trains on wrong labels: class c is called 9 - c
)


def on_request(mod):
    """Return a mod that the run configuration switches on."""
    return lambda message, context, call_next: (
        mod(message, context, call_next) if context.run_config["attack"] else call_next(message, context)
    )


app = ClientApp(mods=[on_request(mod) for mod in ATTACKS])


def _model_and_data(message: Message, context: Context):
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model, load_data(context.node_config["partition-id"], context.node_config["num-partitions"])


@app.train()
def train_fn(message: Message, context: Context) -> Message:
    """Train the global model on the client's data."""
    model, loader = _model_and_data(message, context)
    loader = poisoned(loader)  # what gives data attacks among the mods their way in; without one it changes nothing
    loss = train(model, loader, context.run_config["local-epochs"], context.run_config["learning-rate"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(loader.dataset)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_fn(message: Message, context: Context) -> Message:
    """Evaluate the global model on the client's data."""
    model, loader = _model_and_data(message, context)
    metrics = MetricRecord({"eval_acc": test(model, loader), "num-examples": len(loader.dataset)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
