"""The client's half of a defense: what every client does because of it, honest or hostile."""

from typing import Any

from flsec.client_apps.base import ClientDecorator
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
        data_attribute: where the client keeps its training data: a torch ``Dataset``, a ``DataLoader`` or an
            (x, y) pair of arrays.
    """

    def __init__(self, *, data_attribute: str = "trainset") -> None:
        self.data_attribute = data_attribute

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls)
