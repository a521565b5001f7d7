"""``flsec doctor``: what there is to run experiments on, and what would stop a run."""

import functools
import importlib.util
import inspect
import os
import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version
from rich.table import Table

from flsec._paths import locate
from flsec.data import DATASETS
from flsec.errors import ConfigError
from flsec.parameters import parameters_of

__all__ = ["TESTED", "Fact", "as_table", "examine", "verdict"]

TESTED = {"flwr": "1.42.0", "ray": "2.55.1", "torch": "2.14.1", "numpy": "2.4.6"}  # as README says
_GIB, _MIB = 2**30, 2**20
_LEAST_SHM = 64 * _MIB  # Ray's workers exchange the model there
_LEAST_MEMORY = _GIB  # Flower, Ray and torch in one client's process, and the server
_LEAST_DISK = 100 * _MIB
_VARIABLES = (
    "FLSEC_DATA",
    "FLSEC_CACHE",
    "FLWR_HOME",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
    "FLWR_TELEMETRY_ENABLED",
    "RAY_ADDRESS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


class Fact(NamedTuple):
    """One line of what was found.

    Attributes:
        about: the group that it belongs to.
        what: its name.
        found: how it is.
        status: ``"ok"``; ``"note"``: may matter, and stops no run by itself; ``"stop"``: would stop a run.
        advice: what to do about it, if anything.
    """

    about: str
    what: str
    found: str
    status: Literal["ok", "note", "stop"] = "ok"
    advice: str = ""


def examine(*, start_ray: bool = False) -> list[Fact]:
    """Look at everything that a run depends on; nothing is changed, and no network is asked.

    Args:
        start_ray: also start Ray and end it again.

    Returns:
        What was found, group by group. A check that fails itself is a fact, too.
    """
    checks = (_packages, _extras, _machine, _gpu, functools.partial(_ray, start_ray), _datasets, _flower, _disk)
    return [fact for check in checks for fact in _facts_of(check)]


def _facts_of(check: Callable[[], Iterator[Fact]]) -> list[Fact]:
    try:
        return list(check())
    except Exception as error:  # a report is to say what is broken, not to break with it
        name = getattr(check, "func", check).__name__.strip("_")
        return [Fact(name, "check", f"{type(error).__name__}: {error}", "stop", "This part could not be looked at.")]


def verdict(facts: list[Fact]) -> list[str]:
    """Return one sentence for each thing that would stop a run.

    Example:
        >>> verdict([Fact("data", "digits", "there", "ok"), Fact("Ray", "start", "failed", "stop", "Free memory.")])
        ['Ray: start: failed. Free memory.']
    """
    return [
        f"{fact.about}: {fact.what}: {fact.found}. {fact.advice}".rstrip() for fact in facts if fact.status == "stop"
    ]


def as_table(facts: list[Fact]) -> Table:
    """Return the facts for a terminal; in a pipe it is plain text."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", ""):
        table.add_column(title, overflow="fold")
    colours = {"ok": "green", "note": "yellow", "stop": "bold red"}
    before = ""
    for fact in facts:
        said = f"{fact.found}  {fact.advice}" if fact.advice and fact.status != "ok" else fact.found
        about = fact.about if fact.about != before else ""
        table.add_row(about, fact.what, _plain(said), f"[{colours[fact.status]}]{fact.status}[/]")
        before = fact.about
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


# --- versions -------------------------------------------------------------------------------------------------


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in metadata.requires("flsec") or []]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Fact]:
    yield Fact("versions", "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Fact("versions", "flsec", _version("flsec") or "not installed")
    for needed in _requirements():
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield _package(needed)


def _package(needed: Requirement) -> Fact:
    found, tested = _version(needed.name), TESTED.get(needed.name)
    install = f'pip install "{needed.name}{needed.specifier}"'
    if found is None:
        return Fact("versions", needed.name, "not installed", "stop", install)
    if not needed.specifier.contains(found, prereleases=True):
        return Fact("versions", needed.name, f"{found}; flsec needs {needed.specifier}", "stop", install)
    if tested and Version(found).release != Version(tested).release:
        return Fact("versions", needed.name, f"{found}; tested with {tested}", "note")
    return Fact("versions", needed.name, f"{found}, tested" if tested else found)


def _extras() -> Iterator[Fact]:
    groups: dict[str, list[str]] = {}
    for needed in _requirements():
        extra = re.search(r"extra == ['\"](.+?)['\"]", str(needed.marker or ""))
        if extra:
            groups.setdefault(extra[1], []).append(needed.name)
    for group, names in groups.items():
        missing = [name for name in names if _version(name) is None]
        advice = f'If you need it: pip install "flsec[{group}]"'
        found = f"lacks {', '.join(missing)}" if missing else "all there"
        yield Fact("extras", group, found, "note" if missing else "ok", advice if missing else "")


# --- the machine ----------------------------------------------------------------------------------------------


def _machine() -> Iterator[Fact]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Fact("machine", "cores", f"{usable} of {os.cpu_count()} for this process")
    total, free = _memory()
    low = free is not None and free < _LEAST_MEMORY
    yield Fact(
        "machine",
        "memory",
        f"{_size(free)} free of {_size(total)}",
        "stop" if low else "ok",
        f"A client's process with torch takes 0.6 GiB; free at least {_size(_LEAST_MEMORY)}." if low else "",
    )


def _memory() -> tuple[int | None, int | None]:
    """Return what there is and what of it is free, by the system's count and by the container's limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    except OSError:  # no Linux
        return None, None
    total, free = told["MemTotal"], told["MemAvailable"]
    limit, used = (_number(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None and limit < total:
        total, free = limit, min(free, limit - used)
    return total, free


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # none, or "max"
        return None


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def _gpu() -> Iterator[Fact]:
    if importlib.util.find_spec("torch") is None:
        return  # said among the versions
    import torch

    if not torch.cuda.is_available():
        yield Fact("machine", "GPU", f"none that torch {torch.__version__} can use; clients train on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            works = bool((torch.ones(2, device=f"cuda:{number}") * 2).sum() == 4)
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            yield Fact("machine", f"GPU {number}", f"{name}: {reason}", "note", "Use simulation.device: cpu.")
            continue
        found = f"{name}, {_size(free)} free of {_size(total)}"
        yield Fact(
            "machine", f"GPU {number}", found if works else f"{name} computes wrongly", "ok" if works else "stop"
        )


# --- Ray ------------------------------------------------------------------------------------------------------


def _ray(start: bool) -> Iterator[Fact]:
    if importlib.util.find_spec("ray") is None:
        return
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        low = free < _LEAST_SHM
        advice = "Give the container more, such as docker run --shm-size=1g, or use engine: inprocess." if low else ""
        yield Fact("Ray", "/dev/shm", f"{_size(free)} free", "stop" if low else "ok", advice)
    place = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir())
    writable = os.access(place, os.W_OK)
    advice = "" if writable else "Set RAY_TMPDIR to a folder that you may write to."
    yield Fact(
        "Ray", "its files", f"{place}{'' if writable else ' is not writable'}", "ok" if writable else "stop", advice
    )
    total, free_memory = _memory()
    if total and free_memory is not None and free_memory < 0.05 * total:
        advice = "Ray ends workers when 95% are used. Free some, or use engine: inprocess."
        yield Fact("Ray", "memory", f"{_size(free_memory)} free of {_size(total)}", "stop", advice)
    if start:
        yield _started()
    else:
        yield Fact("Ray", "starts", "not tried; flsec doctor --start-ray does")


def _started() -> Fact:
    import ray

    from flsec.simulations.engines.ray_cluster import connect

    try:
        connect({"num_cpus": 1})
        return Fact("Ray", "starts", "yes")
    except Exception as error:  # whatever keeps it from starting
        return Fact("Ray", "starts", f"no: {type(error).__name__}: {error}", "stop", "Or use engine: inprocess.")
    finally:
        ray.shutdown()


# --- data -----------------------------------------------------------------------------------------------------


def _datasets() -> Iterator[Fact]:
    for name, load in DATASETS.items():
        needed = [
            key
            for key, (_, parameter) in parameters_of(load).items()
            if parameter.default is inspect.Parameter.empty and parameter.kind is parameter.KEYWORD_ONLY
        ]
        if needed:
            yield Fact("data", name, f"reads your own: {', '.join(needed)}")
            continue
        try:
            place = locate(load)
        except ConfigError as error:
            supply = str(error).partition("To supply it: ")[2]
            yield Fact("data", name, "not found", "note", f"To supply it: {supply}" if supply else str(error))
        else:
            yield Fact("data", name, str(place) if place else "built in")


# --- Flower and files -----------------------------------------------------------------------------------------


def _flower() -> Iterator[Fact]:
    home = Path(os.environ.get("FLWR_HOME") or "~/.flwr").expanduser()
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    writable = os.access(existing, os.W_OK) and existing.is_dir()
    yield Fact(
        "Flower",
        "FLWR_HOME",
        f"{home}{'' if home.exists() else ' (not made yet)'}{'' if writable else ', not writable'}",
        "ok" if writable else "stop",
        "" if writable else "Set FLWR_HOME to a folder that you may write to.",
    )
    yield _flower_config(home / "config.toml")
    if os.environ.get("FLWR_TELEMETRY_ENABLED", "1") != "0":
        yield Fact("Flower", "telemetry", "on, Flower's default", "note", "To turn it off: FLWR_TELEMETRY_ENABLED=0")
    for name in _VARIABLES:
        if name in os.environ:
            yield Fact("variables", name, os.environ[name])


def _flower_config(file: Path) -> Fact:
    if not file.exists():
        return Fact("Flower", "config.toml", "none; Flower's defaults")
    try:
        with file.open("rb") as stream:
            superlinks = tomllib.load(stream).get("superlink", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        return Fact("Flower", "config.toml", f"{file} cannot be read: {error}", "stop", "Mend or remove it.")
    names = [name for name, value in superlinks.items() if isinstance(value, dict)]
    return Fact("Flower", "config.toml", f"{file}; SuperLinks: {', '.join(names) or 'none'}")


def _disk() -> Iterator[Fact]:
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        advice = "Go elsewhere, or set output.folder to an absolute path."
        yield Fact("files", "runs", f"{here} is not writable", "stop", advice)
        return
    free = shutil.disk_usage(here).free
    low = free < _LEAST_DISK
    advice = "A run keeps its model and three checkpoints." if low else ""
    yield Fact("files", "runs", f"{here / 'runs'}: {_size(free)} free", "stop" if low else "ok", advice)
