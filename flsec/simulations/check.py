"""``flsec check``: all that is wrong with a file, without a run."""

import math
from collections.abc import Sequence
from pathlib import Path

from flsec.errors import ConfigError
from flsec.registry import find_spelling
from flsec.simulations.checks import check_on_data
from flsec.simulations.config import Check, load_config
from flsec.simulations.engines.machine import check_on_machine
from flsec.simulations.names import KINDS_OF_FILES, elsewhere, packaged_experiments, resolve_experiment
from flsec.simulations.resources import resources_of
from flsec.simulations.schema import Config
from flsec.simulations.yaml_lines import read

__all__ = ["also_said", "check_file"]

_EVERYTHING: tuple[Check, ...] = (check_on_machine, check_on_data)


def check_file(name_or_path: str, overrides: Sequence[str] = ()) -> str:
    """Check an experiment, a sweep with all its runs, or a reconstruction, against its data and this machine, too.

    Args:
        name_or_path: of a YAML file, or of a packaged one of any kind.
        overrides: ``key.sub=value`` each, as ``load_config`` takes them.

    Returns:
        How much there is to do, in one phrase.

    Raises:
        SettingsError: all that is wrong.
        ConfigError: the file cannot be read at all.
    """
    packaged = [kind for kind in KINDS_OF_FILES.values() if find_spelling(name_or_path, packaged_experiments(kind))]
    written = not packaged and (Path(name_or_path).exists() or name_or_path.endswith((".yaml", ".yml")))
    if not packaged and not written and (sentence := elsewhere(name_or_path, *KINDS_OF_FILES)):
        raise ConfigError(sentence)
    path = Path(name_or_path) if written else resolve_experiment(name_or_path, packaged[0] if packaged else "")
    kind = packaged[0] if packaged else _kind_of(path)
    if kind == ".sweep":
        from flsec.simulations.studies.sweep import load_sweep

        cells = load_sweep(path, overrides, _EVERYTHING).cells
        return f"{len(cells)} runs; the first has {_size(cells[0].config)}"
    if kind == ".reconstruct":
        return _check_reconstruction(path, overrides)
    return _size(load_config(path, overrides, _EVERYTHING))


def _kind_of(path: Path) -> str:
    """Tell by the file's keys what it is, since its name may be anything."""
    keys = set(read(path)[0])
    if "vary" in keys:
        return ".sweep"
    return ".reconstruct" if keys & {"experiment", "run", "through"} else ""


def _check_reconstruction(path: Path, overrides: Sequence[str]) -> str:
    from flsec.simulations.problems import say_where
    from flsec.simulations.studies.reconstruct_clients import Bench, cases_of
    from flsec.simulations.studies.reconstruct_settings import load_reconstruction

    study = load_reconstruction(path, overrides, [check_on_data])
    with say_where(study.origin):
        Bench(study)
    cases = sum(1 for _ in cases_of(study))
    return f"images of clients rebuilt {cases} times, {study.images} at a time"


def _size(config: Config) -> str:
    simulation, training = config.simulation, config.training
    held = float(resources_of(config).partition.sizes().mean())
    batch = training.batch_size if isinstance(training.batch_size, int) else max(1.0, training.batch_size * held)
    steps = training.steps or (training.epochs or 1) * math.ceil(held / batch)
    steps *= simulation.num_rounds * simulation.cohort_size
    of = f" of {simulation.num_clients}" if simulation.cohort_size < simulation.num_clients else ""
    return (
        f"{simulation.num_rounds} rounds, {simulation.cohort_size}{of} clients, "
        f"about {steps:,} steps of training in all on {config.data.name}"
    )


def also_said(error: ConfigError, name_or_path: str, overrides: Sequence[str]) -> ConfigError:
    """Return, in place of the error of settings that were read alone, all that a check of the same file says."""
    try:
        check_file(name_or_path, overrides)
    except ConfigError as everything:
        return everything
    return error
