"""A data set of your own, as arrays in an npz file."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data.datasets._npz import read_npz
from flsec.data.datasets._own import Samples, check_one_test_set, find_path, own_source
from flsec.data.source import DataSource
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, check_parameters

__all__ = ["npz"]


def npz(root: str | None = None, *, file: str, test_fraction: OpenFraction | None = None) -> DataSource:
    """Return the data in an npz file, which ``np.savez`` writes: arrays ``x`` and ``y``, and more if you have them.

    - ``x``: (n, d) numbers, (n, height, width) grey images or (n, channels, height, width). 8-bit unsigned values are
      divided by 255; others are taken as they are.
    - ``y``: (n,) classes, whole numbers or texts; they are numbered in sorted order.
    - ``client``: (n,) whose sample it is, numbers or texts; becomes ``groups["client"]`` for the partitioner
      ``natural``.
    - ``x_test``, ``y_test``: the test set. Without them a share of each class is held out, the same whatever the seed.

    Nothing is unpickled, so arrays of Python objects are refused.

    Args:
        root: where a relative ``file`` starts; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        file: path of the file.
        test_fraction: share of the samples that is the test set, where the file has none; default 0.2.

    Raises:
        ConfigError: not there; or arrays that are missing or do not fit together.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/mine.npz"
        >>> np.savez(path, x=np.eye(10), y=np.array(["cat", "dog"] * 5))
        >>> source = npz(file=path)
        >>> source.class_names, len(source.train), len(source.test)
        (('cat', 'dog'), 8, 2)

    Source: ours.
    """
    check_parameters(npz, {"file": file, "test_fraction": test_fraction}, name="data set 'npz'")
    return own_source("npz", _read, test_fraction, str(find_path("npz", root, file, "file")))


def _read(test_fraction: float | None, path: str) -> tuple[Samples, Samples | None]:
    present = _names(path)
    table = read_npz(path, tuple(name for name in ("x", "y", "client", "x_test", "y_test") if name in present))
    if "x" not in table or "y" not in table or ("x_test" in table) != ("y_test" in table):
        raise ConfigError(
            f"data set 'npz': {path} must have the arrays x and y, and either both of x_test and y_test or neither; it "
            f"has: {', '.join(sorted(present)) or 'none'}."
        )
    train = _samples(path, table["x"], table["y"], table.get("client"))
    if "x_test" not in table:
        return train, None
    check_one_test_set("npz", "the array x_test", test_fraction)
    return train, _samples(path, table["x_test"], table["y_test"], None)


def _names(path: str) -> set[str]:
    try:
        with np.load(path) as archive:
            return set(archive.files)
    except Exception:  # read_npz says what is wrong
        read_npz(path, ("x", "y"))
        raise


def _samples(path: str, x: npt.NDArray[Any], y: npt.NDArray[Any], client: npt.NDArray[Any] | None) -> Samples:
    if x.ndim not in (2, 3, 4) or x.dtype.kind not in "biuf" or y.shape != x.shape[:1] or len(x) == 0:
        raise ConfigError(
            f"data set 'npz': {path}: x must be numbers (n, d), (n, height, width) or (n, channels, height, width) and "
            f"y (n,), n at least 1; got {x.dtype} {x.shape} and {y.dtype} {y.shape}."
        )
    if client is not None and client.shape != y.shape:
        raise ConfigError(f"data set 'npz': {path}: client must be {y.shape}, as y is; got {client.shape}.")
    if x.ndim == 4 and x.shape[1] > 4 >= x.shape[3]:
        raise ConfigError(
            f"data set 'npz': {path}: images must have their channels first, (n, channels, height, width); got "
            f"{x.shape}. Save np.moveaxis(x, -1, 1)."
        )
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ConfigError(f"data set 'npz': {path}: x must be finite.")
    return Samples(x[:, None] if x.ndim == 3 else x, y, client)
