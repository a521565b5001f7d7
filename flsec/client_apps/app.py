"""A ClientApp of the Message API around a NumPyClient, so that attacks and clients are written once."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from flsec import _npy
from flsec.client_apps._around import as_array, checked_result, flower_context
from flsec.client_apps._mod import decorated_by_mods
from flsec.client_apps.base import ClientDecorator, no_mod
from flsec.client_apps.partition import ACTION, answer

__all__ = ["numpy_client_app"]


def numpy_client_app(client_fn: Callable[[Context], Any], mods: list[Any] | None = None) -> ClientApp:
    """Return a ClientApp for strategies of the Message API (``flwr.serverapp.strategy``).

    Flower's own ``ClientApp(client_fn)`` serves the classic API only.

    Args:
        client_fn: returns the client of a context: a ``NumPyClient``, or a ``Client`` made from one.
        mods: Flower mods; ``attack.mod`` for an attack, also for one that poisons data.

    Returns:
        An app that answers train and evaluate messages with one ArrayRecord ``arrays`` and one MetricRecord
        ``metrics``, in which ``num-examples`` is the client's count; and the question of ``partition_ids``.

    Raises:
        ConfigError: an attack itself among the mods, in place of its ``mod``.
        TypeError: in the client, whose reply is then an error: client_fn returned no NumPyClient, or the client
            something else than Flower's (parameters, num_examples, metrics).

    Example:
        >>> import numpy as np
        >>> from flwr.app import ArrayRecord
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.simulations.engines.grid import InProcessGrid
        >>> class Step(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1.0], 10, {}
        >>> grid = InProcessGrid(numpy_client_app(lambda context: Step()), num_clients=2)
        >>> result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(1)]), num_rounds=3)
        >>> result.arrays.to_numpy_ndarrays()
        [array([3.])]
    """
    for mod in mods or ():
        kind = mod if isinstance(mod, type) else type(mod)
        if issubclass(kind, ClientDecorator):
            raise no_mod(kind.__name__)
    app = ClientApp(mods=mods)

    def build(context: Context) -> NumPyClient:
        client = client_fn(context)
        client = getattr(client, "numpy_client", client)
        if not isinstance(client, NumPyClient):
            raise TypeError(f"client_fn must return a NumPyClient, or its to_client(); got {type(client).__name__}.")
        return decorated_by_mods(client)  # type: ignore[no-any-return]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record, config = _received(message)
        with flower_context(context):
            result = build(context).fit(_arrays(record), config)
        arrays, num_examples, metrics = checked_result(result, "fit")
        # More or fewer arrays than names is for the server to judge, so that it can say who sent them.
        names = [*record, *(f"extra-{i}" for i in range(len(record), len(arrays)))]
        content = RecordDict(
            {
                "arrays": ArrayRecord({name: as_array(array) for name, array in zip(names, arrays, strict=False)}),
                "metrics": _numbers({**metrics, "num-examples": num_examples}),
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        record, config = _received(message)
        with flower_context(context):
            result = build(context).evaluate(_arrays(record), config)
        loss, num_examples, metrics = checked_result(result, "evaluate")
        values = _numbers({**metrics, "loss": float(loss), "num-examples": num_examples})
        return Message(RecordDict({"metrics": values}), reply_to=message)

    app.query(ACTION)(answer)
    return app


def _arrays(record: ArrayRecord) -> list[NDArray[Any]]:
    """Return copies that the client may write to; as ``Array.numpy`` does, in a third of its time for small models."""
    if any(array.stype != "numpy.ndarray" for array in record.values()):
        return record.to_numpy_ndarrays()  # Flower says what is wrong
    return [np.array(_npy.read(array.data)) for array in record.values()]


def _received(message: Message) -> tuple[ArrayRecord, dict[str, Any]]:
    record = next(iter(message.content.array_records.values()), ArrayRecord())
    config: Any = next(iter(message.content.config_records.values()), {})
    return record, dict(config)


def _numbers(metrics: dict[str, Any]) -> MetricRecord:
    """Keep what a MetricRecord can hold: numbers and lists of numbers."""
    record = MetricRecord()
    for key, value in metrics.items():
        plain = value.item() if isinstance(value, np.generic) else value
        with contextlib.suppress(TypeError):
            record[key] = int(plain) if isinstance(plain, bool) else plain
    return record
