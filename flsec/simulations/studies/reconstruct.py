"""What a curious server can rebuild of its clients' data, and what is left of it once updates are changed on the way.

The work of ``flsec reconstruct``: clients train as in an experiment, each on a few of its own images; their updates go
through changes such as clipping or noise; an inversion makes images of what arrives; and these are compared with the
true ones, beside two answers that leak nothing.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from rich.table import Table
from safetensors.numpy import load_file
from torch import Tensor

from flsec.client_apps.torch_client import TorchClient
from flsec.errors import ConfigError
from flsec.metrics import reconstruction_scores
from flsec.parameters import Count, PositiveCount
from flsec.randomness import numpy_generator, seed_for
from flsec.reconstruction import INVERSIONS, Observation, Reconstruction, invert_observation
from flsec.reconstruction.invert_observation import INVERSION_SUPPLIED
from flsec.simulations.config import apply_override, load_config, make_config, resolve_experiment
from flsec.simulations.problems import Origin, Problem, as_yaml_data, as_yaml_text, blame_parameter, say_where
from flsec.simulations.resources import Resources
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Component, Config, FolderName
from flsec.simulations.signatures import validate
from flsec.simulations.studies.leakage_plots import plot_leakage, plot_pairs
from flsec.simulations.studies.through import THROUGH, Through
from flsec.simulations.yaml_lines import read
from flsec.strategies.cohort import Layout
from flsec.training import get_weights, pick_device, weight_names

__all__ = ["ReconstructionStudy", "leakage_table", "load_reconstruction", "run_reconstruction"]

Row = dict[str, Any]
Arrays = list[npt.NDArray[Any]]

_OTHER_IMAGES = 1000  # that the two baselines are made of


# --- what a file may say --------------------------------------------------------------------------------------


class InversionEntry(Component):
    """An inversion and its settings."""

    registry = INVERSIONS
    supplied = INVERSION_SUPPLIED
    name: str = "invert_gradients"


class ThroughEntry(Component):
    """A change of updates, in several strengths."""

    registry = THROUGH
    name: str = Field(examples=["unchanged"])


class ReconstructionOutput(BaseModel):
    """What a study leaves behind.

    Attributes:
        folder: where the study's own folder is made.
        pictures: whether to draw originals beside reconstructions.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folder: str = Field(default="runs", min_length=1)
    pictures: bool = True


class ReconstructionStudy(BaseModel):
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
        settings: dict[str, Any] = as_yaml_data(self.model_dump())
        return settings


def load_reconstruction(path: str | Path, overrides: Sequence[str] = ()) -> ReconstructionStudy:
    """Read a study and check all that can be checked without its data.

    Args:
        path: of a YAML file.
        overrides: ``key.sub=value`` each, the value in YAML, such as ``attack.max_iterations=100``.

    Raises:
        ConfigError: a setting cannot work: the file and line, the key, the rule, what was got and what would do.
    """
    data, lines = read(Path(path))
    origin = Origin(str(path), lines)
    for override in overrides:
        apply_override(data, override, origin)
    name = Path(path).name.removesuffix(".yaml").removesuffix(".reconstruct")
    written = {"name": name, **{key: value for key, value in data.items() if value is not None}}
    with say_where(origin):
        study: ReconstructionStudy = validate(ReconstructionStudy, written)
    config = _experiment(study, origin)
    if study.experiment is not None:
        study = study.model_copy(update={"experiment": config.to_dict()})
    study._origin, study._config = origin, config
    with say_where(origin):
        _cross_check(study)
    return study


def _experiment(study: ReconstructionStudy, origin: Origin) -> Config:
    """Return the experiment that a study is about; what is wrong in it is an error in its own file."""
    with say_where(origin):
        if (study.experiment is None) == (study.run is None):
            raise Problem(("experiment",), "give either experiment or run. For example: experiment: quickstart")
        if study.round is not None and study.run is None:
            raise Problem(("round",), "goes with run; of an experiment the untrained network is attacked.")
        if study.run is not None:
            folder = blame_parameter(("run",), (), RunFolder.open, Path(study.run))
            return load_config(folder.path / "config.yaml")
        if isinstance(study.experiment, str):
            return load_config(blame_parameter(("experiment",), (), resolve_experiment, study.experiment))
    assert isinstance(study.experiment, dict)  # nothing else is left
    inside = {
        table: {path[1:]: value for path, value in getattr(origin, table).items() if path[:1] == ("experiment",)}
        for table in ("lines", "overrides")
    }
    return make_config({"name": study.name, **study.experiment}, Origin(origin.file, **inside))


def _cross_check(study: ReconstructionStudy) -> None:
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


# --- the clients' side ----------------------------------------------------------------------------------------


class _Case(NamedTuple):
    """One row of the results."""

    through: str
    change: Through
    strength: float
    client: int
    batch: int

    @property
    def key(self) -> tuple[Any, ...]:
        """Tell it from other rows."""
        return (self.through, self.strength, self.client, self.batch)


def _cases(study: ReconstructionStudy) -> Iterator[_Case]:
    for entry, change in zip(study.through, study.changes(), strict=True):
        for strength in change.strengths:
            for client in study.clients:
                for batch in range(study.batches):
                    yield _Case(entry.name, change, strength, client, batch)


class _Bench:
    """The clients of a study and the server that watches them."""

    def __init__(self, study: ReconstructionStudy):
        self.study = study
        self.experiment = Resources(study.config)
        self.device = pick_device(study.config.simulation.device)
        self.model = self.experiment.new_model().to(self.device)
        done, self.sent = _attacked_weights(study, self.experiment)
        self.round = min(done + 1, study.config.simulation.num_rounds)  # in which the clients train
        self.layout = Layout(self.sent, weight_names(self.model))
        self._check_images()
        rows = {row for case in _cases(study) for member in self.members(case) for row in self.rows(member, case.batch)}
        train = self.experiment.dataset.train
        others = np.setdiff1d(np.arange(len(train)), sorted(rows))
        drawn = numpy_generator(study.seed, purpose="other images").permutation(others)[:_OTHER_IMAGES]
        self.others = train.tensors(np.sort(drawn))[0]

    def _check_images(self) -> None:
        needed = self.study.images * self.study.batches
        for case in _cases(self.study):
            for client_id in self.members(case):
                size = len(self.experiment.partition[client_id])
                if size < needed:
                    raise Problem(
                        ("images",),
                        f"every client needs images * batches = {needed} images; client {client_id} has {size}. "
                        f"For example: images: {max(1, size // self.study.batches)}",
                    )

    def members(self, case: _Case) -> list[int]:
        """Return the clients whose updates are mixed."""
        total = self.study.config.simulation.num_clients
        return [(case.client + place) % total for place in range(case.change.num_clients(case.strength))]

    def rows(self, client_id: int, batch: int) -> npt.NDArray[np.int64]:
        """Return which training images a client trains on."""
        own = self.experiment.partition[client_id]
        order = numpy_generator(self.study.seed, 0, client_id, "images").permutation(len(own))
        chosen: npt.NDArray[np.int64] = own[order[batch * self.study.images : (batch + 1) * self.study.images]]
        return chosen

    def examples(self, case: _Case) -> tuple[Tensor, Tensor]:
        """Return the images and labels behind what the server sees."""
        rows = np.concatenate([self.rows(client_id, case.batch) for client_id in self.members(case)])
        return self.experiment.dataset.train.tensors(rows)

    def observation(self, case: _Case) -> Observation:
        """Have the clients train, change their updates, and return what the server holds and assumes."""
        trained = [self._trained(client_id, case) for client_id in self.members(case)]
        start = self.layout.flatten(self.sent)
        updates = torch.stack([self.layout.flatten(arrays) - start for arrays in trained])
        seed = seed_for(self.study.seed, self.round, case.client, f"through {case.batch}")
        seen = case.change.seen(updates, case.strength, seed)
        training, images, mixed = self.experiment.training, self.study.images, len(trained)
        return Observation(
            sent=self.sent,
            received=self.layout.unflatten(start + seen, self.layout.buffers(trained[0])),
            learning_rate=training.learning_rate_at(self.round, self.study.config.simulation.num_rounds),
            steps=training.num_steps(images),
            batch_size=training.batch_size_for(images) * mixed,
            num_examples=images * mixed,
            labels=self.examples(case)[1].tolist() if self.study.labels == "known" else None,
        )

    def _trained(self, client_id: int, case: _Case) -> Arrays:
        config = self.study.config
        client: Any = TorchClient(
            self.model,
            self.experiment.dataset.train.subset(self.rows(client_id, case.batch)),
            self.experiment.training,
            client_id=client_id,
            num_rounds=config.simulation.num_rounds,
            device=self.device,
            seed=config.seed,
        )
        half = case.change.half(case.strength, config.seed)
        arrays: Arrays = (client if half is None else half(client)).fit(self.sent, {"server-round": self.round})[0]
        return arrays

    def invert(self, case: _Case, observation: Observation) -> Reconstruction:
        """Return what the server makes of it."""
        dataset = self.experiment.dataset
        return invert_observation(
            self.model,
            observation,
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            attack=self.study.attack.name,
            settings=self.study.attack.params,
            unknown_labels="searched" if self.study.labels == "searched" else "revealed",
            seed=seed_for(self.study.seed, self.round, case.client, f"inversion {case.batch}"),
        )


def _attacked_weights(study: ReconstructionStudy, experiment: Resources) -> tuple[int, Arrays]:
    """Return after how many rounds the attacked model was the global one, and its arrays."""
    model = experiment.new_model()
    if study.run is None or study.round == 0:
        return 0, get_weights(model)
    folder = RunFolder.open(Path(study.run))
    if study.round is not None:
        done, state = blame_parameter(("round",), (), folder.load_checkpoint, study.round)
        return done, state["weights"]
    return study.config.simulation.num_rounds, _final_model(folder, weight_names(model))


def _final_model(folder: RunFolder, names: Sequence[str]) -> Arrays:
    path = folder.path / "model.safetensors"
    if not path.is_file():
        known = ", ".join(map(str, [0, *folder.checkpoint_rounds()]))
        raise Problem(("run",), f"{str(folder.path)!r} has no final model yet. Name a round that it has: {known}.")
    arrays = load_file(path)
    return [arrays[name] for name in names]


# --- the study ------------------------------------------------------------------------------------------------


def run_reconstruction(
    study: ReconstructionStudy, on_row: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Measure what has not been measured yet, and write it.

    A study that was stopped goes on with the same call. ``reconstruction.jsonl`` has one line a setting and set of
    images: MSE, PSNR, SSIM and label accuracy after the best matching, and beside them the same of two answers that
    leak nothing, the mean image and random training images. ``pictures/`` has originals beside reconstructions,
    ``leakage.png`` the PSNR against the strength of each change.

    Args:
        study: what to measure.
        on_row: called with (rows done, rows in all), for progress.

    Returns:
        The folder.

    Raises:
        ConfigError: the data is not there or too small, the model does not fit it, or the folder holds another study.
    """
    with say_where(study._origin):
        bench = _Bench(study)
    folder = _folder(study)
    file = folder / "reconstruction.jsonl"
    done = {_key(row) for row in read_rows(folder)}
    cases = list(_cases(study))
    for number, case in enumerate(cases, start=1):
        if case.key not in done:
            row = _measured(bench, case, folder)
            with file.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        on_row(number, len(cases))
    summary = summarise(read_rows(folder))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    plot_leakage(summary, folder / "leakage.png", study.name)
    return folder


def _folder(study: ReconstructionStudy) -> Path:
    """Return the study's folder, new or as it was left."""
    path = study.folder
    if not path.exists():
        path = RunFolder.create(path.parent, path.name, study.to_dict()).path
        (path / "checkpoints").rmdir()
    elif not (path / "config.yaml").is_file() or load_reconstruction(path / "config.yaml").to_dict() != study.to_dict():
        raise ConfigError(
            f"{str(path)!r} holds something else than this study. Remove it, or give the study another name or folder."
        )
    return path


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of ``reconstruction.jsonl``; a last line that was cut off is dropped."""
    file = folder / "reconstruction.jsonl"
    if not file.is_file():
        return []
    text = file.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        file.write_text(complete)
    return [json.loads(line) for line in complete.splitlines()]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("through", "strength", "client", "batch"))


def _measured(bench: _Bench, case: _Case, folder: Path) -> Row:
    """Return one row; an inversion that cannot be made at all is a row with the reason and without figures."""
    started = time.perf_counter()
    row: Row = {
        "through": case.through,
        "parameter": case.change.strength,
        "strength": case.strength,
        "client": case.client,
        "batch": case.batch,
    }
    observation = bench.observation(case)
    x, y = bench.examples(case)
    row |= {"images": len(y), "update_norm": _update_norm(observation), "steps": observation.steps}
    images = len(bench.experiment.dataset.input_shape) == 3
    try:
        result = bench.invert(case, observation)
    except ConfigError as error:
        nothing = dict.fromkeys(("mse", "psnr", "ssim", "label_accuracy", "mean_image", "random_image", "loss"))
        return {**row, **nothing, "error": str(error), "seconds": time.perf_counter() - started}
    rebuilt = result.inputs.cpu()
    if images:
        rebuilt = rebuilt.clamp(0, 1)  # an attacker knows what pixels are
    scores = reconstruction_scores(
        rebuilt,
        x,
        bench.others,
        labels=result.labels.cpu(),
        true_labels=y,
        peak=1.0 if images else float(bench.others.max() - bench.others.min()),
        seed=bench.study.seed,
    )
    if images and bench.study.output.pictures:
        name = "-".join([*_setting(row).split(), f"client-{case.client}", f"batch-{case.batch}.png"])
        picture = folder / "pictures" / name.replace("/", "-")
        similarity = scores.reconstruction
        caption = f"{_setting(row)}: {similarity.psnr:.1f} dB, SSIM {similarity.ssim or 0:.2f}"
        plot_pairs(x.numpy(), rebuilt[torch.from_numpy(scores.rows)].numpy(), picture, caption)
    return {
        **row,
        **asdict(scores.reconstruction),
        "label_accuracy": scores.label_accuracy,
        "mean_image": asdict(scores.mean_image),
        "random_image": asdict(scores.random_image),
        "loss": result.loss,
        "iterations": sum(len(losses) - 1 for losses in result.history),
        "restarts": result.restarts,
        "error": None,
        "seconds": time.perf_counter() - started,
    }


def _update_norm(observation: Observation) -> float:
    squares = (
        float(np.square(after.astype(np.float64) - before.astype(np.float64)).sum())
        for before, after in zip(observation.sent, observation.received, strict=True)
        if before.dtype.kind == "f"
    )
    return math.sqrt(sum(squares))


# --- what it comes to -----------------------------------------------------------------------------------------


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return one row a setting: means over clients and sets of images, in the order of the rows."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["through"], row["strength"]), []).append(row)
    return [_mean_row(group) for group in groups.values()]


def _mean_row(group: Sequence[Row]) -> Row:
    good = [row for row in group if row["error"] is None]
    means = {name: _mean(good, name) for name in ("mse", "psnr", "ssim", "label_accuracy")}
    baselines = {
        baseline: {name: _mean([row[baseline] for row in good], name) for name in ("mse", "psnr", "ssim")}
        for baseline in ("mean_image", "random_image")
    }
    settings = {name: group[0][name] for name in ("through", "parameter", "strength")}
    return {**settings, **means, **baselines, "psnrs": [row["psnr"] for row in good], "failed": len(group) - len(good)}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return fmean(values) if values else None


def leakage_table(folder: Path) -> Table:
    """Return the table that ``flsec reconstruct`` prints: one line a setting, the baselines beside."""
    table = Table(
        title=folder.name,
        caption="PSNR in dB; mean, random: of the mean image and of random images, which leak nothing",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("through", no_wrap=True)
    for title in ("PSNR", "mean", "random", "SSIM", "mean", "random", "labels"):
        table.add_column(title, justify="right")
    for row in summarise(read_rows(folder)):
        figures = [(row["psnr"], 1), (row["mean_image"]["psnr"], 1), (row["random_image"]["psnr"], 1)]
        figures += [(row["ssim"], 2), (row["mean_image"]["ssim"], 2), (row["random_image"]["ssim"], 2)]
        figures += [(row["label_accuracy"], 2)]
        cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in figures]
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        table.add_row(_setting(row) + failed, *cells)
    return table


def _setting(row: Row) -> str:
    """Return what an update went through, in words."""
    return (
        f"{row['through']} {row['parameter']} {as_yaml_text(row['strength'])}"
        if row["parameter"]
        else str(row["through"])
    )
