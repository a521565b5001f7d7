"""What a study of reconstruction may say: its file, read and checked as far as that goes without data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from flsec.parameters import Count, PositiveCount
from flsec.reconstruction import INVERSIONS
from flsec.reconstruction.invert_observation import INVERSION_SUPPLIED
from flsec.simulations.config import Check, load_config, make_config, read_with_overrides, resolve_experiment
from flsec.simulations.problems import Findings, Origin, Problem, as_yaml_data, as_yaml_text, blame_parameter, say_where
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Component, Config, DataEntry, FolderName, OutputFolder, Readable
from flsec.simulations.signatures import validate_as_far
from flsec.simulations.studies.through import THROUGH, Through

__all__ = ["ReconstructionStudy", "load_reconstruction"]


class InversionEntry(Component):
    """An inversion and its settings."""

    registry = INVERSIONS
    supplied = INVERSION_SUPPLIED
    name: str = "invert_gradients"


class ThroughEntry(Component):
    """A change of updates, in several strengths."""

    registry = THROUGH
    name: str = Field(examples=["unchanged"])


class ReconstructionOutput(Readable):
    """What a study leaves behind.

    Attributes:
        folder: where the study's own folder is made.
        pictures: whether to draw originals beside reconstructions.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folder: OutputFolder = Field(default="runs", min_length=1)
    pictures: bool = True


class ReconstructionStudy(Readable):
    """A study of what updates give away, complete and checked; ``load_reconstruction`` makes one from a file.

    The network, the data and the clients' training are those of an experiment or of a run. Clients are honest, and do
    nothing about their privacy but what ``through`` says: defenses and attacks of the experiment play no part.

    Attributes:
        name: of the study and its folder; default: the file's name.
        seed: of the choice of images, of noise and of random starts.
        experiment: an experiment as for ``flsec run``, or the name or file of one: its untrained network is attacked.
        run: instead, the folder of a run.
        round: with ``run``, after which round: 0 is the untrained network, others need a checkpoint; null: the final
            model.
        clients: partition ids of the clients whose updates are looked at.
        images: how many of its images a client trains on.
        batches: how many such sets of images each client has, one after the other.
        labels: ``"revealed"`` by the last layer first, ``"known"`` to the server, or ``"searched"`` by the inversion,
            if it can.
        attack: the inversion and its settings.
        through: what updates go through, each by itself.
        output: what the study leaves behind.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: FolderName = Field(min_length=1)
    seed: Count = 0
    experiment: str | dict[str, Any] | None = Field(default=None, examples=["quickstart"])
    run: str | None = Field(default=None, examples=["runs/quickstart"])
    round: Count | None = None
    clients: tuple[Count, ...] = Field(default=(0,), strict=False, min_length=1)
    images: PositiveCount = 1
    batches: PositiveCount = 1
    labels: Literal["revealed", "known", "searched"] = "revealed"
    attack: InversionEntry = Field(default=InversionEntry(), examples=[{"name": "invert_gradients"}])
    through: tuple[ThroughEntry, ...] = Field(
        default=(ThroughEntry(name="unchanged"),), strict=False, min_length=1, examples=[[{"name": "unchanged"}]]
    )
    output: ReconstructionOutput = Field(default=ReconstructionOutput(), examples=[{"folder": "runs"}])

    _origin: Origin = PrivateAttr(default=Origin("<study>"))
    _config: Config = PrivateAttr()

    @property
    def origin(self) -> Origin:
        """Where the settings come from, for messages."""
        return self._origin

    @property
    def config(self) -> Config:
        """The experiment that data, network and training are taken from."""
        return self._config

    @property
    def folder(self) -> Path:
        """Where the study's results go."""
        return Path(self.output.folder) / self.name

    def changes(self) -> list[Through]:
        """Return what updates go through, in the order of the file."""
        return [
            blame_parameter(("through", index), entry.writable, THROUGH.build, entry.name, entry.params)
            for index, entry in enumerate(self.through)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain data that loads to an equal study."""
        settings: dict[str, Any] = as_yaml_data(self.model_dump(by_alias=True))
        return settings


def load_reconstruction(
    path: str | Path, overrides: Sequence[str] = (), further: Sequence[Check] = ()
) -> ReconstructionStudy:
    """Read a study and check all that can be checked without its data.

    Args:
        path: of a YAML file.
        overrides: ``key.sub=value`` each, the value in YAML, such as ``attack.max_iterations=100``.
        further: checks of the experiment beyond its settings, such as of its data.

    Raises:
        SettingsError: settings cannot work: of each the file and line, the key, the rule, what was got and what would
            do.
        ConfigError: the file cannot be read at all, or an override leads nowhere.
    """
    data, origin = read_with_overrides(path, overrides)
    name = Path(path).name.removesuffix(".yaml").removesuffix(".reconstruct")
    written = {"name": name, **{key: value for key, value in data.items() if value is not None}}
    findings = Findings()
    read, holes = validate_as_far(ReconstructionStudy, written, findings)
    with say_where(origin):
        if read is None:
            findings.raise_all()
        study: ReconstructionStudy = read
        for hole in holes:
            study.dig(hole)
        with findings:
            config = _experiment(study, origin, further)
            if study.experiment is not None:
                study = study.model_copy(update={"experiment": config.to_dict()})
            study._origin, study._config = origin, config
            _cross_check(study)
        findings.raise_all()
    return study


def _experiment(study: ReconstructionStudy, origin: Origin, further: Sequence[Check]) -> Config:
    """Return the experiment that a study is about; what is wrong in it is an error in its own file."""
    with say_where(origin):
        if (study.experiment is None) == (study.run is None):
            raise Problem(("experiment",), "give either experiment or run. For example: experiment: quickstart")
        if study.round is not None and study.run is None:
            raise Problem(("round",), "goes with run; of an experiment the untrained network is attacked.")
        if study.run is not None:
            folder = blame_parameter(("run",), (), RunFolder.open, Path(study.run))
            return load_config(folder.path / "config.yaml", (), further)
        if isinstance(study.experiment, str):
            file = blame_parameter(("experiment",), (), resolve_experiment, study.experiment)
            return load_config(file, (), further)
    assert isinstance(study.experiment, dict)  # nothing else is left
    inside = {
        table: {path[1:]: value for path, value in getattr(origin, table).items() if path[:1] == ("experiment",)}
        for table in ("lines", "overrides")
    }
    return make_config({"name": study.name, **study.experiment}, Origin(origin.file, **inside), further)


def _check_pictures(data: DataEntry) -> None:
    """Refuse data that an inversion, which expects pixels in [0, 1] as the client trained on them, cannot give back."""
    for key, value, plain in (("scale", data.scale, 1.0), ("augment", data.augment, None)):
        if value != plain:
            raise Problem(
                ("experiment", "data", key),
                f"a reconstruction is compared with the pictures that the client has, with pixels in [0, 1]; the "
                f"experiment's data have {key}: {as_yaml_text(getattr(data, key))}. In the experiment's data: "
                f"{key}: {as_yaml_text(plain)}",
            )


def _cross_check(study: ReconstructionStudy) -> None:
    _check_pictures(study.config.data)
    available = study.config.simulation.num_clients
    for index, client_id in enumerate(study.clients):
        if client_id >= available:
            raise Problem(
                ("clients", index), f"must be less than num_clients, {available}; got {client_id}. For example: 0"
            )
    seen: set[tuple[str, float]] = set()
    for index, (entry, change) in enumerate(zip(study.through, study.changes(), strict=True)):
        for strength in change.strengths:
            if (entry.name, strength) in seen:
                raise Problem(
                    ("through", index), f"{entry.name} {as_yaml_text(strength)} stands there twice. Keep one."
                )
            seen.add((entry.name, strength))
            if change.num_clients(strength) > available:
                raise Problem(
                    ("through", index, change.strength),
                    f"must be at most num_clients, {available}; got {strength}. For example: [{available}]",
                )
