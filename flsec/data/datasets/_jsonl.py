"""Objects from a file with one JSON object a line."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError

__all__ = ["read_json", "read_jsonl"]

_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError)


def read_jsonl(path: str | Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the objects of a file, which may be compressed (``.gz``); empty lines are skipped.

    Raises:
        ConfigError: no such file, a line that is no object, or one that lacks a column, with its number.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    found = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found.append(_row(line, f"{path}, line {number}", columns))
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path} cannot be read as lines of JSON in UTF-8: {error}. Fetch or write it again."
        ) from error
    return found


def _row(line: str, where: str, columns: tuple[str, ...]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(
            f'{where}: every line must be one JSON object, such as {{"text": "some words", "label": 1}}; got '
            f"{line.strip()[:60]!r} ({error})."
        ) from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: every line must be a JSON object in braces; got {line.strip()[:60]!r}.")
    missing = [column for column in columns if column not in row]
    if missing:
        raise ConfigError(f"{where}: has no column {missing[0]!r}; it has: {', '.join(map(repr, row))}.")
    return row


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (*_UNREADABLE, ValueError) as error:
        raise ConfigError(
            f"{path} is broken: it must be JSON in UTF-8; reading it failed with: {error}. Fetch it again."
        ) from error
