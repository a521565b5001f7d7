"""The clients of a study of reconstruction, what becomes of their updates, and the server that inverts them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from torch import Tensor

from flsec._numbers import is_weight, mean
from flsec.client_apps.torch_client import TorchClient
from flsec.randomness import numpy_generator, seed_for
from flsec.reconstruction import Observation, Reconstruction, invert_observation
from flsec.simulations.problems import Problem, blame_parameter
from flsec.simulations.resources import Resources, resources_of
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies.reconstruct_settings import ReconstructionStudy
from flsec.simulations.studies.through import Through
from flsec.state_arrays import state_of_module
from flsec.strategies.cohort import Layout
from flsec.training import get_weights, pick_device, weight_names

__all__ = ["Bench", "Case", "cases_of"]

Arrays = list[npt.NDArray[Any]]

_OTHER_IMAGES = 1000  # that the two baselines are made of


class Case(NamedTuple):
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


def cases_of(study: ReconstructionStudy) -> Iterator[Case]:
    """Yield what is to be measured, in the order of the file."""
    for entry, change in zip(study.through, study.changes(), strict=True):
        for strength in change.strengths:
            for client in study.clients:
                for batch in range(study.batches):
                    yield Case(entry.name, change, strength, client, batch)


class Bench:
    """The clients of a study and the server that watches them."""

    def __init__(self, study: ReconstructionStudy):
        self.study = study
        self.experiment = resources_of(study.config)
        self._check_inputs()
        self.device = pick_device(study.config.simulation.device)
        self.model = self.experiment.new_model().to(self.device)
        done, self.sent = _attacked_weights(study, self.experiment)
        self.round = min(done + 1, study.config.simulation.num_rounds)  # in which the clients train
        self.layout = Layout(self.sent, weight_names(self.model), state_of_module(self.model))
        self._check_images()
        rows = {
            row for case in cases_of(study) for member in self.members(case) for row in self.rows(member, case.batch)
        }
        train = self.experiment.dataset.train
        others = np.setdiff1d(np.arange(len(train)), sorted(rows))
        drawn = numpy_generator(study.seed, purpose="other images").permutation(others)[:_OTHER_IMAGES]
        self.others = train.tensors(np.sort(drawn))[0]

    def _check_inputs(self) -> None:
        task, name = self.experiment.task, self.experiment.dataset.name
        if task.inputs != "numbers" or task.labels != "class":
            raise Problem(
                ("experiment", "data", "name") if self.study.run is None else ("run",),
                f"inversions rebuild images and features, real numbers with one class each; {name} is for {task.name}. "
                "Choose data for classification, such as digits.",
            )

    def _check_images(self) -> None:
        needed = self.study.images * self.study.batches
        for case in cases_of(self.study):
            for client_id in self.members(case):
                size = len(self.experiment.partition[client_id])
                if size < needed:
                    raise Problem(
                        ("images",),
                        f"every client needs images * batches = {needed} images; client {client_id} has {size}. "
                        f"For example: images: {max(1, size // self.study.batches)}",
                    )

    def members(self, case: Case) -> list[int]:
        """Return the clients whose updates are mixed."""
        total = self.study.config.simulation.num_clients
        return [(case.client + place) % total for place in range(case.change.num_clients(case.strength))]

    def rows(self, client_id: int, batch: int) -> npt.NDArray[np.int64]:
        """Return which training images a client trains on."""
        own = self.experiment.partition[client_id]
        order = numpy_generator(self.study.seed, 0, client_id, "images").permutation(len(own))
        chosen: npt.NDArray[np.int64] = own[order[batch * self.study.images : (batch + 1) * self.study.images]]
        return chosen

    def examples(self, case: Case) -> tuple[Tensor, Tensor]:
        """Return the images and labels behind what the server sees."""
        rows = np.concatenate([self.rows(client_id, case.batch) for client_id in self.members(case)])
        return self.experiment.dataset.train.tensors(rows)

    def observation(self, case: Case) -> Observation:
        """Have the clients train, change their updates, and return what the server holds and assumes."""
        trained = [self._trained(client_id, case) for client_id in self.members(case)]
        start = self.layout.flatten(self.sent)
        state = zip(*(self.layout.buffers(arrays) for arrays in trained), strict=True)
        updates = torch.stack([self.layout.flatten(arrays) - start for arrays in trained])
        seed = seed_for(self.study.seed, self.round, case.client, f"through {case.batch}")
        seen = case.change.seen(updates, case.strength, seed)
        training, images, mixed = self.experiment.training, self.study.images, len(trained)
        return Observation(
            sent=self.sent,
            received=self.layout.unflatten(start + seen, [_mixed(arrays) for arrays in state]),
            learning_rate=training.learning_rate_at(self.round, self.study.config.simulation.num_rounds),
            steps=training.num_steps(images),
            batch_size=training.batch_size_for(images) * mixed,
            num_examples=images * mixed,
            labels=self.examples(case)[1].tolist() if self.study.labels == "known" else None,
        )

    def _trained(self, client_id: int, case: Case) -> Arrays:
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

    def invert(self, case: Case, observation: Observation) -> Reconstruction:
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


def _mixed(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return what the clients' statistics or counters come to: their mean, of whole numbers the first."""
    return mean(list(arrays), [1.0] * len(arrays)) if is_weight(arrays[0].dtype) else arrays[0]


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
