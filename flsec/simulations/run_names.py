"""Names that become folders: of runs, sweeps and studies."""

from pathlib import PurePosixPath, PureWindowsPath

from flsec._paths import leads_out
from flsec.errors import ConfigError

__all__ = ["check_folder_name", "check_output_folder"]

_LONGEST = 200  # bytes; file systems take 255, and "-2" and the like are added
# What Windows keeps for itself; a device with any extension, and folders lose a dot or a space at the end.
_CHARACTERS = '<>:"|?*'
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{port}{i}" for port in ("com", "lpt") for i in "123456789¹²³"),
}


def check_folder_name(name: str) -> str:
    """Return a name that is one folder on every system, inside the folder it is put in.

    Raises:
        ConfigError: it leads elsewhere, as ``../x`` and ``/x`` do, holds what cannot be printed, is empty or long, or
            is none on Windows, as ``a:b``, ``nul.txt`` and ``a.`` are.

    Example:
        >>> check_folder_name("krum, seed 3")
        'krum, seed 3'
    """
    got = repr(name) if len(name) <= 60 else f"{name[:40]!r} ... ({len(name)} characters)"
    if broken := _broken_rule(name):
        raise ConfigError(
            f"must be the name of one folder: {broken}; got {got}. For example: name: krum_seed_3", parameter="name"
        )
    return name


def check_output_folder(folder: str) -> str:
    """Return where runs are to be written: below the current directory, or an absolute path, which says so openly.

    Raises:
        ConfigError: a relative path that leads out, as ``../x`` does, or what no path can be.

    Example:
        >>> check_output_folder("runs/today")
        'runs/today'
    """
    relative = not (PurePosixPath(folder).is_absolute() or PureWindowsPath(folder).drive)
    if not folder.isprintable() or (relative and leads_out(folder)):
        raise ConfigError(
            f"must stay below the current directory, or be an absolute path; got {folder!r:.100}. For example: "
            "folder: runs",
            parameter="folder",
        )
    return folder


def _broken_rule(name: str) -> str | None:
    if not name or not name.isprintable():
        return "printable, and not empty"
    if name in (".", "..") or not PurePosixPath(name).name == PureWindowsPath(name).name == name:
        return "without / or \\, not . or .., and no drive"
    if len(name.encode()) > _LONGEST:
        return f"at most {_LONGEST} bytes"
    if set(name) & set(_CHARACTERS):
        return f"without any of {_CHARACTERS}, which Windows does not take"
    if name[-1] in ". ":
        return "without a dot or a space at its end, which Windows drops"
    if name.partition(".")[0].rstrip().lower() in _DEVICES:
        return "none that Windows keeps for devices, such as CON and NUL"
    return None
