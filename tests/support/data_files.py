"""Small files in the layouts of the data sets that cannot be had everywhere, and of a user's own data."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "EXAMPLES",
    "write_cifar100",
    "write_csv",
    "write_femnist",
    "write_hub_folder",
    "write_npz",
    "write_pictures",
]


def write_cifar100(root: Path, layout: str = "binary", per_class: int = 2) -> dict[str, dict[str, NDArray[Any]]]:
    """Write both parts with ``per_class`` images of each class, and return {part: {pixels, fine, coarse}}."""
    rng = np.random.default_rng(0)
    (root / f"cifar-100-{layout}").mkdir(parents=True)
    parts = {}
    for part in ("train", "test"):
        fine = rng.permutation(np.repeat(np.arange(100), per_class)).astype(np.uint8)
        images = rng.integers(0, 256, (len(fine), 3072), dtype=np.uint8)
        parts[part] = {"pixels": images.reshape(-1, 3, 32, 32), "fine": fine, "coarse": fine // 5}
        if layout == "binary":
            records = np.concatenate([parts[part]["coarse"][:, None], fine[:, None], images], axis=1)
            (root / "cifar-100-binary" / f"{part}.bin").write_bytes(records.tobytes())
        else:
            content = {
                b"data": images,
                b"fine_labels": fine.tolist(),
                b"coarse_labels": parts[part]["coarse"].tolist(),
                b"filenames": [b"a.png"] * len(fine),
            }
            (root / "cifar-100-python" / part).write_bytes(pickle.dumps(content, protocol=3))
    return parts


def write_femnist(root: Path, writers: int = 6, digits: int = 7) -> dict[str, dict[str, Any]]:
    """Write LEAF's files, two a part, with one image of each class a writer; return {part: user_data}.

    Pixels are k / 255 with as many digits behind the point as LEAF writes.
    """
    rng = np.random.default_rng(0)
    parts: dict[str, dict[str, Any]] = {}
    for part in ("train", "test"):
        folder = root / "femnist" / "data" / part
        folder.mkdir(parents=True)
        parts[part] = {
            f"f{writer:04}_{writer % 3}": {
                "x": np.round(rng.integers(0, 256, (62, 784)) / 255, digits).tolist(),
                "y": rng.permutation(62).tolist(),
            }
            for writer in range(writers)
        }
        users = list(parts[part])
        for number, names in enumerate((users[: writers // 2], users[writers // 2 :])):
            data = {name: parts[part][name] for name in names}
            content = {"users": names, "num_samples": [62] * len(names), "user_data": data}
            (folder / f"all_data_{number}.json").write_text(json.dumps(content))
    return parts


def write_csv(path: Path, n: int = 60) -> None:
    """Write a table with two features, a place, a class and whose row it is."""
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.4f},{rng.integers(100)},in town,{'abc'[i % 3]},user {i % 7}" for i in range(n)]
    path.write_text("\n".join(["height,age,place,kind,who", *rows]) + "\n")


def write_npz(path: Path, n: int = 60, **changes: Any) -> dict[str, Any]:
    """Write grey images of three classes by five clients, and return the arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(0, 256, (n, 4, 5), dtype=np.uint8),
        "y": np.arange(n) % 3,
        "client": np.arange(n) % 5,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def write_pictures(folder: Path, n: int = 12, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    """Write n plain pictures for each of two classes; the first channel of picture i is 10 i, and 120 more for dogs."""
    for k, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            value = 120 * k + 10 * i
            Image.new(mode, size, (value, 100, 50) if mode == "RGB" else value).save(folder / name / f"{i:02}.png")


def write_hub_folder(folder: Path, n: int = 60) -> None:
    """Save a data set of Hugging Face's library with grey images of three classes by five writers."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from datasets import Image as Picture

    rng = np.random.default_rng(0)
    features = Features(
        {"image": Picture(), "label": ClassLabel(names=["no", "maybe", "yes"]), "writer_id": Value("string")}
    )

    def split(count: int) -> Any:
        pixels = rng.integers(0, 256, (count, 4, 5), dtype=np.uint8)
        columns = {
            "image": [Image.fromarray(picture) for picture in pixels],
            "label": [i % 3 for i in range(count)],
            "writer_id": [f"writer {i % 5}" for i in range(count)],
        }
        return Dataset.from_dict(columns, features=features)

    DatasetDict({"train": split(n), "test": split(n // 2)}).save_to_disk(folder)


def _cifar100(folder: Path) -> dict[str, Any]:
    write_cifar100(folder)
    return {"root": str(folder)}


def _femnist(folder: Path) -> dict[str, Any]:
    write_femnist(folder)
    return {"root": str(folder)}


def _csv(folder: Path) -> dict[str, Any]:
    write_csv(folder / "table.csv")
    return {"root": str(folder), "file": "table.csv", "label": "kind", "client": "who"}


def _npz(folder: Path) -> dict[str, Any]:
    write_npz(folder / "mine.npz")
    return {"root": str(folder), "file": "mine.npz"}


def _image_folder(folder: Path) -> dict[str, Any]:
    write_pictures(folder / "pictures")
    return {"root": str(folder), "folder": "pictures"}


def _huggingface(folder: Path) -> dict[str, Any]:
    write_hub_folder(folder / "saved")
    return {"root": str(folder), "path": "saved"}


# Parameters with which a data set can be loaded after the function has written its files into a folder.
EXAMPLES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "cifar100": _cifar100,
    "csv": _csv,
    "femnist": _femnist,
    "huggingface": _huggingface,
    "image_folder": _image_folder,
    "npz": _npz,
}
