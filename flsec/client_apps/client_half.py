"""The client's half of a defense: what every client does because of it, honest or hostile."""

from collections.abc import Sequence
from typing import Any

from flsec.client_apps._data_attribute import DataAttribute, data_of
from flsec.client_apps.base import ClientDecorator
from flsec.data._keys import Key
from flsec.data.training_data import TrainingData, training_data
from flsec.parameters import checked

__all__ = ["ClientHalf"]


class ClientHalf(ClientDecorator):
    """What a defense has its clients do around their training.

    A subclass overrides ``fit``. The same object decorates a ``NumPyClient`` class, or wraps an instance, a ``Client``
    made from one, or a ``client_fn``; and it is a mod of an app made by ``flsec.client_apps.numpy_client_app``, through
    its ``mod`` property. Attacks go around it, since what a hostile client uploads is up to the attacker.

    A wrapper in ``flsec.strategies`` that names its half in ``client_half`` has simulations put it around every client.
    Such a half needs no parameter; settings come from the wrapper's ``client_config`` with each round.

    Args:
        data_attribute: where the client keeps its training data; see ``Attack``.
        inputs_key: where an example has its inputs; see ``Attack``.
        labels_key: where an example has its label; see ``Attack``.

    Raises:
        ConfigError: ``data_attribute`` is no attribute's name; called with something else than a client.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> class Halved(ClientHalf):
        ...     def fit(self, client, honest_fit, parameters, config):
        ...         local, num_examples, metrics = honest_fit(parameters, config)
        ...         return [(g + w) / 2 for g, w in zip(parameters, local)], num_examples, metrics
        >>> @Halved()
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1.0], 10, {}
        >>> Client().fit([np.zeros(1)], {})[0]
        [array([0.5])]
    """

    def __init__(
        self,
        *,
        data_attribute: str | Sequence[str] = "trainset",
        inputs_key: Key | Sequence[str] | None = None,
        labels_key: Key | None = None,
    ) -> None:
        DataAttribute(data_attribute)  # says what is wrong with it before any training
        self.data_attribute = data_attribute
        self.inputs_key = inputs_key
        self.labels_key = labels_key

    def training_data(self, client: Any) -> TrainingData:
        """Return a client's training data behind the adapter.

        Raises:
            ConfigError: it has none in its attribute, or none of a known shape.
        """
        data = data_of(client, self.data_attribute, type(self).__name__)
        return training_data(data, inputs_key=self.inputs_key, labels_key=self.labels_key)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls)
