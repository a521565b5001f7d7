"""The clients; three of the ten are hostile where the run configuration says ``attack = true``."""

import warnings

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.exceptions import ConvergenceWarning

from flsec.client_apps import Adversaries, ClassFlipping, ModelReplacement, poisoned
from sklearn_app.task import load_data, model_with

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


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on the client's data."""
    model = model_with(message.content["arrays"].to_numpy_ndarrays(), context.run_config["local-iterations"])
    data = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    x, y = poisoned(data)  # what gives data attacks among the mods their way in; without one it changes nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations a round are what we want
        model.fit(x, y)
    content = {
        "arrays": ArrayRecord([model.coef_, model.intercept_]),
        "metrics": MetricRecord({"num-examples": len(y)}),
    }
    return Message(RecordDict(content), reply_to=message)
