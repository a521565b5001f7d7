"""Paths that stand in files: whether they stay where they belong, and where data lie that are not to be read yet."""

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Located", "leads_out", "locate", "only_looking"]


def leads_out(path: str) -> bool:
    r"""Return whether a relative path leaves the folder that it starts from, on whichever system wrote it.

    Example:
        >>> [leads_out(path) for path in ("a/b", "a/../b", "../b", "a/../../b", r"..\b", "/b")]
        [False, False, True, True, True, True]
    """
    depth, path = 0, path.replace("\\", "/")
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return path.startswith("/")


class Located(Exception):
    """Where a data set lies, in place of its samples."""

    def __init__(self, place: Path):
        super().__init__(str(place))
        self.place = place


only_looking: contextvars.ContextVar[bool] = contextvars.ContextVar("only_looking", default=False)


def locate(load: Callable[[], Any]) -> Path | None:
    """Return the folder that a data set would be read from, without reading it; None if it needs none.

    Args:
        load: the data set's function, with what it needs.

    Raises:
        ConfigError: it is not found.
    """
    token = only_looking.set(True)
    try:
        load()
    except Located as found:
        return found.place
    finally:
        only_looking.reset(token)
    return None
