"""The model that attackers who work together start from, as arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._around import NDArrays
from flsec.errors import ConfigError
from flsec.state_arrays import state_of_module
from flsec.training import get_weights, weight_names

__all__ = ["arrays_of_round", "coordinates_named"]


def arrays_of_round(model: nn.Module, view: CohortView, attack: str, update: Tensor | None = None) -> NDArrays:
    """Return the model that the clients of a round started from, or that model moved by an update.

    Args:
        model: as clients build it; gives the order and shapes of the arrays.
        view: of the round.
        attack: who asks, for the message.
        update: (d,), added to the weights.

    Raises:
        ConfigError: ``model`` has other numbers of weights or of state arrays.
    """
    arrays, state = get_weights(model), state_of_module(model)
    weights = [place for place in range(len(arrays)) if place not in state]
    sizes = [arrays[place].size for place in weights]
    if sum(sizes) != len(view.global_parameters) or (view.global_state and len(view.global_state) != len(state)):
        raise ConfigError(
            f"{attack}: the clients' model has {len(view.global_parameters)} floating numbers; model_factory builds "
            f"one with {sum(sizes)}, and {len(state)} arrays of state beside them. Do server and client build the "
            "same model?"
        )
    start = view.global_parameters.detach()
    values = (start if update is None else start + update.to(start)).cpu().numpy()
    for place, part in zip(weights, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
        arrays[place][...] = part.reshape(arrays[place].shape)
    for place, array in zip(sorted(state), view.global_state, strict=False):  # no state given: the model's own
        arrays[place] = array
    return arrays


def coordinates_named(model: nn.Module, parts: Sequence[str], attack: str) -> Tensor:
    """Return (d,) bool, which of a model's weights, flat and joined, belong to arrays whose name has one of the parts.

    Args:
        model: as clients build it.
        parts: such as ``["lora_"]``.
        attack: who asks, for the message.

    Raises:
        ConfigError: no array of weights has such a name.
    """
    arrays, state = get_weights(model), state_of_module(model)
    sizes = zip(weight_names(model), (array.size for array in arrays), strict=True)
    weights = [entry for place, entry in enumerate(sizes) if place not in state]
    named = [any(part in name for part in parts) for name, _ in weights]
    if not any(named):
        known = ", ".join(name for name, _ in weights[:8])
        raise ConfigError(
            f"{attack}: no array that clients upload has {' or '.join(map(repr, parts))} in its name; there are {known}"
            f"{', ...' if len(weights) > 8 else ''}. For adapters set lora_rank of the model.",
            parameter="only",
        )
    return torch.cat([torch.full((size,), hit) for hit, (_, size) in zip(named, weights, strict=True)])
