"""Where data sets lie on disk."""

import os
from collections.abc import Sequence
from pathlib import Path

from flsec._paths import Located, leads_out, only_looking
from flsec.errors import ConfigError

__all__ = ["check_stays", "find_root", "roots", "torchvision_command"]


def roots(root: str | None) -> list[Path]:
    """Return the folders to look in, absolute, best first.

    A given root is the only one: a typing mistake in it must not quietly read other data. Without one: the environment
    variable FLSEC_DATA (if set), ./data, ~/.cache/flsec.
    """
    if root is not None:
        places = [root]
    else:
        places = [*filter(None, [os.environ.get("FLSEC_DATA")]), "data", "~/.cache/flsec"]
    return [Path(place).expanduser().resolve() for place in places]


def check_stays(name: str, path: str, parameter: str) -> None:
    """Refuse a relative path that leaves the folder that it starts from.

    Args:
        name: of the data set, for the message.
        path: as the user gave it.
        parameter: which parameter gave it.

    Raises:
        ConfigError: it does, or no file can be called so.
    """
    if "\0" in path or (not Path(path).expanduser().is_absolute() and leads_out(path)):
        raise ConfigError(
            f"data set {name!r}: {parameter} must stay below the folder that it starts from; got {path!r}. Give an "
            "absolute path to read what lies elsewhere.",
            parameter=parameter,
        )


def find_root(name: str, root: str | None, layouts: Sequence[Sequence[str]], supply: str) -> tuple[Path, int]:
    """Return the first folder that holds a data set, and in which layout.

    Args:
        name: of the data set, for the message.
        root: as the user gave it.
        layouts: relative paths that must exist, per layout, best first.
        supply: the command or file that would supply the data; ``{root}`` stands for the best place.

    Raises:
        ConfigError: no folder holds all paths of any layout.
    """
    places = roots(root)
    for place in places:
        for layout, paths in enumerate(layouts):
            if all((place / path).exists() for path in paths):
                if only_looking.get():
                    raise Located(place)
                return place, layout
    best = [_missing(place, layouts) for place in places]
    raise ConfigError(
        f"data set {name!r} not found. Looked in: {'; '.join(best)}. "
        f"To supply it: {supply.format(root=str(places[0]))}"
        + ("" if root else " Or set FLSEC_DATA (or the root) to the folder that holds it.")
    )


def _missing(place: Path, layouts: Sequence[Sequence[str]]) -> str:
    if not place.is_dir():
        return f"{place} (no such folder)"
    lacks = (", ".join(path for path in paths if not (place / path).exists()) for paths in layouts)
    return f"{place} (lacks {' or '.join(lacks)})"


def torchvision_command(name: str) -> str:
    """Return the command that downloads a torchvision data set; ``{root}`` stands for the folder."""
    return f"python -c \"import torchvision; torchvision.datasets.{name}('{{root}}', download=True)\"."
