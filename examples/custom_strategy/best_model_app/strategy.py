"""A strategy that derives from Flower's Strategy itself and has a start() of its own, which saves the best model."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy


class BestModel(Strategy):
    """Average what the clients send, and keep the model with the highest accuracy on the server's data."""

    def __init__(self) -> None:
        self.save_path: Path | None = None
        self.best_accuracy = -1.0

    def set_save_path(self, path: str) -> None:
        """Say where the best model goes."""
        self.save_path = Path(path)

    def summary(self) -> None:
        """Say what this is."""
        print(f"the best model goes to {self.save_path}")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask everybody to train."""
        content = RecordDict({"model": arrays, "config": ConfigRecord({**config, "server-round": server_round})})
        return [Message(content, node_id, MessageType.TRAIN) for node_id in sorted(grid.get_node_ids())]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the plain mean of the models."""
        models = [reply.content["model"] for reply in replies if reply.has_content()]
        if not models:
            return None, None
        mean = {name: np.mean([model[name].numpy() for model in models], axis=0) for name in models[0]}
        return ArrayRecord({name: Array(array) for name, array in mean.items()}), MetricRecord({"models": len(models)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nobody: the server has data of its own."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing, as nobody was asked."""
        return None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Train, evaluate after each round, and save the model whenever it is the best so far."""
        self.summary()
        result = Result(arrays=initial_arrays)
        for server_round in range(1, num_rounds + 1):
            messages = self.configure_train(server_round, result.arrays, train_config or ConfigRecord(), grid)
            replies = grid.send_and_receive(messages, timeout=timeout)
            arrays, metrics = self.aggregate_train(server_round, replies)
            result.arrays = arrays or result.arrays
            result.train_metrics_clientapp[server_round] = metrics or MetricRecord()
            if evaluate_fn is not None:
                evaluated = evaluate_fn(server_round, result.arrays)
                result.evaluate_metrics_serverapp[server_round] = evaluated
                self._save_if_best(result.arrays, evaluated["accuracy"])
        return result

    def _save_if_best(self, arrays: ArrayRecord, accuracy: float) -> None:
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            if self.save_path is not None:
                np.savez(self.save_path, accuracy=accuracy, **{name: a.numpy() for name, a in arrays.items()})
