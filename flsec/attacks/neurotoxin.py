"""Neurotoxin: an update kept off the coordinates that honest updates use most."""

from collections.abc import Collection, Sequence

import numpy as np

from flsec.attacks._upload import Array, upload
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, check_parameters

__all__ = ["neurotoxin", "rarely_used"]


def rarely_used(
    global_params: Sequence[Array],
    previous_params: Sequence[Array],
    *,
    ratio: OpenFraction = 0.95,
    state: Collection[int] = (),
) -> list[Array]:
    """Return for each array where the global model has moved least, the share ``ratio`` of all its weights.

    Args:
        global_params: the model that the client got now. Not modified.
        previous_params: the one that it got before, same shapes. Not modified.
        ratio: share of the weights, rounded down; of equal steps the first ones, in the arrays' order, count as small.
        state: positions of arrays that are no weights, such as BatchNorm's statistics; like integer arrays they are
            not counted, and marked as used.

    Returns:
        Boolean arrays with the shapes of ``global_params``.

    Raises:
        ConfigError: the shapes differ, or ``ratio`` is out of its range.

    Example:
        >>> rarely_used([np.array([5.0, 1.0]), np.array([1.0])], [np.array([1.0, 0.5]), np.array([1.0])], ratio=0.7)
        [array([False,  True]), array([ True])]

    Source: Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022 (the bottom k of the last
    benign update).
    """
    check_parameters(rarely_used, {"ratio": ratio}, name="rarely_used")
    moved = upload(global_params, previous_params, lambda now, before: np.abs(now - before))
    weights = [place for place, array in enumerate(moved) if array.dtype.kind in "fc" and place not in set(state)]
    steps = np.concatenate([np.abs(moved[place]).ravel() for place in weights] or [np.zeros(0)])
    small = np.zeros(len(steps), dtype=np.bool_)
    small[np.argsort(steps, kind="stable")[: int(ratio * len(steps) + 1e-9)]] = True
    found = [np.zeros(np.shape(array), dtype=np.bool_) for array in global_params]
    ends = np.cumsum([moved[place].size for place in weights])
    for place, part in zip(weights, np.split(small, ends[:-1]), strict=True) if weights else ():
        found[place][...] = part.reshape(found[place].shape)
    return found


def neurotoxin(global_params: Sequence[Array], local_params: Sequence[Array], allowed: Sequence[Array]) -> list[Array]:
    """Return the local model with everything put back to the global one where nothing is allowed.

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: w_l, same shapes. Not modified.
        allowed: boolean arrays of these shapes, see ``rarely_used``.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ.

    Example:
        >>> neurotoxin([np.zeros(2)], [np.array([3.0, 4.0])], [np.array([False, True])])
        [array([0., 4.])]

    Source: Zhang et al., ICML 2022.
    """
    if [np.shape(mask) for mask in allowed] != [np.shape(array) for array in global_params]:
        raise ConfigError("neurotoxin needs allowed to have the shapes of global_params. Use rarely_used.")
    masks = iter([mask for mask, array in zip(allowed, local_params, strict=True) if array.dtype.kind in "fc"])
    return upload(global_params, local_params, lambda w_g, w_l: np.where(next(masks), w_l, w_g))
