"""Objects from a file with one JSON object a line."""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError

__all__ = ["read_json", "read_jsonl"]

_NAMES = {str: "text", int: "a whole number"}
_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError)


def read_jsonl(path: str | Path, columns: Mapping[str, tuple[type, ...]]) -> list[dict[str, Any]]:
    """Return the objects of a file, which may be compressed (``.gz``); empty lines are skipped.

    Args:
        path: a file with one JSON object a line.
        columns: what every object must have, by name, with the types that will do; others are let through.

    Raises:
        ConfigError: no such file, a line that is no object, or one without such a column, with its number.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    found = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found.append(_row(line, f"{path}, line {number}", columns))
    except _UNREADABLE as error:
        raise ConfigError(f"{path} must be lines of JSON in UTF-8; reading it failed with: {error}.") from error
    return found


def _row(line: str, where: str, columns: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{where}: every line must be one JSON object, such as {{"text": "some words", "label": 1}}; got '
            f"{line.strip()[:60]!r} ({error})."
        ) from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: every line must be a JSON object in braces; got {line.strip()[:60]!r}.")
    for column, types in columns.items():
        if column not in row:
            raise ConfigError(f"{where}: needs a column {column!r}; it has: {', '.join(map(repr, row)) or 'none'}.")
        if not isinstance(row[column], types):
            names = " or ".join(_NAMES[kind] for kind in types)
            raise ConfigError(f"{where}: the column {column!r} must be {names}; got {row[column]!r:.60}.")
    return row


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (*_UNREADABLE, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is broken: it must be JSON in UTF-8; reading it failed with: {error}. Fetch it again."
        ) from error
