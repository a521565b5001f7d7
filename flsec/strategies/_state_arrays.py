"""Which of a model's arrays are state and no weights: as the user says, by name, or as torch orders them."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from flsec.errors import ConfigError
from flsec.state_arrays import holds, state_by_name, state_by_pattern, state_of_module

__all__ = ["StateArrays", "state_positions"]

StateArrays = Sequence[int | str] | nn.Module | None


def state_positions(given: StateArrays, names: Sequence[str] | None, arrays: Sequence[Any]) -> Collection[int]:
    """Return the positions of the arrays that are state: as the user says, by name, or as torch orders them."""
    if isinstance(given, nn.Module):
        if not holds(given, arrays):
            raise ConfigError(
                f"state_arrays: the module has {len(given.state_dict())} arrays in its state dict, and the model that "
                f"is exchanged {len(arrays)}, or their shapes differ. Give the module whose state dict is sent, or "
                "positions.",
                parameter="state_arrays",
            )
        return state_of_module(given)
    if given is None:
        return state_by_pattern(arrays) if names is None else state_by_name(names)
    found = set() if names is None else set(state_by_name(names))
    for entry in given:
        if isinstance(entry, int):
            if not 0 <= entry < len(arrays):
                raise ConfigError(
                    f"state_arrays: the model has arrays 0 to {len(arrays) - 1}; got {entry}.", parameter="state_arrays"
                )
            found.add(entry)
        elif names is None:
            raise ConfigError(
                f"state_arrays: the classic API sends arrays without names; got {entry!r}. Give positions, such as "
                "[2, 3], or the torch module whose state dict is sent.",
                parameter="state_arrays",
            )
        elif entry not in names:
            raise ConfigError(
                f"state_arrays: the model has no array {entry!r}; it has {', '.join(names):.200}.",
                parameter="state_arrays",
            )
        else:
            found.add(list(names).index(entry))
    return found
