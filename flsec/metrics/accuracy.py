import numpy as np

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.metrics._labels import Labels, matching

__all__ = ["accuracy", "per_class_accuracy"]


@explained
def accuracy(predictions: Labels, true_labels: Labels) -> float | None:
    """Return the share of predictions that equal the true label.

    Args:
        predictions: (n,) predicted labels.
        true_labels: (n,) true labels.

    Returns:
        A number in [0, 1]; None if there are no examples.

    Raises:
        ConfigError: not integer vectors of one length.

    Example:
        >>> accuracy([1, 2, 2, 0], [1, 2, 0, 0])
        0.75
    """
    predicted, truth = matching(predictions, true_labels)
    return float((predicted == truth).mean()) if len(truth) else None


@explained
def per_class_accuracy(predictions: Labels, true_labels: Labels, num_classes: int) -> list[float | None]:
    """Return, for each class, the share of its examples that were recognised (its recall).

    A targeted attack leaves the overall accuracy high and shows here.

    Args:
        predictions: (n,) predicted labels.
        true_labels: (n,) true labels, each in 0, ..., num_classes - 1.
        num_classes: C.

    Returns:
        C numbers in [0, 1]; None for a class without examples.

    Raises:
        ConfigError: not integer vectors of one length, or a true label outside the classes.

    Example:
        >>> per_class_accuracy([0, 0, 1], [0, 1, 1], num_classes=3)
        [1.0, 0.5, None]
    """
    predicted, truth = matching(predictions, true_labels)
    if len(truth) and not 0 <= truth.min() <= truth.max() < num_classes:
        raise ConfigError(
            f"true_labels must lie in 0, ..., {num_classes - 1} (num_classes={num_classes}); "
            f"got values from {truth.min()} to {truth.max()}."
        )
    total = np.bincount(truth, minlength=num_classes)
    right = np.bincount(truth[predicted == truth], minlength=num_classes)
    return [int(r) / int(t) if t else None for r, t in zip(right, total, strict=True)]
