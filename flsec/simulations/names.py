"""What can be named on the command line and in a file, looked up without importing any of it."""

from pathlib import Path

from flsec.errors import ConfigError
from flsec.registry import find_spelling, say_usual_name
from flsec.simulations.catalogue import INDEXED, indexed
from flsec.simulations.problems import nearest
from flsec.simulations.yaml_lines import read

__all__ = [
    "KINDS_OF_FILES",
    "elsewhere",
    "elsewhere_in_file",
    "names_of",
    "packaged_claims",
    "packaged_experiments",
    "resolve_experiment",
    "setting_names",
]

KINDS_OF_FILES = {"experiments": "", "sweeps": ".sweep", "reconstructions": ".reconstruct"}  # before .yaml
_ONE = {  # what one of a kind is called, the command that takes its name, and where in an experiment it is named
    "experiments": ("an experiment", "run", None),
    "sweeps": ("a sweep", "sweep", None),
    "reconstructions": ("a reconstruction", "reconstruct", None),
    "papers": ("a paper with claims", "reproduce", None),
    "claims": ("a claim of a paper", "reproduce", None),
    "kinds": ("a kind of names", "list", None),
    "defenses": ("a defense", "describe", "defenses"),
    "attacks": ("an attack", "describe", "attacks"),
    "strategies": ("a server optimizer", "describe", "strategy"),
    "datasets": ("a data set", "describe", "data"),
    "partitioners": ("a partitioner", "describe", "data.partition"),
    "models": ("a model", "describe", "model"),
    "tasks": ("a task", "describe", "task"),
    "sections": ("a section of an experiment", "describe", None),
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
    """Return the names of a kind: one that ``flsec list`` shows, ``"papers"`` with ``"claims"``, or ``"kinds"``.

    Example:
        >>> "krum" in names_of("defenses"), "quickstart" in names_of("experiments"), "sweeps" in names_of("kinds")
        (True, True, True)
    """
    if kind == "kinds":
        return [*INDEXED, *KINDS_OF_FILES]
    if kind == "claims":
        return list(packaged_claims())
    if kind == "papers":
        return list(dict.fromkeys(name.partition("/")[0] for name in packaged_claims()))
    return list(packaged_experiments(KINDS_OF_FILES[kind])) if kind in KINDS_OF_FILES else list(indexed(kind))


def setting_names() -> dict[str, list[str]]:
    """Return {section of an experiment: its keys}."""
    return {name: [entry["name"] for entry in facts["parameters"]] for name, facts in indexed("sections").items()}


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
    for kind, (one, command, _) in _ONE.items():
        if kind not in wanted and (usual := find_spelling(name, names_of(kind))):
            return f"{usual} is {one}: flsec {command} {usual}"
    return None


def elsewhere_in_file(name: str) -> str | None:
    """Return what a name is and where an experiment has such names, if anywhere.

    Example:
        >>> elsewhere_in_file("sign_flipping")
        'sign_flipping is an attack, and stands in attacks.'
    """
    for kind, (one, _, place) in _ONE.items():
        if place is not None and (usual := find_spelling(name, names_of(kind))):
            return f"{usual} is {one}, and stands in {place}."
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
        one, command, _ = _ONE[found]
        raise ConfigError(f"{path} is {one}: flsec {command} {path}")


_ONLY_IN_RECONSTRUCTIONS = {"attack", "batches", "clients", "images", "labels", "round", "through"}


def _kind_of(keys: set[str]) -> str | None:
    """Tell by a file's keys what it is; None where they do not say."""
    if {"experiment", "vary"} <= keys:
        return "sweeps"
    if keys & {"experiment", "run"}:
        return "reconstructions" if keys & _ONLY_IN_RECONSTRUCTIONS else None
    return "experiments" if "model" in keys else None
