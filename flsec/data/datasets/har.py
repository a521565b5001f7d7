"""Human activity recognition with smartphones, by subject."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._npz import read_npz
from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.parameters import check_parameters

__all__ = ["har"]

_NUM_FEATURES = 561
_ACTIVITIES = (
    "WALKING",
    "WALKING_UPSTAIRS",
    "WALKING_DOWNSTAIRS",
    "SITTING",
    "STANDING",
    "LAYING",
    "STAND_TO_SIT",
    "SIT_TO_STAND",
    "SIT_TO_LIE",
    "LIE_TO_SIT",
    "STAND_TO_LIE",
    "LIE_TO_STAND",
)
_SUPPLY = (
    "{root}/har/har.npz with the arrays X (n, 561), y, subject and split (n,); "
    "help(flsec.data.datasets.har) has the lines that make it from UCI's archive."
)


def har(root: str | None = None, *, num_classes: Literal[6, 12] = 6) -> DataSource:
    """Return HAR: windows of 2.56 s from a phone at the waist, as 561 features in [-1, 1].

    21 of the 30 subjects train and 9 test, as published. ``groups["subject"]`` holds the training subjects.

    The file is ``ROOT/har/har.npz``: X (n, 561) float32, y (n,) 0 to 11, subject (n,) 1 to 30, split (n,) 0 train,
    1 test. From the folder of UCI's "Smartphone-Based Recognition of Human Activities and Postural Transitions"::

        import numpy as np
        parts = [("Train", "train"), ("Test", "test")]
        X, y, who = (np.concatenate([np.loadtxt(f"{a}/{name}_{b}.txt") for a, b in parts])
                     for name in ("X", "y", "subject_id"))
        split = np.concatenate([np.full(len(np.loadtxt(f"{a}/y_{b}.txt")), i) for i, (a, b) in enumerate(parts)])
        np.savez("har.npz", X=X.astype("f4"), y=(y - 1).astype(int), subject=who.astype(int), split=split)

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        num_classes: 6: the basic activities, as in FedInv; 12: with the six postural transitions, which are rare.

    Returns:
        Features (n, 561) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or broken, with what is wrong.

    Source: Reyes-Ortiz et al., Neurocomputing 2016; FedInv, "Datasets".
    """
    check_parameters(har, {"num_classes": num_classes}, name="data set 'har'")
    folder, _ = find_root("har", root, [["har/har.npz"]], _SUPPLY)
    return _load(folder, num_classes)


@functools.cache
def _load(folder: Path, num_classes: int) -> DataSource:
    path = str(folder / "har" / "har.npz")
    table = read_npz(path, ("X", "y", "subject", "split"))
    features, y, split = table["X"], table["y"], table["split"]
    n = len(y)
    if features.shape != (n, _NUM_FEATURES) or table["subject"].shape != (n,) or split.shape != (n,):
        raise ConfigError(
            f"{path} is broken: X must be (n, {_NUM_FEATURES}), y, subject and split (n,); got "
            f"{', '.join(f'{name} {array.shape}' for name, array in table.items())}."
        )
    if not np.isfinite(features).all() or not np.isin(y, range(12)).all() or not np.isin(split, (0, 1)).all():
        raise ConfigError(f"{path} is broken: X must be finite, y in 0 .. 11 and split 0 or 1.")
    train, test = (_part(path, y, split, part, num_classes) for part in (0, 1))
    subject = table["subject"][_rows(y, split, 0, num_classes)].astype(np.int64)
    return DataSource(
        "har",
        train,
        test,
        num_classes,
        (_NUM_FEATURES,),
        class_names=_ACTIVITIES[:num_classes],
        groups={"subject": subject},
    )


def _part(path: str, y: npt.NDArray[Any], split: npt.NDArray[Any], part: int, num_classes: int) -> ArrayDataset:
    labels = y[_rows(y, split, part, num_classes)].astype(np.int64)
    shape = (len(labels), _NUM_FEATURES)
    return ArrayDataset(LazyArray(_features, path, part, num_classes, shape=shape, dtype=np.float32), labels, divisor=1)


def _rows(y: npt.NDArray[Any], split: npt.NDArray[Any], part: int, num_classes: int) -> npt.NDArray[np.int64]:
    return np.flatnonzero((split == part) & (y < num_classes))


def _features(path: str, part: int, num_classes: int) -> npt.NDArray[np.float32]:
    table = read_npz(path, ("X", "y", "split"))
    features: npt.NDArray[np.float32] = table["X"][_rows(table["y"], table["split"], part, num_classes)]
    return features.astype(np.float32, copy=False)
