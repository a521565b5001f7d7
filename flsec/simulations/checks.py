"""Checks of an experiment's settings against each other, and against the data."""

import contextlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import Attack, AttackContext
from flsec.data import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.models import MODELS
from flsec.registry import yaml_name
from flsec.simulations.problems import Problem, blame_parameter, say_where
from flsec.simulations.resources import Resources, StandIns, resources_of, wrap
from flsec.simulations.schema import Config
from flsec.simulations.yaml_lines import KeyPath
from flsec.strategies import Adversary, RobustStrategy, ServerOptimizer
from flsec.strategies.base import FlowerStrategy
from flsec.tasks import NOT_COUNTED, Task, misfit

__all__ = ["Ready", "check_data", "check_settings"]


def check_settings(config: Config) -> None:
    """Check settings against each other, before any data are read.

    Raises:
        Problem: two of them cannot work together, or an attack or a defense refuses its own.
    """
    real = resources_of(config)
    size, available = config.simulation.cohort_size, config.simulation.num_clients
    if size > available:
        raise Problem(
            ("simulation", "clients_per_round"),
            f"must be at most num_clients, {available}; got {size}. For example: clients_per_round: {available}",
        )
    if config.simulation.ray_address is not None and config.simulation.engine == "inprocess":
        raise Problem(("simulation", "ray_address"), "needs an engine on Ray. For example: engine: pooled")
    _check_sampling(config)
    _check_adversaries_per_round(config, real.adversaries)
    if config.attacks and config.adversaries is None:
        raise Problem(("attacks",), "need adversaries to carry them out. For example: adversaries: {fraction: 0.2}")
    if config.adversaries is not None and not config.attacks:
        raise Problem(("adversaries",), "need attacks to carry out. For example: attacks: [{name: sign_flipping}]")
    _check_camps(config)
    stand_ins = StandIns(real)
    _check_attacks_and_defenses(config, stand_ins)
    _check_scale(config, stand_ins)


def _check_scale(config: Config, resources: StandIns) -> None:
    """Have attacks and defenses whose settings are stated for values in [0, 1] refuse others."""
    if config.data.scale == 1:
        return
    members: dict[str, Sequence[Any]] = {"attacks": resources.attacks, "defenses": _defenses(resources.new_strategy())}
    for section, built in members.items():
        for index, member in enumerate(built):
            check = getattr(member, "check_scale", None)
            if check is not None:
                writable = getattr(config, section)[index].writable
                blame_parameter((section, index), writable, check, config.data.scale)


def _check_sampling(config: Config) -> None:
    simulation = config.simulation
    if simulation.sampling == "uniform":
        return
    if simulation.adversaries_per_round is not None:
        raise Problem(
            ("simulation", "sampling"),
            "without_replacement leaves to chance how many adversaries a round meets, so adversaries_per_round must be "
            "null. For example: sampling: uniform",
        )
    most = simulation.num_clients // simulation.cohort_size
    if simulation.num_rounds > most:
        raise Problem(
            ("simulation", "num_rounds"),
            f"must be at most {most}, since {simulation.num_clients} clients without replacement are enough for so "
            f"many rounds of {simulation.cohort_size}; got {simulation.num_rounds}. For example: num_rounds: {most}",
        )


def _check_adversaries_per_round(config: Config, adversaries: Adversaries | None) -> None:
    wanted = config.simulation.adversaries_per_round
    if wanted is None:
        return
    where = ("simulation", "adversaries_per_round")
    if adversaries is None:
        raise Problem(where, "needs adversaries to draw from. For example: adversaries: {fraction: 0.2}")
    most = min(config.simulation.cohort_size, len(adversaries.pool()))
    if wanted > most:
        raise Problem(
            where,
            f"must be at most {most}, since a round asks {config.simulation.cohort_size} clients and there are "
            f"{len(adversaries.pool())} adversaries; got {wanted}. For example: adversaries_per_round: {most}",
        )
    honest = config.simulation.num_clients - len(adversaries.pool())
    if config.simulation.cohort_size - wanted > honest and adversaries.redraw == "never":
        raise Problem(
            where,
            f"leaves {config.simulation.cohort_size - wanted} places a round for the {honest} honest clients; "
            f"got {wanted}. For example: adversaries_per_round: {config.simulation.cohort_size - honest}",
        )


def _check_camps(config: Config) -> None:
    camps = set((config.adversaries or {}).get("camps") or {})
    used = [entry.params.get("camp") for entry in config.attacks]
    for index, camp in enumerate(used):
        if camp is not None and camp not in camps:
            known = f"one of {', '.join(sorted(camps))}" if camps else "left out, since adversaries has no camps"
            raise Problem(("attacks", index, "camp"), f"must be {known}; got {camp}.")
    idle = camps - set(used)
    if idle and None not in used:
        raise Problem(
            ("adversaries", "camps"),
            f"no attack has the camp {min(idle)}. For example, in an entry of attacks: camp: {min(idle)}",
        )


def _check_attacks_and_defenses(config: Config, resources: StandIns) -> None:
    """Build attacks and defenses, and check that a round has enough clients for each of these."""
    for index, wrapper in enumerate(_defenses(resources.new_strategy())):
        if wrapper.needed_of(config.simulation.cohort_size) > config.simulation.cohort_size:
            raise _too_few(config, index, wrapper, resources)


def _defenses(strategy: FlowerStrategy) -> list[RobustStrategy]:
    """Return the wrappers that the file names, in its order."""
    wrappers = strategy.chain() if isinstance(strategy, RobustStrategy) else []
    return [wrapper for wrapper in wrappers if not isinstance(wrapper, Adversary | ServerOptimizer)]


def _too_few(config: Config, index: int, wrapper: RobustStrategy, resources: StandIns) -> Problem:
    """Say that a round has too few clients for a defense, with a parameter that would do if there is one."""
    entry, size, needed = (
        config.defenses[index],
        config.simulation.cohort_size,
        wrapper.needed_of(config.simulation.cohort_size),
    )
    what = f"{entry.name} needs at least {needed} clients a round; got {size}."
    for key, value in entry.params.items():
        for smaller in range(min(value - 1, size), -1, -1) if type(value) is int else ():
            changed = entry.model_copy(update={key: smaller})
            with contextlib.suppress(ConfigError):
                if wrap(wrapper.strategy, index, changed, resources).needed_of(size) <= size:
                    return Problem(("defenses", index, key), f"{what} For example: {key}: {smaller}")
    key = "clients_per_round" if needed <= config.simulation.num_clients else "num_clients"
    return Problem(("defenses", index), f"{what} For example, in simulation: {key}: {needed}")


class Ready(NamedTuple):
    """What a run needs, checked.

    Attributes:
        resources: shared by everything in this process that works on the same experiment.
        strategy: the run's own.
    """

    resources: Resources
    strategy: FlowerStrategy


def check_data(config: Config) -> Ready:
    """Check the settings against the data: it is there, every client gets some; model, attacks and defenses fit it.

    Returns:
        The experiment's data, model, attacks and a strategy, ready to run.

    Raises:
        ConfigError: as ``load_config``.
    """
    with say_where(config.origin):
        resources = resources_of(config)
        _check_partition(config, resources)
        _check_served(config, resources)
        _check_model(config, resources)
        _check_fit(config, resources, *([entry.member for entry in part] for part in (config.attacks, config.defenses)))
        strategy = resources.new_strategy()
        _check_fit(config, resources, resources.attacks, _defenses(strategy))
        clean = _one_of_each_class(resources.dataset)
        for index, attack in enumerate(resources.attacks):
            _show_samples(attack, clean, ("attacks", index), config.attacks[index].writable)
            _show_model(attack, resources, ("attacks", index), config.attacks[index].writable)
            if attack.poisons_data:
                _check_poison(config, index, attack, clean, resources.dataset)
        for index, wrapper in enumerate(_defenses(strategy)):
            _show_samples(wrapper, clean, ("defenses", index), config.defenses[index].writable)
    return Ready(resources, strategy)


def _one_of_each_class(source: DataSource) -> ArrayDataset:
    """Return samples in which every class is found, or of sequences every token that is a label."""
    classes = source.task.classes(torch.from_numpy(source.train.labels))
    labels = source.train.labels if classes is None else classes.numpy()
    first = np.unique(labels, return_index=True)[1]
    return source.train.subset(np.unique(first // (labels.size // len(labels))))


def _check_fit(config: Config, resources: Resources, attacks: Sequence[Any], defenses: Sequence[Any]) -> None:
    """Refuse attacks and defenses that make no sense on the task: classes of these, or what was built."""
    task = resources.task
    members: list[tuple[str, int, Any]] = [
        *(("attacks", index, attack) for index, attack in enumerate(attacks)),
        *(("defenses", index, wrapper) for index, wrapper in enumerate(defenses)),
    ]
    for section, index, member in members:
        if reason := misfit(member, task):
            name = (config.attacks if section == "attacks" else config.defenses)[index].name
            raise Problem(
                (section, index, "name"), f"{name} {reason}. `flsec describe {name}` says which tasks it fits."
            )


def _show_samples(member: Any, clean: ArrayDataset, path: KeyPath, writable: Collection[str]) -> None:
    """Have an attack or a defense with a method ``check_samples(x)`` refuse samples that it cannot work on."""
    check = getattr(member, "check_samples", None)
    if check is not None:
        blame_parameter(path, writable, check, clean.tensors()[0])


def _show_model(attack: Attack, resources: Resources, path: KeyPath, writable: Collection[str]) -> None:
    """Have an attack with a method ``check_model(model)`` refuse a network that it cannot work on."""
    check = getattr(attack, "check_model", None)
    if check is not None:
        blame_parameter(path, writable, check, resources.new_model())


def _check_partition(config: Config, resources: Resources) -> None:
    sizes = resources.partition.sizes()
    if sizes.all():
        return
    fewer = len(sizes)
    while fewer > 1:
        fewer //= 2
        with contextlib.suppress(ConfigError):
            if resources.partition_for(fewer).sizes().all():
                break
    raise Problem(
        ("data", "partition"),
        f"every client needs a sample; {(sizes == 0).sum()} of {len(sizes)} get none, such as client {sizes.argmin()}. "
        f"For example, in simulation: num_clients: {fewer}",
    )


def _check_served(config: Config, resources: Resources) -> None:
    """Refuse a model that says it is for other tasks, before it is built; a task is also what it is derived from."""
    served = getattr(config.model.member, "tasks", None)
    names = {yaml_name(kind) for kind in type(resources.task).__mro__ if issubclass(kind, Task)}
    if served is not None and not names & set(served):
        others = [name for name, model in MODELS.items() if names & set(getattr(model, "tasks", ()))]
        raise Problem(
            ("model", "name"),
            f"{config.model.name} serves {', '.join(served)}; what is learned is {resources.task.name}."
            + (f" Models that serve it: {', '.join(others)}." if others else ""),
        )


def _check_model(config: Config, resources: Resources) -> None:
    name, source = config.model.name, resources.dataset
    model = resources.new_model().eval()
    samples = source.train.subset([0, 0]).tensors()[0]
    try:
        resources.task.check_model(model, torch.zeros_like(samples), source.num_classes)
    except ConfigError as error:
        raise Problem(("model", "name"), f"{name} {error}") from None
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())
        shape = source.input_shape
        raise Problem(("model", "name"), f"{name} fails on {source.name}'s samples, {shape}: {reason}") from None


def _check_poison(config: Config, index: int, attack: Attack, clean: ArrayDataset, source: DataSource) -> None:
    """Poison one sample of each class: labels must stay among the classes, and something must change."""
    entry, classes = config.attacks[index], source.num_classes
    has = f"{source.name} has the classes 0 to {classes - 1}"
    told = entry.params.get("num_classes", classes)
    if told != classes:
        raise Problem(
            ("attacks", index, "num_classes"),
            f"must be {classes}, since {has}; got {told}. For example: num_classes: {classes}",
        )
    context = AttackContext(round=1, client_id=0, seed=config.seed)
    poisoned: Any = blame_parameter(
        ("attacks", index), entry.writable, lambda: attack.poisoned_dataset(clean, context).tensors()
    )
    labels = [label for label in poisoned[1].flatten().tolist() if label != NOT_COUNTED]
    strange = [label for label in labels if not 0 <= label < classes]
    changed = any(not torch.equal(new, old) for new, old in zip(poisoned, clean.tensors(), strict=True))
    if strange or not changed:
        what = f"makes the label {strange[0]}" if strange else "changes no sample"
        keys = [key for key, value in entry.params.items() if _highest(value) >= classes]
        advice = f" For example: {keys[0]}: {classes - 1}" if keys and type(entry.params[keys[0]]) is int else ""
        raise Problem(("attacks", index, *keys[:1]), f"{entry.name} {what}; {has}.{advice}")


def _highest(value: Any) -> int:
    """Return the highest integer in nested lists; -1 if there is none."""
    if isinstance(value, list):
        return max(map(_highest, value), default=-1)
    return value if type(value) is int else -1
