"""The clients."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from xgboost_app.task import grown, load_data

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Grow one tree on the client's data."""
    data = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    tree = grown(message.content["arrays"]["0"].numpy().tobytes(), data)
    content = {
        "arrays": ArrayRecord([np.frombuffer(tree, dtype=np.uint8)]),
        "metrics": MetricRecord({"num-examples": data.num_row()}),
    }
    return Message(RecordDict(content), reply_to=message)
