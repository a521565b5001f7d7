"""Class flipping: every class is relabelled, by one formula."""

from typing import Literal

import numpy as np

from flsec._tensors import is_tensor
from flsec.attacks._labels import Labels, check_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters

__all__ = ["flip_classes"]


def flip_classes(labels: Labels, num_classes: PositiveCount, mode: Literal["reverse", "next"] = "reverse") -> Labels:
    """Return ``labels`` with every class exchanged for another.

    Args:
        labels: class numbers 0 to C - 1, any shape, an integer numpy array or torch tensor. Not modified.
        num_classes: C.
        mode: ``"reverse"`` maps y to C - 1 - y (the middle class of an odd C stays), ``"next"`` to (y + 1) mod C.

    Returns:
        A new array or tensor with the shape, dtype and device of ``labels``.

    Raises:
        ConfigError: no integer array, or a label outside 0 to C - 1.

    Example:
        >>> import torch
        >>> flip_classes(torch.tensor([0, 1, 9]), num_classes=10)
        tensor([9, 8, 0])
        >>> flip_classes(torch.tensor([0, 1, 9]), num_classes=10, mode="next")
        tensor([1, 2, 0])

    Source: reverse: SIREN, Sec. 2.2, and DiverseFL, Sec. IV-A, whose printed C - y has no class for y = 0; next:
    FedInv, "Evaluated Poisoning Attacks".
    """
    check_labels(labels, "flip_classes")
    check_parameters(flip_classes, {"num_classes": num_classes, "mode": mode}, name="flip_classes")
    wide = labels.long() if is_tensor(labels) else labels.astype(np.int64)
    outside = wide[(wide < 0) | (wide >= num_classes)]
    if len(outside):
        raise ConfigError(
            f"flip_classes: labels must lie in 0 to {num_classes - 1}, since num_classes={num_classes}; got "
            f"{outside[0].item()}. Use the data set's number of classes, and labels that count from 0."
        )
    flipped = num_classes - 1 - wide if mode == "reverse" else (wide + 1) % num_classes
    if is_tensor(labels):
        return flipped.to(labels.dtype)
    return np.asarray(flipped, dtype=labels.dtype)
