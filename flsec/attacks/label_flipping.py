"""Label flipping: chosen classes are relabelled as chosen others."""

from collections.abc import Sequence

import numpy as np

from flsec._tensors import is_tensor
from flsec.attacks._labels import Labels, check_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, check_parameters

__all__ = ["flip_labels"]


def flip_labels(labels: Labels, pairs: Sequence[Sequence[Count]]) -> Labels:
    """Return ``labels`` with every source class of ``pairs`` relabelled as its target, all at the same time.

    Args:
        labels: class numbers, any shape, an integer numpy array or torch tensor. Not modified.
        pairs: (source, target) pairs, such as ``[(3, 9), (2, 1)]``. Each looks at the labels as given, so that
            ``[(0, 1), (1, 0)]`` exchanges two classes.

    Returns:
        A new array or tensor with the shape, dtype and device of ``labels``.

    Raises:
        ConfigError: no integer array; a pair that is none, changes nothing, or contradicts another; a target that
            does not fit the labels' dtype.

    Example:
        >>> flip_labels(np.array([0, 1, 2, 3]), [(0, 1), (1, 0), (3, 2)])
        array([1, 0, 2, 2])

    Source: Tolpegin et al., ESORICS 2020; FedMLSecurity, Sec. 3.2 (its experiments use 3 -> 9 and 2 -> 1).
    """
    check_labels(labels, "flip_labels")
    target_of = _checked_pairs(pairs)
    highest = np.iinfo(str(labels.dtype).removeprefix("torch.")).max
    too_high = [target for target in target_of.values() if target > highest]
    if too_high:
        raise ConfigError(
            f"flip_labels: a target must fit the labels' type, {labels.dtype}, at most {highest}; got "
            f"{too_high[0]}. Use a smaller class number, or labels of a wider type."
        )
    flipped = labels.clone() if is_tensor(labels) else labels.copy()
    for source, target in target_of.items():
        if source <= highest:
            flipped[labels == source] = target
    return flipped


def _checked_pairs(pairs: Sequence[Sequence[int]]) -> dict[int, int]:
    check_parameters(flip_labels, {"pairs": pairs}, name="flip_labels")
    target_of: dict[int, int] = {}
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ConfigError(
                f"flip_labels: each of pairs must be (source, target), two different classes; got {pair!r}. "
                "Use for instance [(3, 9), (2, 1)].",
                parameter="pairs",
            )
        source, target = pair
        if target_of.setdefault(source, target) != target:
            raise ConfigError(
                f"flip_labels: pairs must give each source one target; got {source} -> {target_of[source]} and "
                f"{source} -> {target}. Keep one of them.",
                parameter="pairs",
            )
    return target_of
