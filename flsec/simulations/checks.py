"""Checks of an experiment's settings against each other, and against the data."""

import contextlib
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch

from flsec.client_apps import Attack, AttackContext
from flsec.data import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.models import MODELS
from flsec.registry import yaml_name
from flsec.simulations.problems import Findings, Problem, Unread, blame_parameter, say_where
from flsec.simulations.resources import Resources, StandIns, resources_of, wrap
from flsec.simulations.schema import AttackEntry, Config
from flsec.simulations.yaml_lines import KeyPath
from flsec.strategies import DEFENSES, Adversary, BanList, RobustStrategy, ServerOptimizer
from flsec.strategies.base import FlowerStrategy
from flsec.tasks import NOT_COUNTED, Task, misfit

__all__ = ["Ready", "check_data", "check_on_data", "check_settings", "has_needed_defense"]


def check_settings(config: Config, resources: Resources | None = None) -> None:
    """Check settings against each other, before any data are read.

    Args:
        config: the experiment; where some of it could not be read, the rest is checked.
        resources: of the experiment.

    Raises:
        Problem: two of them cannot work together, or an attack or a defense refuses its own.
        Problems: several of these.
    """
    real = resources_of(config) if resources is None else resources
    findings = Findings()
    for check in (_check_size, _check_address, _check_sampling, _check_camps, _check_attackers):
        with findings:
            check(config)
    with findings:
        real.exporters()
    stand_ins = StandIns(real)
    with findings:
        _check_adversaries_per_round(config, stand_ins)
    for index, _ in enumerate(config.attacks):
        with findings:
            _check_needed_defense(config, index)
        with findings:
            _check_attack(config, index, stand_ins)
    _, wrappers = _built(config, stand_ins, findings, range(len(config.defenses)))
    for index, wrapper in wrappers.items():
        with findings:
            _check_scale(config, "defenses", index, wrapper)
        with findings:
            _check_enough(config, index, wrapper, stand_ins)
    findings.raise_all()


def _built(
    config: Config, resources: Resources, findings: Findings, indices: Collection[int], *, whole: bool = True
) -> tuple[FlowerStrategy | None, dict[int, RobustStrategy]]:
    """Build the defenses around each other; if that fails, each by itself, so that every one says what it refuses.

    Args:
        config: the experiment.
        resources: of the experiment.
        findings: where what they refuse goes.
        indices: of those defenses that may be built.
        whole: whether the attacks may be built, which a whole strategy takes.

    Returns:
        The whole strategy, None if it fails; and the wrappers that could be built, by their places in the file.
    """
    whole = whole and len(indices) == len(config.defenses)
    if whole:
        try:
            strategy = resources.new_strategy()
            return strategy, dict(enumerate(_defenses(strategy)))
        except (ConfigError, Unread) as error:
            failed = error
    wrappers = {}
    for index in indices:
        with findings:
            wrappers[index] = wrap(resources.plain_strategy(), index, config.defenses[index], resources)
    with findings:
        resources.server_strategy()
    if whole:
        with findings:
            raise failed
    return None, wrappers


def _defenses(strategy: FlowerStrategy) -> list[RobustStrategy]:
    """Return the wrappers that the file names, in its order."""
    wrappers = strategy.chain() if isinstance(strategy, RobustStrategy) else []
    return [wrapper for wrapper in wrappers if not isinstance(wrapper, Adversary | ServerOptimizer)]


def _check_size(config: Config) -> None:
    size, available = config.simulation.cohort_size, config.simulation.num_clients
    if size > available:
        raise Problem(
            ("simulation", "clients_per_round"),
            f"must be at most num_clients, {available}; got {size}. For example: clients_per_round: {available}",
        )


def _check_address(config: Config) -> None:
    if config.simulation.ray_address is not None and config.simulation.engine == "inprocess":
        raise Problem(("simulation", "ray_address"), "needs an engine on Ray. For example: engine: pooled")


def _check_attackers(config: Config) -> None:
    if config.attacks and config.adversaries is None:
        raise Problem(("attacks",), "need adversaries to carry them out. For example: adversaries: {fraction: 0.2}")
    if config.adversaries is not None and not config.attacks:
        raise Problem(("adversaries",), "need attacks to carry out. For example: attacks: [{name: sign_flipping}]")


def has_needed_defense(config: Config, attack: AttackEntry) -> bool:
    """Whether the defense is there without which an attack has no effect, where there is such a one."""
    needed = getattr(attack.member, "needs_defense", None)
    return needed is None or any(issubclass(entry.member, DEFENSES.get(needed)) for entry in config.defenses)


def _check_needed_defense(config: Config, index: int) -> None:
    attack = config.attacks[index]
    if not has_needed_defense(config, attack):
        needed = attack.member.needs_defense
        raise Problem(
            ("attacks", index, "name"),
            f"{attack.name} has no effect without the defense {needed}, which is not there. For example: defenses: "
            f"[{{name: {needed}}}]",
        )


def _check_attack(config: Config, index: int, resources: StandIns) -> None:
    _check_scale(config, "attacks", index, resources.attack(index))


def _check_enough(config: Config, index: int, wrapper: RobustStrategy, resources: StandIns) -> None:
    """Refuse a defense for which a round has too few clients."""
    if wrapper.needed_of(config.simulation.cohort_size) > config.simulation.cohort_size:
        raise _too_few(config, index, wrapper, resources)


def _check_scale(config: Config, section: str, index: int, member: Any) -> None:
    """Have an attack or a defense whose settings are stated for values in [0, 1] refuse others."""
    check = getattr(member, "check_scale", None)
    if config.data.scale != 1 and check is not None:
        writable = getattr(config, section)[index].writable
        blame_parameter((section, index), writable, check, config.data.scale)


def _check_sampling(config: Config) -> None:
    simulation = config.simulation
    if simulation.sampling == "uniform":
        return
    if any(issubclass(entry.member, BanList) for entry in config.defenses):
        raise Problem(
            ("simulation", "sampling"),
            "without_replacement asks each client once, and a ban would keep nobody away. For example: sampling: "
            "uniform",
        )
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


def _check_adversaries_per_round(config: Config, resources: Resources) -> None:
    adversaries, wanted = resources.adversaries, config.simulation.adversaries_per_round
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
        SettingsError: all that is wrong, as ``load_config``.
    """
    with say_where(config.origin):
        resources = resources_of(config)
        strategy = check_on_data(config, resources)
    assert strategy is not None  # since all could be read
    return Ready(resources, strategy)


def check_on_data(config: Config, resources: Resources) -> FlowerStrategy | None:
    """Do the same for settings of which some may be unreadable.

    Returns:
        The run's strategy; None if too little can be read to build it.

    Raises:
        Problem: something does not fit.
        Problems: several things.
    """
    clean = _one_of_each_class(resources.dataset)
    resources.task  # noqa: B018 - refuses data that are not for it
    findings = Findings()
    with findings:
        _check_partition(config, resources)
    with findings:
        _check_adversaries_per_round(config, resources)
    with findings:
        _check_served(config, resources)
        _check_model(config, resources)
    sound = 0
    for index, attack in enumerate(config.attacks):
        with findings:
            _check_fit(resources.task, ("attacks", index), attack.name, attack.member)
            _check_attack_on_data(config, index, resources, clean)
            sound += 1
    fitting = []
    for index, defense in enumerate(config.defenses):
        with findings:
            _check_fit(resources.task, ("defenses", index), defense.name, defense.member)
            fitting.append(index)
    strategy, wrappers = _built(config, resources, findings, fitting, whole=sound == len(config.attacks))
    for index, wrapper in wrappers.items():
        entry = config.defenses[index]
        with findings:
            _check_fit(resources.task, ("defenses", index), entry.name, wrapper)
            _show_samples(wrapper, clean, ("defenses", index), entry.writable)
    findings.raise_all()
    return strategy


def _check_attack_on_data(config: Config, index: int, resources: Resources, clean: ArrayDataset) -> None:
    entry, attack = config.attacks[index], resources.attack(index)
    _check_fit(resources.task, ("attacks", index), entry.name, attack)
    _show_samples(attack, clean, ("attacks", index), entry.writable)
    _show_model(attack, resources, ("attacks", index), entry.writable)
    if attack.poisons_data:
        _check_poison(config, index, attack, clean, resources.dataset)


def _one_of_each_class(source: DataSource) -> ArrayDataset:
    """Return samples in which every class is found, or of sequences every token that is a label."""
    classes = source.task.classes(torch.from_numpy(source.train.labels))
    labels = source.train.labels if classes is None else classes.numpy()
    first = np.unique(labels, return_index=True)[1]
    return source.train.subset(np.unique(first // (labels.size // len(labels))))


def _check_fit(task: Task, path: KeyPath, name: str, member: Any) -> None:
    """Refuse an attack or a defense, a class or what was built, that makes no sense on the task."""
    if reason := misfit(member, task):
        raise Problem((*path, "name"), f"{name} {reason}. `flsec describe {name}` says which tasks it fits.")


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
