"""Which arrays of a client's model are state, which attacks on weights leave alone."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from flsec._tensors import is_module
from flsec.errors import ConfigError
from flsec.state_arrays import HasStateDict, holds, state_by_name, state_by_pattern, state_of_module

__all__ = ["given_positions", "state_of_client"]


def given_positions(state_arrays: Sequence[int] | HasStateDict | None) -> frozenset[int] | None:
    """Return the positions that a user named, as such or by a torch module; None if nothing was named."""
    if state_arrays is None:
        return None
    return state_of_module(state_arrays) if hasattr(state_arrays, "state_dict") else frozenset(state_arrays)


def state_of_client(
    given: frozenset[int] | None, arrays: Sequence[NDArray[Any]], names: Sequence[str], client: Any, attack: str
) -> frozenset[int]:
    """Return the positions of the arrays that are state: as a user named them, or by the best sign that there is.

    Args:
        given: what the user named, if anything.
        arrays: the model's.
        names: the arrays' names, where they have any.
        client: the client, where it can be reached: it may hold the torch module of these arrays.
        attack: who asks, for the message.

    Raises:
        ConfigError: the user named a position that there is not.
    """
    if given is not None:
        if given and max(given) >= len(arrays):
            raise ConfigError(
                f"{attack}: state_arrays must be positions among the model's {len(arrays)} arrays, from 0 to "
                f"{len(arrays) - 1}; got {max(given)}."
            )
        return given
    for value in vars(client).values() if client is not None else ():
        if is_module(value) and holds(value, arrays):
            return state_of_module(value)
    return state_by_name(names) | state_by_pattern(arrays)
