"""What an experiment's file may say: its sections, their keys and defaults."""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import ATTACKS
from flsec.data import DATASETS, PARTITIONERS
from flsec.data.augmentation import Augmentation
from flsec.data.subset import Size
from flsec.errors import ConfigError
from flsec.models import MODELS
from flsec.parameters import Count, NonNegative, OpenFraction, Positive, PositiveCount, parameters_of
from flsec.registry import Registry
from flsec.simulations.any_strategy import SAMPLING, check_strategy
from flsec.simulations.exporter import EXPORTERS
from flsec.simulations.names import elsewhere_in_file
from flsec.simulations.problems import Findings, Origin, Problem, Unread, as_yaml_data, blame_parameter
from flsec.simulations.run_names import check_folder_name, check_output_folder
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.signatures import fields_of, parameters_model, problems_in, values_with_defaults
from flsec.simulations.start_model import start_file
from flsec.simulations.supplies import (
    NOT_IN_FILES,
    SUPPLIED_TO_ATTACKS,
    SUPPLIED_TO_DEFENSES,
    SUPPLIED_TO_STRATEGIES,
)
from flsec.simulations.yaml_lines import KeyPath
from flsec.strategies import DEFENSES
from flsec.tasks import TASKS
from flsec.training import Training

__all__ = [
    "ADVERSARIES_SUPPLIED",
    "AttackEntry",
    "Component",
    "Config",
    "DataEntry",
    "DefenseEntry",
    "ExporterEntry",
    "FolderName",
    "ModelEntry",
    "Output",
    "OutputFolder",
    "PartitionEntry",
    "Readable",
    "Simulation",
    "StrategyEntry",
    "TaskEntry",
]


class Readable(BaseModel):
    """Settings of which some may be unreadable: a check that asks for one of these is told so.

    ``dig`` makes the holes, in settings that serve to find what else is wrong and are used for nothing else.
    """

    if not TYPE_CHECKING:

        def __getattr__(self, name):  # asked where there is no such attribute
            if name in type(self).model_fields:
                raise Unread(name)
            return super().__getattr__(name)

    def dig(self, path: KeyPath) -> None:
        """Make a setting unreadable, with the sections around it that are no ``Readable``."""
        key, inner = path[0], vars(self).get(str(path[0]))
        entry = inner[path[1]] if len(path) > 1 and isinstance(inner, tuple) and isinstance(path[1], int) else inner
        rest = path[1:] if entry is inner else path[2:]
        if isinstance(entry, Readable) and (rest or entry is not inner):
            entry.dig(rest) if rest else entry.dig_all()
        else:
            vars(self).pop(str(key), None)

    def dig_all(self) -> None:
        """Make all settings unreadable."""
        vars(self).clear()


class Component(Readable):
    """A member of a registry by name, with its own parameters beside the name; defaults are filled in."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    registry: ClassVar[Registry]
    supplied: ClassVar[tuple[str, ...]] = ()  # parameters that the simulation sets itself

    name: str

    @property
    def params(self) -> dict[str, Any]:
        """The member's own parameters."""
        if self.model_extra is None:
            raise Unread("params")
        return dict(self.model_extra)

    def dig(self, path: KeyPath) -> None:
        """Make a setting unreadable; of the member's own parameters all, since the member takes them together."""
        if path[0] in type(self).model_fields:
            super().dig(path)
        else:
            object.__setattr__(self, "__pydantic_extra__", None)

    def dig_all(self) -> None:
        """Make all settings unreadable."""
        super().dig_all()
        object.__setattr__(self, "__pydantic_extra__", None)

    @property
    def member(self) -> Any:
        """The class or function itself."""
        return self.registry.get(self.name)

    @property
    def writable(self) -> tuple[str, ...]:
        """The member's parameters that a file may set."""
        return tuple(parameters_model(self.member, self.supplied).model_fields)

    @classmethod
    def check_member(cls, name: str, member: Any) -> None:
        """Raise ``ConfigError`` if the registry has the member and an experiment cannot use it all the same."""

    @model_validator(mode="wrap")
    @classmethod
    def _check_parameters(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if not isinstance(values, Mapping):
            return handler(values)
        name = values.get("name", cls.model_fields["name"].get_default())
        own = {key: value for key, value in values.items() if key in fields_of(cls)}
        params = {key: value for key, value in values.items() if key not in own}
        findings, made = Findings(), None
        with findings:
            params = cls._with_defaults(name, params) if isinstance(name, str) else params
        try:
            made = handler({**own, **params})
        except ValidationError as error:
            for problem in problems_in(cls, error.errors()):
                if problem.path in ((), ("name",)) and problem.parameter == "name":
                    problem.mend = None  # whose parameters the others are, is not known: the whole is unreadable
                findings.add(problem)
        findings.raise_all()
        return made

    @classmethod
    def _with_defaults(cls, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            member = cls.registry.get(name)
            cls.check_member(name, member)
        except ConfigError as error:
            there = elsewhere_in_file(name)
            raise Problem(("name",), f"no {cls.registry.kind} {name!r}. {there}" if there else str(error)) from None
        values = values_with_defaults(parameters_model(member, cls.supplied), params, legal=tuple(fields_of(cls)))
        for key, (hint, _) in parameters_of(member).items():
            if Path in typing.get_args(hint) and isinstance(values.get(key), str):  # a place that it writes to
                blame_parameter((key,), (), check_output_folder, values[key])
        return values


class StrategyEntry(Component):
    """A server optimizer: one of Flower's strategies or of flsec's, or any other by ``package.module:Class``."""

    registry = STRATEGIES
    supplied = (*NOT_IN_FILES, *SAMPLING, *SUPPLIED_TO_STRATEGIES)
    name: str = "fedavg"

    @classmethod
    def check_member(cls, name: str, member: Any) -> None:
        """Refuse what a simulation cannot run, or a file cannot describe."""
        check_strategy(name, member)


class DefenseEntry(Component):
    """A defense, without what it wraps."""

    registry = DEFENSES
    supplied = (*NOT_IN_FILES, *SUPPLIED_TO_DEFENSES)
    name: str = Field(examples=["median"])


class AttackEntry(Component):
    """An attack, without those who run it."""

    registry = ATTACKS
    supplied = ("data_attribute", "inputs_key", "labels_key", *SUPPLIED_TO_ATTACKS)
    name: str = Field(examples=["sign_flipping"])


def _start(written: str | None) -> str | None:
    """Return the file's absolute path: workers may have another current directory."""
    return None if written is None else str(blame_parameter((), (), start_file, written))


class ModelEntry(Component):
    """A model, without the shape of the data.

    Attributes:
        name: of the model; its own parameters stand beside it.
        from: a trained model to start from: the folder of a finished run, or a .safetensors file with the same arrays;
            null: initial weights by the seed. Its SHA-256 goes into the run's ``environment.json``.
    """

    registry = MODELS
    supplied = ("input_shape", "num_classes", "vocab_size", "pad")
    name: str = Field(examples=["mlp"])
    start: Annotated[str | None, AfterValidator(_start)] = Field(default=None, alias="from", examples=[None])

    def dig(self, path: KeyPath) -> None:
        """Make a setting unreadable."""
        super().dig(("start",) if path[0] == "from" else path)


class TaskEntry(Component):
    """What is learned."""

    registry = TASKS
    name: str = Field(examples=["classification"])


class PartitionEntry(Component):
    """A way to deal the data out."""

    registry = PARTITIONERS
    supplied = ("labels", "num_clients", "groups", "seed")
    name: str = "iid"


def _augmentation(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    settings = values_with_defaults(parameters_model(Augmentation), values)
    return blame_parameter((), settings, Augmentation, **settings)


class DataEntry(Component):
    """A data set and how it is dealt out.

    Attributes:
        name: of the data set; its own parameters stand beside it.
        partition: how the training samples are dealt out to clients.
        root_samples: how many training samples the server keeps for itself, where a defense needs such a root set.
        client_sample_share: share of its data that each client gives to the server, where a defense needs that.
        subset: how many training samples to use if an int, a share of them if a float; drawn at random, the same
            whatever the seed of the run, with every class's share kept; null: all. The root set comes out of these.
        test_subset: likewise of the test set.
        scale: what every value is multiplied by: 255 makes pixels lie in [0, 255]. Learning rates and triggers are then
            to be written for such values.
        augment: random changes of the pictures in clients' training batches; null: none. ``crop``: shift by up to so
            many pixels; ``flip``: mirror each with probability 1/2.
    """

    registry = DATASETS
    name: str = "digits"
    partition: PartitionEntry = Field(default=PartitionEntry(), examples=[{"name": "iid"}])
    root_samples: PositiveCount = 100
    client_sample_share: OpenFraction = 0.03
    subset: Size | None = None
    test_subset: Size | None = None
    scale: Positive = 1.0
    augment: Annotated[Augmentation | None, BeforeValidator(_augmentation)] = Field(
        default=None, examples=[{"crop": 4, "flip": True}]
    )


class _Section(Readable):
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


def _output_folder(folder: str) -> str:
    return blame_parameter((), (), check_output_folder, folder)


class ExporterEntry(Component):
    """Where numbers also go."""

    registry = EXPORTERS
    name: str = Field(examples=["tensorboard"])


def _each_with_a_name(values: Any) -> Any:
    """Return a list of sections, of which one may be written without a list, and one without parameters by its name."""
    entries = [values] if isinstance(values, str | Mapping) else values
    if not isinstance(entries, list | tuple):
        return entries
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


OutputFolder = Annotated[str, AfterValidator(_output_folder)]


class Output(_Section):
    """What a run leaves behind.

    Attributes:
        folder: where the run's own folder is made: below the current directory, or an absolute path.
        checkpoint_every: rounds between checkpoints.
        keep_checkpoints: how many of the newest to keep; null: all.
        evaluate_every: rounds between measurements of the global model.
        plots: whether to draw.
        compare: whether ``flsec run`` also runs the experiment without its attack and without its defense, and shows
            all of them in one table and one picture. Sweeps, studies and deployments run the experiment alone.
        log_to: where the numbers of each round also go: ``tensorboard``, ``mlflow``, ``wandb``, a subclass of
            ``flsec.simulations.exporter.Exporter`` as ``"my_package:MyExporter"``, or a list of these; one with
            parameters is a section with its ``name``.
    """

    folder: OutputFolder = Field(default="runs", min_length=1)
    checkpoint_every: PositiveCount = 1
    keep_checkpoints: PositiveCount | None = 3
    evaluate_every: PositiveCount = 1
    plots: bool = True
    compare: bool = False
    log_to: Annotated[tuple[ExporterEntry, ...], BeforeValidator(_each_with_a_name)] = Field(
        default=(), strict=False, examples=["tensorboard"]
    )


def _training(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    settings = values_with_defaults(parameters_model(Training), values)
    return blame_parameter((), settings, Training, **settings)


ADVERSARIES_SUPPLIED = ("num_clients", "num_rounds", "seed")


def _folder_name(name: str) -> str:
    return blame_parameter((), (), check_folder_name, name)


FolderName = Annotated[str, AfterValidator(_folder_name)]


def _adversaries(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    derived = {"candidates": values["candidates"]} if isinstance(values.get("candidates"), Mapping) else {}
    if derived:
        blame_parameter(("candidates",), ("holders_of",), _check_holders, derived["candidates"])
    said = {key: value for key, value in values.items() if key not in derived}
    return {**values_with_defaults(parameters_model(Adversaries, ADVERSARIES_SUPPLIED), said), **derived}


def _check_holders(said: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless the candidates to attack are the holders of one class."""
    label = said.get("holders_of")
    if set(said) != {"holders_of"} or isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ConfigError(f"must be a list of clients or {{holders_of: CLASS}}; got {dict(said)}. {_HOLDERS}")


_HOLDERS = "For example: candidates: {holders_of: 4}"


class Config(_Section):
    """An experiment, complete and checked; ``load_config`` makes one from a file.

    Attributes:
        name: what reports and its folder are called; default: the file's name.
        seed: of all that is random.
        data: the data set and how it is dealt out.
        task: what is learned; null: what the data set is for.
        model: what is trained.
        training: how a client trains.
        strategy: Flower's, inside the defenses.
        defenses: outermost first.
        attacks: what adversaries do.
        adversaries: who attacks and when: the parameters of ``Adversaries`` but those that the run supplies.
        simulation: how large the run is and what runs it.
        output: what it leaves behind.

    Example:
        >>> from flsec.simulations.config import load_config, resolve_experiment
        >>> config = load_config(resolve_experiment("quickstart"))
        >>> isinstance(config, Config), config.training.optimizer
        (True, 'sgd')
    """

    name: FolderName = Field(min_length=1)
    seed: Count = 0
    data: DataEntry = Field(default=DataEntry(), examples=[{"name": "digits"}])
    task: TaskEntry | None = Field(default=None, examples=[{"name": "classification"}])
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

    @property
    def origin(self) -> Origin:
        """Where the settings come from, for messages."""
        return self._origin

    def read_from(self, origin: Origin) -> None:
        """Remember where the settings come from."""
        self._origin = origin

    def asks_for(self, resource: str) -> bool:
        """Return whether some defense or attack asks for a resource by this name."""
        findings, asked = Findings(), False
        for entry in (*self.defenses, *self.attacks):
            with findings:  # an entry that could not be read asks for nothing
                asked = asked or resource in parameters_of(entry.member)
        return asked

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain data that loads to an equal ``Config``."""
        settings: dict[str, Any] = as_yaml_data(self.model_dump(by_alias=True))
        return settings
