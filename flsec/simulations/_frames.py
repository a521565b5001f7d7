"""Tables for pandas, which is an extra."""

import importlib
from typing import Any

from flsec.errors import ConfigError

__all__ = ["import_pandas"]


def import_pandas(wanted_by: str) -> Any:
    """Return pandas, imported when a table is first asked for.

    Args:
        wanted_by: what needs it, for the message.

    Raises:
        ConfigError: it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            f'{wanted_by} needs the package pandas, which is not installed. Run: pip install "flsec[frames]"'
        ) from error
