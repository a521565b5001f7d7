"""Hugging Face's libraries, which are an extra."""

import importlib
from typing import Any

from flsec.errors import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str, wanted_by: str) -> Any:
    """Return a module of the extra ``huggingface``.

    Args:
        module: its name.
        wanted_by: what needs it, for the message.

    Raises:
        ConfigError: it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ConfigError(
            f'{wanted_by} needs the package {package}, which is not installed. Run: pip install "flsec[huggingface]"'
        ) from error
