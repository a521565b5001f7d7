"""What the attacks on labels share."""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.errors import ConfigError

if TYPE_CHECKING:
    import torch

Labels = TypeVar("Labels", NDArray[Any], "torch.Tensor")


def check_labels(labels: Any, attack: str) -> None:
    """Raise ``ConfigError`` unless ``labels`` is an integer array or tensor."""
    if is_tensor(labels):
        integer = not (labels.is_floating_point() or labels.is_complex() or str(labels.dtype) == "torch.bool")
    elif isinstance(labels, np.ndarray):
        integer = labels.dtype.kind in "iu"
    else:
        raise ConfigError(
            f"{attack}: labels must be a numpy array or a torch tensor; got {type(labels).__name__}. "
            "Use np.asarray(labels)."
        )
    if not integer:
        raise ConfigError(
            f"{attack}: labels must be class numbers of an integer type; got {labels.dtype}. "
            "Convert them first (argmax of one-hot labels, or an integer cast)."
        )
