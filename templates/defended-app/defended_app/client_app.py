"""The clients."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from defended_app.task import Net, load_data, test, train
from flsec.client_apps import Adversaries, SignFlipping

app = ClientApp()


def attack(message, context, call_next):
    """Play the attacker on as many clients as the run configuration says; take it out where clients are real."""
    num_clients, count = context.run_config["num-clients"], context.run_config["num-attackers"]
    if count == 0:
        return call_next(message, context)
    adversaries = Adversaries(num_clients=num_clients, count=count)
    return SignFlipping(scale=4.0, adversaries=adversaries).mod(message, context, call_next)


@app.train(mods=[attack])
def train_fn(message: Message, context: Context) -> Message:
    """Train the global model on the client's data."""
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    number = context.node_config["partition-id"]
    images, labels = load_data(number, context.node_config["num-partitions"])
    loss = train(model, images, labels, context.run_config["learning-rate"], seed=number)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(labels)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_fn(message: Message, context: Context) -> Message:
    """Evaluate the global model on the client's data."""
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    images, labels = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    metrics = MetricRecord({"eval_acc": test(model, images, labels), "num-examples": len(labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
