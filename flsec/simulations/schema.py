"""What an experiment's file may say: its sections, their keys and defaults."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

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
from flsec.simulations.problems import Origin, Problem, as_yaml_data, blame_parameter
from flsec.simulations.run_names import check_folder_name
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.signatures import fields_of, parameters_model, values_with_defaults
from flsec.simulations.start_model import start_file
from flsec.simulations.supplies import SUPPLIED_TO_ATTACKS, SUPPLIED_TO_DEFENSES, SUPPLIED_TO_STRATEGIES
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
    "FolderName",
    "ModelEntry",
    "Output",
    "PartitionEntry",
    "Simulation",
    "StrategyEntry",
    "TaskEntry",
]


class Component(BaseModel):
    """A member of a registry by name, with its own parameters beside the name; defaults are filled in."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

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

    @property
    def writable(self) -> tuple[str, ...]:
        """The member's parameters that a file may set."""
        return tuple(parameters_model(self.member, self.supplied).model_fields)

    @classmethod
    def check_member(cls, name: str, member: Any) -> None:
        """Raise ``ConfigError`` if the registry has the member and an experiment cannot use it all the same."""

    @model_validator(mode="before")
    @classmethod
    def _check_parameters(cls, values: Any) -> Any:
        name = isinstance(values, Mapping) and values.get("name", cls.model_fields["name"].get_default())
        if not isinstance(name, str):
            return values
        try:
            member = cls.registry.get(name)
            cls.check_member(name, member)
        except ConfigError as error:
            raise Problem(("name",), str(error)) from None
        keys = tuple(fields_of(cls))
        own = {key: value for key, value in values.items() if key in keys}
        params = {key: value for key, value in values.items() if key not in own}
        return {
            **own,
            **values_with_defaults(parameters_model(member, cls.supplied), params, legal=keys),
        }


class StrategyEntry(Component):
    """A server optimizer: one of Flower's strategies or of flsec's, or any other by ``package.module:Class``."""

    registry = STRATEGIES
    supplied = ("strategy", *SAMPLING, *SUPPLIED_TO_STRATEGIES)
    name: str = "fedavg"

    @classmethod
    def check_member(cls, name: str, member: Any) -> None:
        """Refuse what a simulation cannot run, or a file cannot describe."""
        check_strategy(name, member)


class DefenseEntry(Component):
    """A defense, without what it wraps."""

    registry = DEFENSES
    supplied = ("strategy", *SUPPLIED_TO_DEFENSES)
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
    start: Annotated[str | None, AfterValidator(_start)] = Field(
        default=None, alias="from", examples=["runs/quickstart"]
    )


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
    settings = values_with_defaults(parameters_model(Training), values)
    return blame_parameter((), settings, Training, **settings)


ADVERSARIES_SUPPLIED = ("num_clients", "num_rounds", "seed")


def _folder_name(name: str) -> str:
    return blame_parameter((), (), check_folder_name, name)


FolderName = Annotated[str, AfterValidator(_folder_name)]


def _adversaries(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return values_with_defaults(parameters_model(Adversaries, ADVERSARIES_SUPPLIED), values)


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
        return any(resource in parameters_of(entry.member) for entry in (*self.defenses, *self.attacks))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain data that loads to an equal ``Config``."""
        settings: dict[str, Any] = as_yaml_data(self.model_dump(by_alias=True))
        return settings
