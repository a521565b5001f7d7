"""What can be named on the command line and in a file, looked up without importing any of it."""

from pathlib import Path

from flsec.errors import ConfigError
from flsec.registry import find_spelling, say_usual_name
from flsec.simulations.index import INDEXED, indexed_names
from flsec.simulations.problems import nearest
from flsec.simulations.yaml_lines import read

__all__ = [
    "KINDS_OF_FILES",
    "elsewhere",
    "names_of",
    "packaged_claims",
    "packaged_experiments",
    "resolve_experiment",
]

KINDS_OF_FILES = {"experiments": "", "sweeps": ".sweep", "reconstructions": ".reconstruct"}  # before .yaml
_ONE = {  # what one of a kind is called, and the command that takes its name
    "experiments": ("an experiment", "run"),
    "sweeps": ("a sweep", "sweep"),
    "reconstructions": ("a reconstruction", "reconstruct"),
    "claims": ("a claim of a paper", "reproduce"),
    "kinds": ("a kind of names", "list"),
    "defenses": ("a defense", "describe"),
    "attacks": ("an attack", "describe"),
    "strategies": ("a server optimizer", "describe"),
    "datasets": ("a data set", "describe"),
    "partitioners": ("a partitioner", "describe"),
    "models": ("a model", "describe"),
    "tasks": ("a task", "describe"),
    "sections": ("a section of an experiment", "describe"),
}


def packaged_experiments(kind: str = "") -> dict[str, Path]:
    """Return the files that come with the package, by name.

    Args:
        kind: what is before ``.yaml`` in their names: nothing for experiments, ``".sweep"`` for sweeps,
            ``".reconstruct"`` for reconstructions.

    Example:
        >>> list(packaged_experiments(".reconstruct"))
        ['reconstruction/leakage', 'reconstruction/quick']
    """
    folder = Path(__file__).parent / "experiments"
    files = {file.relative_to(folder).as_posix().removesuffix(f"{kind}.yaml"): file for file in folder.rglob("*.yaml")}
    return {name: file for name, file in sorted(files.items()) if "." not in name}


def packaged_claims() -> dict[str, Path]:
    """Return {paper/claim: its file}."""
    folder = Path(__file__).parent / "claims"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def names_of(kind: str) -> list[str]:
    """Return the names of a kind: one that ``flsec list`` shows, ``"claims"``, or ``"kinds"``, of which there are such.

    Example:
        >>> "krum" in names_of("defenses"), "quickstart" in names_of("experiments"), "sweeps" in names_of("kinds")
        (True, True, True)
    """
    if kind == "kinds":
        return [*INDEXED, *KINDS_OF_FILES]
    if kind == "claims":
        papers = dict.fromkeys(name.partition("/")[0] for name in packaged_claims())
        return [*papers, *packaged_claims()]
    return list(packaged_experiments(KINDS_OF_FILES[kind])) if kind in KINDS_OF_FILES else indexed_names(kind)


def elsewhere(name: str, *wanted: str) -> str | None:
    """Return a sentence about a name that is of another kind than the wanted ones, with the command that takes it.

    Args:
        name: as the user wrote it; another spelling does not matter.
        wanted: kinds that it is not to be found in, since it was looked for there.

    Example:
        >>> elsewhere("attack_table", "experiments")
        'attack_table is a sweep: flsec sweep attack_table'
        >>> elsewhere("attack_table", "sweeps")
    """
    for kind, (one, command) in _ONE.items():
        if kind not in wanted and (usual := find_spelling(name, names_of(kind))):
            return f"{usual} is {one}: flsec {command} {usual}"
    return None


def resolve_experiment(name_or_path: str | Path, kind: str = "") -> Path:
    """Return the file of a packaged experiment, such as ``"quickstart"``, or the path that was given.

    Args:
        name_or_path: as the user wrote it; a packaged name also in another spelling, as ``Registry.get`` has it.
        kind: see ``packaged_experiments``.

    Raises:
        ConfigError: neither a path nor a packaged experiment, or one of another kind; the message has the command
            that takes it.
    """
    packaged = packaged_experiments(kind)
    name, path = str(name_or_path), Path(name_or_path)
    if name in packaged:
        return packaged[name]
    if path.suffix in (".yaml", ".yml") or path.exists():
        _check_kind(path, kind)
        return path
    if usual := find_spelling(name, packaged):
        say_usual_name("experiment", name, usual)
        return packaged[usual]
    wanted = next(files for files, ending in KINDS_OF_FILES.items() if ending == kind)
    if sentence := elsewhere(name, wanted):
        raise ConfigError(f"{sentence}. What is asked for here is {_ONE[wanted][0]}.")
    raise ConfigError(
        f"{name}: no packaged {_ONE[wanted][0].partition(' ')[2]} has this name.{nearest(name, packaged)} Packaged: "
        f"{', '.join(packaged) or 'none'}. Or give the path of a file that ends in .yaml."
    )


def _check_kind(path: Path, kind: str) -> None:
    """Refuse the folder of a run, and a file of another kind; what is wrong otherwise, its reader says."""
    if (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is the folder of a run. To go on with it: flsec run --resume {path}")
    try:
        keys = set(read(path)[0])
    except ConfigError:
        return
    found = _kind_of(keys)
    if found is not None and KINDS_OF_FILES[found] != kind:
        one, command = _ONE[found]
        raise ConfigError(f"{path} is {one}: flsec {command} {path}")


_ONLY_IN_RECONSTRUCTIONS = {"attack", "batches", "clients", "images", "labels", "round", "through"}


def _kind_of(keys: set[str]) -> str | None:
    """Tell by a file's keys what it is; None where they do not say."""
    if {"experiment", "vary"} <= keys:
        return "sweeps"
    if keys & {"experiment", "run"}:
        return "reconstructions" if keys & _ONLY_IN_RECONSTRUCTIONS else None
    return "experiments" if "model" in keys else None
