"""A fixed test set for data that come without one."""

import numpy as np
import numpy.typing as npt

from flsec.randomness import numpy_generator

__all__ = ["split_by_class"]


def split_by_class(
    labels: npt.NDArray[np.int64], name: str, share: float = 0.2
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows for training and for the test, each in random order; the same whatever the seed of the run.

    Args:
        labels: (n,) class of every row.
        name: of the data set; another name, another draw.
        share: of each class that becomes test, rounded to whole rows.

    Example:
        >>> [rows.tolist() for rows in split_by_class(np.repeat([0, 1], 3), "films", share=0.4)]
        [[2, 1, 3, 4], [0, 5]]
    """
    rng = numpy_generator(0, purpose=f"{name} split")
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(share * len(members))]] = True
    return rng.permutation(np.flatnonzero(~is_test)), rng.permutation(np.flatnonzero(is_test))
