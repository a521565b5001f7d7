"""Reading an experiment: its YAML file, settings changed from outside, and those that come with the package."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError
from flsec.simulations.checks import check_settings
from flsec.simulations.names import packaged_experiments, resolve_experiment
from flsec.simulations.problems import Findings, Origin, as_yaml_text, key_text, override_label, say_where
from flsec.simulations.resources import Partial, Resources, resources_of
from flsec.simulations.schema import Config
from flsec.simulations.signatures import validate_as_far
from flsec.simulations.yaml_lines import KeyPath, parse_value, read

__all__ = [
    "Check",
    "Config",
    "apply_override",
    "load_config",
    "load_settings",
    "make_config",
    "packaged_experiments",
    "read_with_overrides",
    "resolve_experiment",
    "split_overrides",
]


Check = Callable[[Config, Resources], object]


def load_config(path: str | Path, overrides: Sequence[str] = (), further: Sequence[Check] = ()) -> Config:
    """Read an experiment and check all that can be checked without its data.

    Args:
        path: of a YAML file.
        overrides: ``key.sub=value`` each, the value in YAML; ``defenses[0].num_byzantine=3`` reaches into a list, and
            so does ``defenses.0.num_byzantine=3``.
        further: checks beyond the settings themselves, such as of the data.

    Raises:
        SettingsError: settings cannot work: of each the file and line, the key, the rule, what was got and what would
            do.
        ConfigError: the file cannot be read at all, or an override leads nowhere.

    Example:
        >>> config = load_config(resolve_experiment("quickstart"), ["seed=7", "simulation.num_rounds=3"])
        >>> config.name, config.seed, config.simulation.num_rounds
        ('quickstart', 7, 3)
    """
    data, origin = read_with_overrides(path, overrides)
    return make_config({"name": Path(path).stem, **data}, origin, further)


def load_settings(text: str, overrides: Sequence[str] = ()) -> Config:
    """Check settings that are given as YAML text, a ``name`` among them, as ``load_config`` does those of a file.

    Raises:
        ConfigError: as ``load_config``.

    Example:
        >>> text = "{name: mine, data: {name: digits}, model: {name: softmax}, training: {learning_rate: 0.1}, "
        >>> load_settings(text + "simulation: {num_clients: 10, num_rounds: 3}}", ["seed=7"]).seed
        7
    """
    data, lines = read(text, "the settings")
    origin = Origin("the settings", lines)
    for override in overrides:
        apply_override(data, override, origin)
    return make_config({"name": "experiment", **data}, origin)


def read_with_overrides(path: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Origin]:
    """Return a YAML file's plain data with ``key.sub=value`` applied, and where each of them comes from.

    Example:
        >>> data, _ = read_with_overrides(resolve_experiment("quickstart"), ["seed=7"])
        >>> data["seed"]
        7
    """
    data, lines = read(Path(path))
    origin = Origin(str(path), lines)
    for override in overrides:
        apply_override(data, override, origin)
    return data, origin


def make_config(data: Mapping[str, Any], origin: Origin | None = None, further: Sequence[Check] = ()) -> Config:
    """Check an experiment's plain data as ``load_config`` does.

    What is wrong is said all at once: what can be read is checked even where something else cannot.

    Args:
        data: as in a file; ``name`` is required.
        origin: for messages: where the data comes from.
        further: checks beyond the settings themselves, such as of the data.

    Raises:
        SettingsError: as ``load_config``.

    Example:
        >>> config = make_config({
        ...     "name": "mine", "data": {"name": "digits"}, "model": {"name": "softmax"},
        ...     "training": {"learning_rate": 0.1},
        ...     "defenses": [{"name": "median"}], "simulation": {"num_clients": 10, "num_rounds": 3},
        ... })
        >>> config.defenses[0].name, config.strategy.name
        ('median', 'fedavg')
    """
    origin = origin or Origin("<config>")
    with say_where(origin):
        written = {key: value for key, value in data.items() if value is not None}  # an empty section is its default
        findings = Findings()
        config, holes = validate_as_far(Config, written, findings)
        if config is not None:
            config.read_from(origin)
            for hole in holes:
                if hole != ("seed",):  # what is drawn depends on it, and not what is wrong
                    config.dig(hole)
            resources = Partial(config) if holes or findings.problems else resources_of(config)
            for check in (check_settings, *further):
                with findings:
                    check(config, resources)
        findings.raise_all()
    made: Config = config
    return made


def apply_override(data: dict[str, Any], text: str, origin: Origin) -> None:
    """Apply one ``key.sub=value`` to ``data`` and note where it came from."""
    label = override_label(text)
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()):
        raise ConfigError(
            f"{label}: must be key=value. For example: --set simulation.num_rounds=5, or "
            "--set 'defenses[0].num_byzantine=2'"
        )
    parts = _INDEX.sub(r".\1", key.strip()).split(".")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in parts)
    place: Any = data
    for depth, part in enumerate(path):
        above = key_text(path[:depth]) or "the experiment"
        if isinstance(place, list) and isinstance(part, int):
            if part > len(place):
                raise ConfigError(f"{label}: {above} has {len(place)} entries, so no number {part}. {_ADDRESSING}")
            place += [None] * (part == len(place))
        elif not isinstance(place, dict) or not isinstance(part, str):
            kind = (
                "a list" if isinstance(place, list) else "a section" if isinstance(place, dict) else as_yaml_text(place)
            )
            raise ConfigError(f"{label}: {above} is {kind}, so it has no {part!r}. {_ADDRESSING}")
        if depth == len(path) - 1:
            place[part] = parse_value(value, label)
        elif (place.get(part) if isinstance(place, dict) else place[int(part)]) is None:
            place[part] = [] if isinstance(path[depth + 1], int) else {}
        place = place[part]
    for table in (origin.lines, origin.overrides):
        for known in [known for known in table if known[: len(path)] == path]:
            del table[known]
    origin.overrides[path] = text


_ADDRESSING = "Name a key of a section, or an entry of a list by its number from 0, such as defenses[0].num_byzantine=2"
_INDEX = re.compile(r"\[(\d+)\]")
_KEY = re.compile(r"[^.\[\]]+(\[\d+\]|\.[^.\[\]]+)*")


def split_overrides(text: str) -> list[str]:
    """Cut ``"seed=3,defenses=[{name: krum, num_byzantine: 2}]"`` at the commas that separate settings.

    A comma separates where the value before it is complete in YAML: not within brackets, and not within quotes.

    Example:
        >>> split_overrides("seed=3,defenses=[{name: krum, num_byzantine: 2}]")
        ['seed=3', 'defenses=[{name: krum, num_byzantine: 2}]']
    """
    parts: list[str] = []
    waiting: list[str] = []
    for piece in text.split(","):
        waiting.append(piece)
        part = ",".join(waiting)
        if _is_complete(part.partition("=")[2]):
            parts.append(part)
            waiting = []
    return [part.strip() for part in [*parts, ",".join(waiting)] if part.strip()]


def _is_complete(value: str) -> bool:
    try:
        parse_value(value)
    except ConfigError:
        return False
    return True
