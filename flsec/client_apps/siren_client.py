"""SIREN on a client: a watch on the global model by the client's own last one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from flsec.aggregation._siren_keys import ALARM, ALARM_RULE, CLIENT_TOLERANCE, HELD_OUT, AlarmRule
from flsec.aggregation.siren_alarm import siren_alarm
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._data_attribute import DataAttribute
from flsec.client_apps.client_half import ClientHalf
from flsec.client_apps.client_state import ClientState
from flsec.errors import ConfigError
from flsec.parameters import Fraction, OpenFraction

__all__ = ["SirenClient", "siren_client"]

AccuracyFunction = Callable[[Any, NDArrays, Any, Any], float]


class SirenClient(ClientHalf):
    """Compare the global model with the client's own last one on held-out data; alarm, and train the better one.

    The first part of the training data is held out and never trained on. If the global model is less accurate there
    than what this client uploaded last time (before any attack around it), the client raises the alarm ``siren-alarm``
    in its metrics and goes on training its own model instead of the global one. A client's first round has no alarm.

    The client must be able to say how accurate a model is: by a method ``accuracy(parameters, x, y)``, which
    ``TorchClient`` has, or by ``accuracy_fn``. Its last model is kept as ``ClientState`` says: one model a client.

    Args:
        held_out: share of the training data that is held out, at least one example. A client with a single example
            holds out nothing and never alarms.
        client_tolerance: C_c, by which the own model must be better, see ``alarm_rule``; 0.04 in the paper.
        alarm_rule: ``"tolerance"``, ``"paper"`` or ``"relative"``; see ``flsec.aggregation.siren_alarm``.
        accuracy_fn: (client, parameters, x, y) to the accuracy in [0, 1], for clients without such a method.
        options: see ``ClientHalf``.

    What the ``Siren`` wrapper sends with each round takes the place of ``held_out``, ``client_tolerance`` and
    ``alarm_rule``.

    Example:
        >>> from flwr.client import NumPyClient
        >>> @SirenClient(accuracy_fn=lambda client, parameters, x, y: float(parameters[0].mean()))
        ... class Client(NumPyClient):
        ...     trainset = (np.zeros((20, 3)), np.zeros(20))
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 0.1], len(self.trainset[1]), {}
        >>> client = Client()
        >>> client.fit([np.array([0.5])], {"server-round": 1})  # two of twenty are held out
        ([array([0.6])], 18, {'siren-alarm': 0})
        >>> client.fit([np.array([0.1])], {"server-round": 2})  # 0.1 is worse than 0.6: go on from there
        ([array([0.7])], 18, {'siren-alarm': 1})

    Source: SIREN, Sec. 4.2 and Algorithm 1; the first tenth is held out in the released program.
    """

    def __init__(
        self,
        *,
        held_out: OpenFraction = 0.1,
        client_tolerance: Fraction = 0.04,
        alarm_rule: AlarmRule = "tolerance",
        accuracy_fn: AccuracyFunction | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.held_out = held_out
        self.client_tolerance = client_tolerance
        self.alarm_rule = alarm_rule
        self.accuracy_fn = accuracy_fn

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Test the global model, then train it or the client's own."""
        name = type(self).__name__
        data = self.training_data(client)
        share = float(config.get(HELD_OUT, self.held_out))
        state = ClientState(client, config)
        own = state.load("siren")
        count = _held_out_count(len(data), share)
        alarm = False
        if own is not None and count > 0:
            alarm = self._alarm(client, parameters, own, data.take(np.arange(count)), config)
        start = own if alarm and own is not None else parameters
        with DataAttribute(self.data_attribute).replaced(client, data.without_first(count), name):
            result = honest_fit(start, config)
        local, num_examples, metrics = checked_result(result, "fit")
        state.save("siren", local)
        return local, num_examples, {**metrics, ALARM: int(alarm)}

    def _alarm(self, client: Any, parameters: NDArrays, own: NDArrays, batch: tuple[Any, Any], config: Any) -> bool:
        x, y = batch
        # copies: what a client does with its parameters is its own affair
        global_accuracy, own_accuracy = (
            self._accuracy(client, [np.array(array) for array in arrays], x, y) for arrays in (parameters, own)
        )
        tolerance = float(config.get(CLIENT_TOLERANCE, self.client_tolerance))
        return siren_alarm(global_accuracy, own_accuracy, tolerance, config.get(ALARM_RULE, self.alarm_rule))

    def _accuracy(self, client: Any, parameters: NDArrays, x: Any, y: Any) -> float:
        if self.accuracy_fn is not None:
            return float(self.accuracy_fn(client, parameters, x, y))
        if not hasattr(client, "accuracy"):
            raise ConfigError(
                f"SirenClient: {type(client).__name__} cannot say how accurate a model is. Give it a method "
                "accuracy(parameters, x, y), or pass accuracy_fn=lambda client, parameters, x, y: ..."
            )
        return float(client.accuracy(parameters, x, y))


siren_client = SirenClient  # reads better above a class


def _held_out_count(size: int, share: float) -> int:
    """Return how many examples are held out: the share, rounded down, but one if there are two or more."""
    return max(1, math.floor(share * size + 1e-9)) if size > 1 else 0
