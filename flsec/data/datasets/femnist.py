"""FEMNIST: digits and letters by writer, from the JSON files that LEAF makes."""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError

__all__ = ["femnist"]

_NUM_CLASSES, _NUM_PIXELS = 62, 784
_CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_LAYOUTS = [["femnist/data/train", "femnist/data/test"], ["femnist/train", "femnist/test"]]
_SUPPLY = (
    "in a clone of github.com/TalwalkarLab/leaf, data/femnist/preprocess.sh -s niid --sf 1.0 -k 0 -t sample; then copy "
    "its data/femnist to {root}/femnist (of which data/train/*.json and data/test/*.json are read)."
)

Arrays = dict[str, npt.NDArray[Any]]


def femnist(root: str | None = None) -> DataSource:
    """Return FEMNIST: 62 characters (0-9, A-Z, a-z) by some 3,500 people, 28x28 pixels in [0, 1].

    LEAF's files ``ROOT/femnist/data/train/*.json`` and ``test/*.json`` are read, whichever sample of the data and
    whichever split they hold. ``groups["writer"]`` numbers the training writers in the order of their names. Pixels are
    as LEAF has them: paper is 1, ink is 0.

    The files hold gigabytes of text. They are read once; what they say is kept as bytes (as float32, if pixels are no
    multiples of 1/255) in ``~/.cache/flsec``, or in ``$XDG_CACHE_HOME/flsec``, and mapped from there by every process.
    Files that changed are read again.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 1, 28, 28) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with the command that makes it; or broken, with what is wrong.

    Source: Caldas et al., "LEAF: a benchmark for federated settings", 2018; SparseFed Sec. 3.1 and Appendix B.6.
    """
    folder, layout = find_root("femnist", root, _LAYOUTS, _SUPPLY)
    files = tuple(tuple(sorted(map(str, (folder / part).glob("*.json")))) for part in _LAYOUTS[layout])
    if not all(files):
        raise ConfigError(f"data set 'femnist': no *.json in {folder / _LAYOUTS[layout][0]} or its neighbour test.")
    stamps = tuple((path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for part in files for path in part)
    return _load(files, hashlib.sha256(repr(stamps).encode()).hexdigest()[:16])


@functools.cache
def _load(files: tuple[tuple[str, ...], tuple[str, ...]], key: str) -> DataSource:
    parts = [_kept(key, part, paths) for part, paths in zip(("train", "test"), files, strict=True)]
    train, test = (ArrayDataset(part["x"], part["y"]) for part in parts)
    writer = np.unique(parts[0]["writer"], return_inverse=True)[1].astype(np.int64)
    return DataSource(
        "femnist", train, test, _NUM_CLASSES, (1, 28, 28), class_names=_CLASSES, groups={"writer": writer}
    )


# --- the compact copy


def _kept(key: str, part: str, paths: tuple[str, ...]) -> Arrays:
    """Return the arrays of a part from the compact copy, which is made first where there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "flsec"
    folder = cache / f"femnist-{key}-{part}"
    if not folder.exists():
        _keep(folder, _read(paths))
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("x", "y", "writer")}


def _keep(folder: Path, arrays: Arrays) -> None:
    """Write arrays; the folder appears when all are there, also if several processes are at it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            for name, array in arrays.items():
                np.save(Path(place) / f"{name}.npy", array)
            if not folder.exists():
                Path(place, "complete").mkdir()
                for name in arrays:
                    os.replace(Path(place) / f"{name}.npy", Path(place) / "complete" / f"{name}.npy")
                os.rename(Path(place) / "complete", folder)
    except OSError as error:
        if folder.exists():  # another process was faster
            return
        raise ConfigError(
            f"data set 'femnist': its compact copy cannot be written to {folder}: {error}. Set XDG_CACHE_HOME to a "
            "folder that can be written to."
        ) from error


# --- LEAF's files


def _read(paths: tuple[str, ...]) -> Arrays:
    """Return x (n, 1, 28, 28), y (n,) and writer (n,), the writers' names, in the order of files and users."""
    users = [user for path in paths for user in _users(path)]
    pixels = [x for _, x, _ in users]
    whole = all(x.dtype == np.uint8 for x in pixels)
    x = np.concatenate(pixels if whole else [_as_floats(x) for x in pixels])
    y = np.concatenate([y for _, _, y in users])
    if len(y) == 0:
        raise ConfigError(f"{paths[0]} is broken: it and its neighbours hold no sample. Make LEAF's files again.")
    writer = np.repeat([name for name, _, _ in users], [len(y) for _, _, y in users])
    return {"x": x.reshape(-1, 1, 28, 28), "y": y, "writer": writer}


def _users(path: str) -> Iterator[tuple[str, npt.NDArray[Any], npt.NDArray[np.uint8]]]:
    """Yield name, pixels (k, 784), bytes where they are multiples of 1/255, and labels (k,) of every user in a file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        for name, count in zip(content["users"], content["num_samples"], strict=True):
            data = content["user_data"].pop(name)  # freed when read: a file holds hundreds of megabytes
            x = np.array(data["x"], dtype=np.float64).reshape(-1, _NUM_PIXELS)
            y = np.array(data["y"], dtype=np.int64)
            if not len(x) == len(y) == count:
                raise ValueError(f"user {name} has {len(x)} images and {len(y)} labels, and num_samples says {count}")
            if not (np.isfinite(x).all() and np.isin(y, range(_NUM_CLASSES)).all()):
                raise ValueError(f"pixels of user {name} must be finite and labels in 0 .. {_NUM_CLASSES - 1}")
            yield str(name), _compact(x), y.astype(np.uint8)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # json's errors are ValueErrors
        raise ConfigError(
            f"{path} is broken: it must hold users, num_samples and user_data with x (k, {_NUM_PIXELS}) and y (k,) for "
            f"each; reading it failed with: {error!r}. Make LEAF's files again."
        ) from error


def _compact(x: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    levels = np.rint(x * 255)
    if x.size == 0 or (np.abs(levels / 255 - x).max() < 1e-6 and levels.min() >= 0 and levels.max() <= 255):
        return levels.astype(np.uint8)
    return x.astype(np.float32)


def _as_floats(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
