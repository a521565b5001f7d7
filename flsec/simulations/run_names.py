"""Names that become folders: of runs, sweeps and studies."""

from pathlib import PurePosixPath, PureWindowsPath

from flsec.errors import ConfigError

__all__ = ["check_folder_name"]

_LONGEST = 200  # bytes; file systems take 255, and "-2" and the like are added


def check_folder_name(name: str) -> str:
    """Return a name that is one folder on every system, inside the folder it is put in.

    Raises:
        ConfigError: it leads elsewhere, as ``../x`` and ``/x`` do, holds what cannot be printed, or is empty or long.

    Example:
        >>> check_folder_name("krum, seed 3")
        'krum, seed 3'
    """
    printable = bool(name) and name.isprintable()
    one_part = name not in (".", "..") and PurePosixPath(name).name == PureWindowsPath(name).name == name
    if printable and one_part and len(name.encode()) <= _LONGEST:
        return name
    got = repr(name) if len(name) <= 60 else f"{name[:40]!r} ... ({len(name)} characters)"
    raise ConfigError(
        f"must be the name of one folder: printable, without / or \\, not . or .., at most {_LONGEST} bytes; got "
        f"{got}. For example: name: krum_seed_3",
        parameter="name",
    )
