"""Predictions and labels from numpy, torch or a list, as two matching vectors."""

from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from flsec._tensors import is_tensor
from flsec.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["Labels", "matching"]

Labels = Union[npt.ArrayLike, "torch.Tensor"]  # (n,) integers


def _vector(labels: Labels, name: str) -> npt.NDArray[np.int64]:
    array: npt.NDArray[Any] = np.asarray(labels.cpu() if is_tensor(labels) else labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ConfigError(
            f"{name} must be a vector of integer labels; got shape {array.shape}, dtype {array.dtype}. "
            "Logits become labels with argmax(dim=1)."
        )
    return array.astype(np.int64)


def matching(predictions: Labels, true_labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return both as int64 vectors of one length.

    Raises:
        ConfigError: not vectors of integers, or of different lengths.
    """
    predicted, truth = _vector(predictions, "predictions"), _vector(true_labels, "true_labels")
    if len(predicted) != len(truth):
        raise ConfigError(
            f"predictions and true_labels must have the same length; got {len(predicted)} and {len(truth)}."
        )
    return predicted, truth
