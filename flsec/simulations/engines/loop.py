"""The server's side of a simulation: the rounds, their evaluation and their checkpoints, the same for all engines."""

import contextlib
import functools
import json
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid
from safetensors.torch import save

from flsec._files import replacing
from flsec._tensors import tensor_of
from flsec.client_apps.client_state import prune_states
from flsec.client_apps.projected_gradient import ProjectedGradient
from flsec.errors import ConfigError, NoProgressError, SaveError
from flsec.metrics.accuracy import per_class_accuracy
from flsec.metrics.oif import outsized_impact_factor
from flsec.simulations.checks import Ready
from flsec.simulations.clients import CHECKPOINTS, RUN, SETTINGS
from flsec.simulations.engines.grid import PartitionGrid
from flsec.simulations.engines.interrupted import Interrupted
from flsec.simulations.engines.sampling import Sampling
from flsec.simulations.exporter import ExportedRun
from flsec.simulations.exports import Exports
from flsec.simulations.records import defense_record, summarise
from flsec.simulations.run_folder import RunFolder
from flsec.strategies._truth import are_real
from flsec.strategies.base import RobustStrategy, RoundReport
from flsec.tasks import Task
from flsec.training import evaluate, get_weights, logits_of, predictions_of, set_weights, weight_names

__all__ = ["ServerLoop"]

_MOST_CLASSES = 1000  # of which a record lists each; a vocabulary has tens of thousands


class ServerLoop:
    """Run the rounds of one experiment on a grid, and write what happens into a run folder.

    The same loop serves all engines: it is called with whatever grid the engine gives it.

    Args:
        ready: the experiment's resources, and a strategy for this run alone.
        folder: where records, checkpoints and the model go.
        on_round: called with each round's record, for progress.
        resume_from: the round whose checkpoint to continue from; None starts afresh, -1 takes the newest that is whole.
            Before anything has been saved, the run begins again.
        asks: whether clients are asked for their partitions, as in a deployment; see ``PartitionGrid``.
    """

    def __init__(
        self,
        ready: Ready,
        folder: RunFolder,
        on_round: Callable[[dict[str, Any]], None] = lambda record: None,
        resume_from: int | None = None,
        *,
        asks: bool = False,
    ):
        self.resources, self.strategy = ready
        self.config = self.resources.config
        self.folder = folder
        self.on_round = on_round
        self.resume_from = resume_from
        self.asks = asks
        self._exports = Exports(self.resources.exporters())
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._on_supernodes = False
        self._completed: tuple[int, Any] | None = None
        self._sampling = Sampling(self.config, self.resources.adversaries)
        self._sampled: set[int] = set()  # since the last checkpoint

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run; what goes wrong is kept in ``error``, because Flower runs this in a thread of its own."""
        try:
            with self.folder.lock.held():
                self._run_or_save(grid)
        except BaseException as error:
            self.error = error
            raise

    def _run_or_save(self, grid: Grid) -> None:
        """Run; where that ends early, save the last complete round."""
        try:
            self._run(grid)
        except BaseException as error:
            self._exports.close(None)
            if self._completed is not None:
                with contextlib.suppress(SaveError):  # the disk may have room for nothing, or for this
                    self._checkpoint(*self._completed)
            if isinstance(error, SaveError):
                raise SaveError(f"{error} {self.folder.how_to_go_on()}") from error
            if isinstance(error, Interrupted):
                raise Interrupted(self.folder.path) from None
            raise

    def _run(self, grid: Grid) -> None:
        simulation = self.config.simulation
        self.device = self.resources.device
        model = self.resources.new_model()
        self.names = weight_names(model)
        strategy = self.strategy
        if not isinstance(strategy, RobustStrategy):
            # Undefended is plain averaging by example counts; impossible replies are still quarantined.
            strategy = RobustStrategy(strategy, weighting="examples")
        weights = get_weights(model)
        done, state = 0, None
        if self.resume_from is not None:
            done, state = self.folder.load_checkpoint(None if self.resume_from < 0 else self.resume_from)
            self.folder.go_back_to(done if state is not None else -1)
        if state is not None:
            weights = state["weights"]
            strategy.load_state_dict(state["strategy"])
            self._completed = (done, state)
            self._open_exports()
        else:
            self._open_exports()
            first = {"weights": weights, "strategy": strategy.state_dict()}
            self._record(self._evaluated({"round": 0}, model, weights))
            self._completed = (0, first)
        self._on_supernodes = self.asks and are_real(grid)
        nodes = PartitionGrid(
            grid, simulation.num_clients, self.stop, asks=self.asks, timeout=simulation.client_timeout
        )
        for round_ in range(done + 1, simulation.num_rounds + 1):
            weights = self._round(round_, nodes, strategy, model, weights)
        self._finish(weights)

    def _round(
        self, round_: int, nodes: PartitionGrid, strategy: RobustStrategy, model: torch.nn.Module, weights: list[Any]
    ) -> list[Any]:
        started = time.perf_counter()
        sampled = self._select(round_, nodes, strategy)
        arrays = ArrayRecord({name: Array(array) for name, array in zip(self.names, weights, strict=True)})
        try:
            messages = strategy.configure_train(round_, arrays, ConfigRecord(self._told()), nodes)
            replies = nodes.send_and_receive(messages, timeout=self.config.simulation.client_timeout)
            trained = time.perf_counter()
            result, metrics = strategy.aggregate_train(round_, replies)
        except NoProgressError:  # the round that is one too many is in the record as well
            self._record({"round": round_, "sampled": sampled, **self._defense_record(strategy.last_report, sampled)})
            raise
        assert result is not None, "flsec's strategies always return a model"
        start, weights = weights, [result[name].numpy() for name in self.names]
        aggregated = time.perf_counter()
        record = {"round": round_, "sampled": sampled, **self._defense_record(strategy.last_report, sampled)}
        client_metrics = {k: v for k, v in dict(metrics or {}).items() if not k.startswith("flsec-")}
        record["clients"] = client_metrics
        every = self.config.output.evaluate_every
        if round_ % every == 0 or round_ == self.config.simulation.num_rounds:
            record = self._evaluated(record, model, weights, start)
        record["seconds"] = {
            "clients": trained - started,
            "aggregation": aggregated - trained,
            "evaluation": time.perf_counter() - aggregated,
        }
        self._record(record)  # first, since a checkpoint counts only with the records of its rounds
        self._completed = (round_, {"weights": weights, "strategy": strategy.state_dict()})
        every = self.config.output.checkpoint_every
        if round_ % every == 0 or round_ == self.config.simulation.num_rounds:
            self._checkpoint(*self._completed)
        return weights

    def _select(self, round_: int, nodes: PartitionGrid, strategy: RobustStrategy) -> list[int]:
        """Show the strategy this round's clients, and return their partition ids."""
        simulation = self.config.simulation
        excluded = strategy.excluded_among(round_, range(simulation.num_clients))
        sampled = self._sampling.draw(round_, excluded)
        self._sampled.update(sampled)
        # where these are too few, it sees some that it will not ask, so that it does not wait for others to come
        nodes.selected = [*sampled, *sorted(excluded)[: simulation.cohort_size - len(sampled)]]
        return sampled

    def _told(self) -> dict[str, Any]:
        """Return what clients are told with each message; in a deployment they know nothing of the experiment."""
        if not self.asks:
            return {}
        rounds = self.folder.checkpoint_rounds()
        return {SETTINGS: self._settings, RUN: self._run_id, **({CHECKPOINTS: rounds} if rounds else {})}

    @functools.cached_property
    def _settings(self) -> str:
        return json.dumps(self.config.to_dict())

    @functools.cached_property
    def _run_id(self) -> str:
        """The id under which the nodes of a deployment keep their clients' state of this run."""
        file = self.folder.path / "deployment_id"
        if not file.is_file():
            if self.folder.client_states.exists():
                raise ConfigError(
                    f"{str(self.folder.path)!r} is a simulation's: what its clients kept lies there, and SuperNodes do "
                    "not have it. Go on with it by `flsec run --resume`."
                )
            file.write_text(uuid.uuid4().hex)
        return file.read_text()

    def _defense_record(self, report: RoundReport | None, sampled: Collection[int]) -> dict[str, Any]:
        assert report is not None
        adversaries = self.resources.adversaries
        hostile = None if adversaries is None else adversaries.active(report.round)
        record = defense_record(report, hostile, sampled)
        if adversaries is None and self._on_supernodes:
            record["adversaries"] = None  # who attacks there, if anybody does, is not known
        return record

    def _evaluated(self, record: dict[str, Any], model: torch.nn.Module, weights: Any, start: Any = None) -> Any:
        """Add test loss, accuracy, accuracy per class and the attacks' success to a record."""
        set_weights(model, weights)
        model = model.to(self.device)
        x, y = (part.to(self.device) for part in self.resources.test_data)
        result = evaluate(model, x, y, task=self.resources.task)
        record["loss"], record["accuracy"] = float(result.loss), float(result.accuracy)
        record["measures"] = {name: value for name, value in result.measures.items() if name != "accuracy"}
        classes = self.resources.dataset.num_classes
        if self.resources.task.labels == "class" and classes <= _MOST_CLASSES:
            record["per_class_accuracy"] = per_class_accuracy(result.predictions, y, classes)
        predict = _Predict(model, self.resources.task, record["round"], start)
        record["attack"] = {}
        for attack in self.resources.attacks:
            for name, value in attack.success(predict, x.cpu(), y.cpu(), result.predictions.cpu()).items():
                record["attack"][name if name not in record["attack"] else f"{name}_{len(record['attack'])}"] = value
        return record

    def _open_exports(self) -> None:
        run = ExportedRun(self.config.name, self.folder.path, self.config.to_dict(), self.folder.token)
        self._exports.open(run, self.folder.rounds())

    def _record(self, record: dict[str, Any]) -> None:
        self.folder.append_round(record)
        self._exports.log(record)
        self.on_round(record)

    def _checkpoint(self, round_: int, state: Any) -> None:
        self.folder.save_checkpoint(round_, state, self.config.output.keep_checkpoints)
        prune_states(self.folder.client_states, self._sampled, self.folder.checkpoint_rounds())
        self._sampled.clear()

    def _finish(self, weights: list[Any]) -> None:
        self._check_progress()
        with replacing(self.folder.path / "model.safetensors") as file:
            file.write(save({name: tensor_of(array) for name, array in zip(self.names, weights, strict=True)}))
        known = [
            {"name": type(attack).__name__, "knowledge": attack.knowledge, "knows_defense": attack.knows_defense}
            for attack in self.resources.attacks
        ]
        summary = summarise(self.config, self.folder.rounds())
        summary = {**summary, **self._impact(summary["attack"]), "attackers": known}
        self.folder.write_summary(summary)
        self._exports.close(summary)

    def _check_progress(self) -> None:
        """Refuse to call a run finished in which no client ever sent an update that could be used."""
        rounds = [record for record in self.folder.rounds() if record["round"] > 0]
        lost = [{entry["client_id"] for entry in record["quarantined"]} for record in rounds]
        if rounds and all(clients >= set(record["sampled"]) for clients, record in zip(lost, rounds, strict=True)):
            reasons = sorted({entry["reason"] for entry in rounds[-1]["quarantined"]})
            raise NoProgressError(
                f"in none of {len(rounds)} rounds a client sent an update that could be used; in the last, clients "
                f"{'; '.join(reasons[:5])}. The model is what it was at first. Mend what the log says."
            )

    def _impact(self, attack: dict[str, Any]) -> dict[str, Any]:
        """Return SparseFed's OIF where an attack has chosen samples misclassified."""
        fitted = [a for a in self.resources.attacks if isinstance(a, ProjectedGradient)]
        adversaries = self.resources.adversaries
        if not fitted or adversaries is None or "attack_accuracy" not in attack:
            return {}
        oif = outsized_impact_factor(
            round(attack["attack_accuracy"]["last"] * len(fitted[0].wanted_labels)),
            num_attackers=len(adversaries.pool()),
            num_clients=self.config.simulation.num_clients,
            num_samples=int(self.resources.partition.sizes().sum()),
        )
        return {"outsized_impact_factor": oif}


@dataclass(frozen=True)
class _Predict:
    """The global model, as attacks ask it for their success."""

    model: torch.nn.Module
    task: Task
    round: int = 0
    start: list[Any] | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return predictions_of(self.model, inputs, task=self.task)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model, inputs)
