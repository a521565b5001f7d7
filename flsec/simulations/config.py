"""An experiment: its YAML file, checked before anything starts, and the objects that it describes."""

import contextlib
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import ATTACKS, Attack, AttackContext
from flsec.data import DATASETS, PARTITIONERS, ArrayDataset, DataSource, Partition, load_dataset, make_partition
from flsec.data.root import carve_root
from flsec.errors import ConfigError
from flsec.models import MODELS, build_model
from flsec.parameters import Count, NonNegative, OpenFraction, Positive, PositiveCount, parameters_of
from flsec.registry import Registry
from flsec.simulations._validation import (
    Origin,
    Problem,
    built,
    located,
    nearest,
    parameters_model,
    plain,
    shown,
    validate,
    validated,
)
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.yaml_lines import KeyPath, parse_value, read
from flsec.strategies import DEFENSES, Adversary, RobustStrategy
from flsec.strategies.base import FlowerStrategy, Weighting
from flsec.training import Training

__all__ = [
    "ADVERSARIES_SUPPLIED",
    "SUPPLIED_TO_ATTACKS",
    "SUPPLIED_TO_DEFENSES",
    "AttackEntry",
    "Component",
    "Config",
    "DataEntry",
    "DefenseEntry",
    "ModelEntry",
    "Output",
    "PartitionEntry",
    "Simulation",
    "StrategyEntry",
    "apply_override",
    "build_adversaries",
    "build_attacks",
    "build_data",
    "build_partition",
    "build_strategy",
    "check_data",
    "load_config",
    "make_config",
    "needs",
    "packaged_experiments",
    "resolve_experiment",
]

# --- what a file may say --------------------------------------------------------------------------------------


class Component(BaseModel):
    """A member of a registry by name, with its own parameters beside the name; defaults are filled in."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    registry: ClassVar[Registry]
    supplied: ClassVar[tuple[str, ...]] = ()  # parameters that the simulation sets itself

    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The member's own parameters."""
        return dict(self.model_extra or {})

    @property
    def member(self) -> Any:
        """The class or function itself."""
        return self.registry.get(self.name)

    @model_validator(mode="before")
    @classmethod
    def _check_parameters(cls, values: Any) -> Any:
        name = isinstance(values, Mapping) and values.get("name", cls.model_fields["name"].get_default())
        if not isinstance(name, str):
            return values
        try:
            member = cls.registry.get(name)
        except ConfigError as error:
            raise Problem(("name",), str(error)) from None
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        params = {key: value for key, value in values.items() if key not in own}
        return {**own, **validated(parameters_model(member, cls.supplied), params, legal=tuple(cls.model_fields))}


class StrategyEntry(Component):
    """One of Flower's strategies."""

    registry = STRATEGIES
    name: str = "fedavg"


# What a defense's constructor may ask for by name, beside the strategy it wraps.
SUPPLIED_TO_DEFENSES = (
    "adversaries",
    "root_data",
    "client_samples",
    "client_sample_share",
    "input_shape",
    "num_classes",
    "model_factory",
    "training",
    "num_rounds",
    "seed",
)


class DefenseEntry(Component):
    """A defense, without what it wraps."""

    registry = DEFENSES
    supplied = ("strategy", *SUPPLIED_TO_DEFENSES)
    name: str = Field(examples=["median"])


# What an attack's constructor may ask for by name, beside what every attack is given.
SUPPLIED_TO_ATTACKS = ("auxiliary_data", "model_factory", "training", "clients_per_round", "num_rounds", "device")


class AttackEntry(Component):
    """An attack, without those who run it."""

    registry = ATTACKS
    supplied = ("adversaries", "data_attribute", "seed", *SUPPLIED_TO_ATTACKS)
    name: str = Field(examples=["sign_flipping"])


class ModelEntry(Component):
    """A model, without the shape of the data."""

    registry = MODELS
    supplied = ("input_shape", "num_classes")
    name: str = Field(examples=["mlp"])


class PartitionEntry(Component):
    """A way to deal the data out."""

    registry = PARTITIONERS
    supplied = ("labels", "num_clients", "groups", "seed")
    name: str = "iid"


class DataEntry(Component):
    """A data set and how it is dealt out.

    Attributes:
        root_samples: how many training samples the server keeps for itself, where a defense needs such a root set.
        client_sample_share: share of its data that each client gives to the server, where a defense needs that.
    """

    registry = DATASETS
    name: str = "digits"
    partition: PartitionEntry = Field(default=PartitionEntry(), examples=[{"name": "iid"}])
    root_samples: PositiveCount = 100
    client_sample_share: OpenFraction = 0.03


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ClientResources(_Section):
    """What Ray sets aside for one client at work; fractions let clients share."""

    num_cpus: Positive = 1.0
    num_gpus: NonNegative = 0.0


class Simulation(_Section):
    """How large the run is and what runs it.

    Attributes:
        engine: Flower's Ray runtime; the same apps on a pool of Ray actors, with far less overhead; or everything in
            this process.
        num_clients: how many there are.
        clients_per_round: how many of them each round asks; null: all.
        adversaries_per_round: exactly this many of those are adversaries, as long as so many are active; null: as many
            as chance draws.
        sampling: how a round's clients are drawn: from all, or from those that no earlier round has asked.
        num_rounds: how many rounds.
        client_resources: what Ray sets aside for one client at work.
        init_args: passed to ``ray.init``.
        ray_address: of a running Ray cluster to join, such as ``"10.0.0.5:6379"``, or ``"auto"``; null: this machine
            alone. Its nodes need flsec, the data and the output folder at the same places.
        client_timeout: seconds that a round waits for a client.
        device: where clients train; with ``"cpu"``, the GPUs of ``client_resources`` are not asked for.
    """

    engine: Literal["flower", "pooled", "inprocess"] = "flower"
    num_clients: PositiveCount = 20
    clients_per_round: PositiveCount | None = None
    adversaries_per_round: Count | None = None
    sampling: Literal["uniform", "without_replacement"] = "uniform"
    num_rounds: PositiveCount = 20
    client_resources: ClientResources = Field(default=ClientResources(), examples=[{"num_cpus": 1}])
    init_args: dict[str, Any] = Field(default={}, examples=[{"include_dashboard": False}])
    ray_address: str | None = Field(default=None, min_length=1, examples=["auto"])
    client_timeout: Positive = 600.0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def cohort_size(self) -> int:
        """How many clients a round asks."""
        return self.clients_per_round or self.num_clients

    @property
    def num_gpus(self) -> float:
        """The share of a GPU that a client at work is given; none where it trains on the CPU."""
        return 0.0 if self.device == "cpu" else self.client_resources.num_gpus


class Output(_Section):
    """What a run leaves behind.

    Attributes:
        folder: where the run's own folder is made.
        checkpoint_every: rounds between checkpoints.
        keep_checkpoints: how many of the newest to keep; null: all.
        evaluate_every: rounds between measurements of the global model.
        plots: whether to draw.
    """

    folder: str = Field(default="runs", min_length=1)
    checkpoint_every: PositiveCount = 1
    keep_checkpoints: PositiveCount | None = 3
    evaluate_every: PositiveCount = 1
    plots: bool = True


def _training(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    settings = validated(parameters_model(Training), values)
    return built((), settings, Training, **settings)


ADVERSARIES_SUPPLIED = ("num_clients", "num_rounds", "seed")


def _adversaries(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return validated(parameters_model(Adversaries, ADVERSARIES_SUPPLIED), values)


class Config(_Section):
    """An experiment, complete and checked; ``load_config`` makes one from a file.

    Attributes:
        name: what reports call it; default: the file's name.
        seed: of all that is random.
        data: the data set and how it is dealt out.
        model: what is trained.
        training: how a client trains.
        strategy: Flower's, inside the defenses.
        defenses: outermost first.
        attacks: what adversaries do.
        adversaries: who attacks and when: the parameters of ``Adversaries`` but those that the run supplies.
        simulation: how large the run is and what runs it.
        output: what it leaves behind.
    """

    name: str = Field(min_length=1)
    seed: Count = 0
    data: DataEntry = Field(default=DataEntry(), examples=[{"name": "digits"}])
    model: ModelEntry = Field(examples=[{"name": "mlp"}])
    training: Annotated[Training, BeforeValidator(_training)] = Field(examples=[{"learning_rate": 0.1}])
    strategy: StrategyEntry = Field(default=StrategyEntry(), examples=[{"name": "fedavg"}])
    defenses: tuple[DefenseEntry, ...] = Field(default=(), strict=False, examples=[[{"name": "median"}]])
    attacks: tuple[AttackEntry, ...] = Field(default=(), strict=False, examples=[[{"name": "sign_flipping"}]])
    adversaries: Annotated[dict[str, Any] | None, BeforeValidator(_adversaries)] = Field(
        default=None, examples=[{"fraction": 0.2}]
    )
    simulation: Simulation = Field(default=Simulation(), examples=[{"num_clients": 20}])
    output: Output = Field(default=Output(), examples=[{"folder": "runs"}])

    _origin: Origin = PrivateAttr(default=Origin("<config>"))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain data that loads to an equal ``Config``."""
        settings: dict[str, Any] = plain(self.model_dump())
        return settings


# --- reading one ----------------------------------------------------------------------------------------------


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment and check all that can be checked without its data.

    Args:
        path: of a YAML file.
        overrides: ``key.sub=value`` each, the value in YAML; ``defenses.0.num_byzantine=3`` reaches into a list.

    Raises:
        ConfigError: a setting cannot work: the file and line, the key, the rule, what was got and what would do.
    """
    data, lines = read(Path(path))
    origin = Origin(str(path), lines)
    for override in overrides:
        apply_override(data, override, origin)
    return make_config({"name": Path(path).stem, **data}, origin)


def make_config(data: Mapping[str, Any], origin: Origin | None = None) -> Config:
    """Check an experiment's plain data as ``load_config`` does.

    Args:
        data: as in a file; ``name`` is required.
        origin: for messages: where the data comes from.
    """
    origin = origin or Origin("<config>")
    with located(origin):
        written = {key: value for key, value in data.items() if value is not None}  # an empty section is its default
        config: Config = validate(Config, written)
        config._origin = origin
        _cross_check(config)
    return config


def packaged_experiments(kind: str = "") -> dict[str, Path]:
    """Return the files that come with the package, by name.

    Args:
        kind: what is before ``.yaml`` in their names: nothing for experiments, ``".sweep"`` for sweeps,
            ``".reconstruct"`` for reconstructions.
    """
    folder = Path(__file__).parent
    files = {file.relative_to(folder).as_posix().removesuffix(f"{kind}.yaml"): file for file in folder.rglob("*.yaml")}
    return {name: file for name, file in sorted(files.items()) if "." not in name}


def resolve_experiment(name_or_path: str | Path, kind: str = "") -> Path:
    """Return the file of a packaged experiment, such as ``"quickstart"``, or the path that was given.

    Args:
        name_or_path: as the user wrote it.
        kind: see ``packaged_experiments``.

    Raises:
        ConfigError: neither a path nor a packaged experiment.
    """
    packaged = packaged_experiments(kind)
    name, path = str(name_or_path), Path(name_or_path)
    if name in packaged:
        return packaged[name]
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    raise ConfigError(
        f"{name}: no packaged experiment has this name.{nearest(name, packaged)} Packaged: "
        f"{', '.join(packaged) or 'none'}. Or give the path of a file that ends in .yaml."
    )


def apply_override(data: dict[str, Any], text: str, origin: Origin) -> None:
    """Apply one ``key.sub=value`` to ``data`` and note where it came from."""
    label = f"--set {text}"
    key, equals, value = text.partition("=")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
    if not equals or "" in path:
        raise ConfigError(f"{label}: must be key=value. For example: --set simulation.num_rounds=5")
    place: Any = data
    for depth, part in enumerate(path):
        above = ".".join(map(str, path[:depth])) or "the experiment"
        if isinstance(place, list) and isinstance(part, int):
            if part > len(place):
                raise ConfigError(f"{label}: {above} has {len(place)} entries, so no number {part}. {_ADDRESSING}")
            place += [None] * (part == len(place))
        elif not isinstance(place, dict) or not isinstance(part, str):
            kind = "a list" if isinstance(place, list) else "a section" if isinstance(place, dict) else shown(place)
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


_ADDRESSING = "Name a key of a section, or an entry of a list by its number from 0, such as defenses.0.num_byzantine=2"

# --- checks of settings against each other --------------------------------------------------------------------


def _cross_check(config: Config) -> None:
    size, available = config.simulation.cohort_size, config.simulation.num_clients
    if size > available:
        raise Problem(
            ("simulation", "clients_per_round"),
            f"must be at most num_clients, {available}; got {size}. For example: clients_per_round: {available}",
        )
    if config.simulation.ray_address is not None and config.simulation.engine == "inprocess":
        raise Problem(("simulation", "ray_address"), "needs an engine on Ray. For example: engine: pooled")
    _check_sampling(config)
    adversaries = build_adversaries(config)
    _check_adversaries_per_round(config, adversaries)
    if config.attacks and config.adversaries is None:
        raise Problem(("attacks",), "need adversaries to carry them out. For example: adversaries: {fraction: 0.2}")
    if config.adversaries is not None and not config.attacks:
        raise Problem(("adversaries",), "need attacks to carry out. For example: attacks: [{name: sign_flipping}]")
    _check_camps(config)
    build_attacks(config, adversaries)
    strategy = build_strategy(config)
    wrappers = strategy.chain() if isinstance(strategy, RobustStrategy) else []
    for index, wrapper in enumerate(wrapper for wrapper in wrappers if not isinstance(wrapper, Adversary)):
        if wrapper.minimum_clients > size:
            raise _too_few(config, index, wrapper)


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


def _too_few(config: Config, index: int, wrapper: RobustStrategy) -> Problem:
    """Say that a round has too few clients for a defense, with a parameter that would do if there is one."""
    entry, size, needed = config.defenses[index], config.simulation.cohort_size, wrapper.minimum_clients
    what = f"{entry.name} needs at least {needed} clients a round; got {size}."
    for key, value in entry.params.items():
        for smaller in range(min(value - 1, size), -1, -1) if type(value) is int else ():
            changed = entry.model_copy(update={key: smaller})
            with contextlib.suppress(ConfigError):
                if _wrap(config, index, changed, wrapper.strategy, _stand_ins(config)).minimum_clients <= size:
                    return Problem(("defenses", index, key), f"{what} For example: {key}: {smaller}")
    key = "clients_per_round" if needed <= config.simulation.num_clients else "num_clients"
    return Problem(("defenses", index), f"{what} For example, in simulation: {key}: {needed}")


def check_data(config: Config) -> DataSource:
    """Check the settings against the data: it is there, every client gets some, model and attacks fit it.

    Returns:
        The data set.

    Raises:
        ConfigError: as ``load_config``.
    """
    with located(config._origin):
        source, _ = build_data(config)
        _check_partition(config, source)
        _check_model(config, source)
        resources = _attack_stand_ins(config) | {"model_factory": functools.partial(_new_model, config, source)}
        if needs(config, "auxiliary_data"):
            resources["auxiliary_data"] = source.test.tensors()
        for index, attack in enumerate(build_attacks(config, build_adversaries(config), resources)):
            if attack.poisons_data:
                _check_poison(config, index, attack, source)
    return source


def _check_partition(config: Config, source: DataSource) -> None:
    sizes = build_partition(config, source).sizes()
    if sizes.all():
        return
    fewer = len(sizes)
    while fewer > 1:
        fewer //= 2
        simulation = config.simulation.model_copy(update={"num_clients": fewer})
        with contextlib.suppress(ConfigError):
            if build_partition(config.model_copy(update={"simulation": simulation}), source).sizes().all():
                break
    raise Problem(
        ("data", "partition"),
        f"every client needs a sample; {(sizes == 0).sum()} of {len(sizes)} get none, such as client {sizes.argmin()}. "
        f"For example, in simulation: num_clients: {fewer}",
    )


def _new_model(config: Config, source: DataSource) -> torch.nn.Module:
    model = config.model
    return build_model(model.name, source.input_shape, source.num_classes, config.seed, **model.params)


def _check_model(config: Config, source: DataSource) -> None:
    name, shape, classes = config.model.name, source.input_shape, source.num_classes
    model = built(("model",), (), _new_model, config, source)
    try:
        with torch.no_grad():
            output = tuple(model.eval()(torch.zeros(2, *shape)).shape)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise Problem(("model", "name"), f"{name} fails on {source.name}'s samples, {shape}: {reason}") from None
    if output != (2, classes):
        raise Problem(
            ("model", "name"),
            f"{name} must return one number a class, (2, {classes}) for two samples; got {output}.",
        )


def _check_poison(config: Config, index: int, attack: Attack, source: DataSource) -> None:
    """Poison one sample of each class: labels must stay among the classes, and something must change."""
    entry, classes = config.attacks[index], source.num_classes
    has = f"{source.name} has the classes 0 to {classes - 1}"
    told = entry.params.get("num_classes", classes)
    if told != classes:
        raise Problem(
            ("attacks", index, "num_classes"),
            f"must be {classes}, since {has}; got {told}. For example: num_classes: {classes}",
        )
    clean = source.train.subset(np.unique(source.train.labels, return_index=True)[1])
    context = AttackContext(round=1, client_id=0, seed=config.seed)
    poisoned = built(("attacks", index), entry.params, lambda: attack.poisoned_dataset(clean, context).tensors())
    strange = [label for label in poisoned[1].tolist() if not 0 <= label < classes]
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


# --- the objects that a config describes ----------------------------------------------------------------------


def build_adversaries(config: Config) -> Adversaries | None:
    """Return who attacks and when; None if nobody does."""
    settings = config.adversaries
    if settings is None:
        return None
    simulation = config.simulation
    supplied = {"num_clients": simulation.num_clients, "num_rounds": simulation.num_rounds, "seed": config.seed}
    adversaries: Adversaries = built(("adversaries",), settings, Adversaries, **settings, **supplied)
    return adversaries


def build_attacks(
    config: Config, adversaries: Adversaries | None, resources: Mapping[str, Any] | None = None
) -> list[Attack]:
    """Return the attacks in the order of the file, carried out by ``adversaries``.

    Args:
        config: the experiment.
        adversaries: who attacks, and when.
        resources: what attacks ask for, by name (``SUPPLIED_TO_ATTACKS``); None: empty stand-ins, for checking the
            configuration before any data are read.
    """
    resources = resources if resources is not None else _attack_stand_ins(config)
    attacks = []
    for index, entry in enumerate(config.attacks):
        asked = [name for name in SUPPLIED_TO_ATTACKS if name in parameters_of(entry.member)]
        supplied = {"adversaries": adversaries, "seed": config.seed, **{name: resources[name] for name in asked}}
        attacks.append(built(("attacks", index), entry.params, ATTACKS.build, entry.name, entry.params, **supplied))
    return attacks


def _attack_stand_ins(config: Config) -> dict[str, Any]:
    return {
        "auxiliary_data": (torch.zeros(2, 1), torch.arange(2)),
        "model_factory": lambda: torch.nn.Linear(1, 1),
        "training": config.training,
        "clients_per_round": config.simulation.cohort_size,
        "num_rounds": config.simulation.num_rounds,
        "device": "cpu",
    }


def build_data(config: Config) -> tuple[DataSource, ArrayDataset | None]:
    """Return the clients' and the test data, and the server's root set where a defense asks for one."""
    source: DataSource = built(("data", "name"), (), load_dataset, config.data.name, **config.data.params)
    if not needs(config, "root_data"):
        return source, None
    root, rest = built(("data", "root_samples"), (), carve_root, source, config.data.root_samples, config.seed)
    return rest, root


def build_partition(config: Config, dataset: DataSource) -> Partition:
    """Return which samples each client holds."""
    entry = config.data.partition
    partition: Partition = built(
        ("data", "partition"),
        entry.params,
        make_partition,
        entry.name,
        dataset.train.labels,
        config.simulation.num_clients,
        groups=dataset.natural_ids(),
        seed=config.seed,
        **entry.params,
    )
    return partition


def needs(config: Config, resource: str) -> bool:
    """Return whether some defense or attack of the experiment asks for a resource by this name."""
    return any(resource in parameters_of(entry.member) for entry in (*config.defenses, *config.attacks))


def build_strategy(config: Config, resources: Mapping[str, Any] | None = None) -> FlowerStrategy:
    """Return Flower's strategy inside the defenses, and those inside an ``Adversary`` where an attack needs one.

    Every client that the strategy is shown takes part.

    Args:
        config: the experiment.
        resources: what defenses ask for, by name (``SUPPLIED_TO_DEFENSES``); None: empty stand-ins, for checking the
            configuration before any data are read.
    """
    size = config.simulation.cohort_size
    sampling = {"fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": size, "min_available_nodes": size}
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.ERROR)  # it warns that clients do not evaluate, which is meant
    try:
        strategy: FlowerStrategy = STRATEGIES.build(config.strategy.name, config.strategy.params, **sampling)
    finally:
        flower.setLevel(level)
    resources = resources if resources is not None else _stand_ins(config)
    for index, entry in reversed(list(enumerate(config.defenses))):
        strategy = _wrap(config, index, entry, strategy, resources)
    if any(attack.poisons_cohort for attack in resources["attacks"]):
        counts: Weighting = "uniform" if config.defenses else "examples"
        strategy = Adversary(strategy, attacks=resources["attacks"], weighting=counts)
    return strategy


def _stand_ins(config: Config) -> dict[str, Any]:
    return {
        "adversaries": build_adversaries(config),
        "root_data": (torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)),
        "client_samples": {},
        "client_sample_share": config.data.client_sample_share,
        "input_shape": (1, 8, 8),
        "num_classes": 10,
        "model_factory": lambda: torch.nn.Linear(1, 1),
        "training": config.training,
        "num_rounds": config.simulation.num_rounds,
        "seed": config.seed,
        "attacks": build_attacks(config, build_adversaries(config)),
    }


def _wrap(
    config: Config, index: int, entry: DefenseEntry, strategy: FlowerStrategy, resources: Mapping[str, Any]
) -> RobustStrategy:
    asked = [name for name in SUPPLIED_TO_DEFENSES if name in parameters_of(entry.member)]
    if "adversaries" in asked and resources["adversaries"] is None:
        raise Problem(
            ("defenses", index),
            f"{entry.name} needs to know the adversaries, and there are none. For example: "
            "adversaries: {fraction: 0.2}",
        )
    supplied = {"strategy": strategy, **{name: resources[name] for name in asked}}
    wrapper: RobustStrategy = built(
        ("defenses", index), entry.params, DEFENSES.build, entry.name, entry.params, **supplied
    )
    return wrapper
