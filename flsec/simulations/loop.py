"""The server's side of a simulation: the rounds, their evaluation, their records and their checkpoints."""

import functools
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid
from numpy.typing import NDArray
from safetensors.numpy import save_file

from flsec.client_apps.client_state import prune_states
from flsec.client_apps.projected_gradient import ProjectedGradient
from flsec.metrics.accuracy import per_class_accuracy
from flsec.metrics.detection import Detection, detection
from flsec.metrics.oif import outsized_impact_factor
from flsec.randomness import numpy_generator
from flsec.simulations.config import Config, build_strategy
from flsec.simulations.experiment import experiment
from flsec.simulations.grid import Interrupted, PartitionGrid
from flsec.simulations.run_folder import RunFolder
from flsec.strategies import Adversary
from flsec.strategies.base import RobustStrategy, Verdict
from flsec.training import evaluate, get_weights, logits_of, pick_device, set_weights, weight_names

__all__ = ["ServerLoop"]


class ServerLoop:
    """Run the rounds of one experiment on a grid, and write what happens into a run folder.

    The same loop serves all engines: it is called with whatever grid the engine gives it.

    Args:
        config: the experiment.
        folder: where records, checkpoints and the model go.
        on_round: called with each round's record, for progress.
        resume_from: the round whose checkpoint to continue from; None starts afresh, -1 takes the newest.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        on_round: Callable[[dict[str, Any]], None] = lambda record: None,
        resume_from: int | None = None,
    ):
        self.config = config
        self.folder = folder
        self.on_round = on_round
        self.resume_from = resume_from
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._completed: tuple[int, Any] | None = None

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run; what goes wrong is kept in ``error``, because Flower runs this in a thread of its own."""
        try:
            self._run(grid)
        except Interrupted:
            self.error = Interrupted(self.folder.path)
        except BaseException as error:
            self.error = error
        if self.error is not None:
            if self._completed is not None:
                self._checkpoint(*self._completed)
            raise self.error

    def _run(self, grid: Grid) -> None:
        simulation = self.config.simulation
        self.experiment = experiment(json.dumps(self.config.to_dict()))
        self.device = pick_device(simulation.device)
        model = self.experiment.new_model()
        self.names = weight_names(model)
        built = build_strategy(self.config, self.experiment.resources())
        # Undefended is plain averaging by example counts; impossible replies are still quarantined.
        strategy = built if isinstance(built, RobustStrategy) else RobustStrategy(built, weighting="examples")
        weights = get_weights(model)
        first = 1
        if self.resume_from is not None:
            done, state = self.folder.load_checkpoint(None if self.resume_from < 0 else self.resume_from)
            weights = state["weights"]
            strategy.load_state_dict(state["strategy"])
            self._completed = (done, state)
            self.folder.truncate_rounds(done)
            first = done + 1
        else:
            self._completed = (0, {"weights": weights, "strategy": strategy.state_dict()})
            self._record(self._evaluated({"round": 0}, model, weights))
        nodes = PartitionGrid(grid, simulation.num_clients, self.stop)
        for round_ in range(first, simulation.num_rounds + 1):
            weights = self._round(round_, nodes, strategy, model, weights)
        self._finish(weights)

    def _round(
        self, round_: int, nodes: PartitionGrid, strategy: RobustStrategy, model: torch.nn.Module, weights: list[Any]
    ) -> list[Any]:
        started = time.perf_counter()
        nodes.selected = self._sample(round_)
        arrays = ArrayRecord({name: Array(array) for name, array in zip(self.names, weights, strict=True)})
        messages = strategy.configure_train(round_, arrays, ConfigRecord(), nodes)
        replies = nodes.send_and_receive(messages, timeout=self.config.simulation.client_timeout)
        trained = time.perf_counter()
        result, metrics = strategy.aggregate_train(round_, replies)
        assert result is not None, "flsec's strategies always return a model"
        weights = [result[name].numpy() for name in self.names]
        aggregated = time.perf_counter()
        record = {"round": round_, "sampled": list(nodes.selected), **self._defense_record(strategy, round_)}
        client_metrics = {k: v for k, v in dict(metrics or {}).items() if not k.startswith("flsec-")}
        record["clients"] = client_metrics
        every = self.config.output.evaluate_every
        if round_ % every == 0 or round_ == self.config.simulation.num_rounds:
            record = self._evaluated(record, model, weights)
        record["seconds"] = {
            "clients": trained - started,
            "aggregation": aggregated - trained,
            "evaluation": time.perf_counter() - aggregated,
        }
        self._completed = (round_, {"weights": weights, "strategy": strategy.state_dict()})
        every = self.config.output.checkpoint_every
        if round_ % every == 0 or round_ == self.config.simulation.num_rounds:
            self._checkpoint(*self._completed)
        self._record(record)
        return weights

    @functools.cached_property
    def _order(self) -> NDArray[np.int64]:
        """The order in which clients are asked, where each is asked at most once."""
        rng = numpy_generator(self.config.seed, purpose="sampling")
        return rng.permutation(self.config.simulation.num_clients)

    def _sample(self, round_: int) -> list[int]:
        """Return the partition ids of this round's clients, ascending."""
        simulation, adversaries = self.config.simulation, self.experiment.adversaries
        if simulation.sampling == "without_replacement":
            start = (round_ - 1) * simulation.cohort_size
            return sorted(self._order[start : start + simulation.cohort_size].tolist())
        rng = numpy_generator(self.config.seed, round_, purpose="sampling")
        if simulation.adversaries_per_round is None or adversaries is None:
            drawn = rng.choice(simulation.num_clients, simulation.cohort_size, replace=False)
            return sorted(int(i) for i in drawn)
        hostile = sorted(adversaries.active(round_))
        honest = sorted(set(range(simulation.num_clients)) - set(hostile))
        wanted = min(simulation.adversaries_per_round, len(hostile))  # all of them, in rounds in which few are active
        chosen = [*rng.choice(hostile, wanted, replace=False)] if wanted else []
        chosen += [*rng.choice(honest, min(simulation.cohort_size - wanted, len(honest)), replace=False)]
        return sorted(int(i) for i in chosen)

    def _defense_record(self, strategy: RobustStrategy, round_: int) -> dict[str, Any]:
        report = strategy.last_report
        assert report is not None
        adversaries = self.experiment.adversaries
        hostile = adversaries.active(round_) if adversaries is not None else frozenset()
        together = [verdict.notes["chosen"] for verdict in report.verdicts if verdict.defense == _ADVERSARY]
        return {
            "adversaries": sorted(hostile & set(self._sample(round_))),
            "collusion": _plain(together[0]) if together else {},
            "quarantined": [asdict(entry) for entry in report.quarantined],
            "kept_previous_model": report.kept_previous_model,
            "defenses": [
                {
                    "name": verdict.defense,
                    "kept": list(verdict.kept),
                    "scores": _by_client(verdict.scores),
                    "weights": _by_client(verdict.weights),
                    "notes": _plain(verdict.notes),
                    "detection": _detection(verdict, hostile) if adversaries is not None else None,
                    "seconds": verdict.seconds,
                }
                for verdict in report.verdicts
                if verdict.defense != _ADVERSARY
            ],
            "stages": dict(report.seconds),
        }

    def _evaluated(self, record: dict[str, Any], model: torch.nn.Module, weights: list[Any]) -> dict[str, Any]:
        """Add test loss, accuracy, accuracy per class and the attacks' success to a record."""
        set_weights(model, weights)
        model = model.to(self.device)
        x, y = self.experiment.test_tensors(self.device)
        result = evaluate(model, x, y)
        record["loss"], record["accuracy"] = float(result.loss), float(result.accuracy)
        classes = self.experiment.dataset.num_classes
        record["per_class_accuracy"] = [_plain(v) for v in per_class_accuracy(result.predictions, y, classes)]
        predict = _Predict(model)
        record["attack"] = {}
        for attack in self.experiment.attacks:
            for name, value in attack.success(predict, x.cpu(), y.cpu(), result.predictions.cpu()).items():
                record["attack"][name if name not in record["attack"] else f"{name}_{len(record['attack'])}"] = value
        return record

    def _record(self, record: dict[str, Any]) -> None:
        self.folder.append_round(record)
        self.on_round(record)

    def _checkpoint(self, round_: int, state: Any) -> None:
        self.folder.save_checkpoint(round_, state, self.config.output.keep_checkpoints)
        since = range(max(1, round_ - self.config.output.checkpoint_every + 1), round_ + 1)
        sampled = {client_id for earlier in since for client_id in self._sample(earlier)}
        prune_states(self.folder.client_states, sampled, self.folder.checkpoint_rounds())

    def _finish(self, weights: list[Any]) -> None:
        save_file(
            {
                name: np.ascontiguousarray(array).reshape(array.shape)
                for name, array in zip(self.names, weights, strict=True)
            },
            self.folder.path / "model.safetensors",
        )
        known = [
            {"name": type(attack).__name__, "knowledge": attack.knowledge, "knows_defense": attack.knows_defense}
            for attack in self.experiment.attacks
        ]
        summary = summarise(self.config, self.folder.rounds())
        self.folder.write_summary({**summary, **self._impact(summary["attack"]), "attackers": known})

    def _impact(self, attack: dict[str, Any]) -> dict[str, Any]:
        """Return SparseFed's OIF where an attack has chosen samples misclassified."""
        fitted = [a for a in self.experiment.attacks if isinstance(a, ProjectedGradient)]
        adversaries = self.experiment.adversaries
        if not fitted or adversaries is None or "attack_accuracy" not in attack:
            return {}
        oif = outsized_impact_factor(
            round(attack["attack_accuracy"]["last"] * len(fitted[0].wanted_labels)),
            num_attackers=len(adversaries.pool()),
            num_clients=self.config.simulation.num_clients,
            num_samples=int(self.experiment.partition.sizes().sum()),
        )
        return {"outsized_impact_factor": oif}


@dataclass(frozen=True)
class _Predict:
    """The global model, as attacks ask it for their success."""

    model: torch.nn.Module

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits(inputs).argmax(dim=1)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return logits_of(self.model, inputs)


_ADVERSARY = Adversary.__name__


def summarise(config: Config, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run comes to: final and best accuracy, attack success, detection, time."""
    evaluated = [record for record in rounds if record.get("accuracy") is not None]
    last = evaluated[-1]
    attack: dict[str, Any] = {}
    for name in last.get("attack", {}):
        values = [r["attack"][name] for r in evaluated if r["round"] > 0 and r["attack"].get(name) is not None]
        if values:
            attack[name] = {"last": values[-1], "mean": sum(values) / len(values), "max": max(values)}
    trained = [record for record in rounds if record["round"] > 0]
    return {
        "name": config.name,
        "seed": config.seed,
        "rounds": len(trained),
        "accuracy": last["accuracy"],
        "best_accuracy": max(record["accuracy"] for record in evaluated),
        "loss": last["loss"],
        "attack": attack,
        "detection": _overall_detection(trained),
        "rounds_that_kept_the_previous_model": sum(r["kept_previous_model"] is not None for r in trained),
        "quarantined": sum(len(r["quarantined"]) for r in trained),
        "seconds": sum(sum(r["seconds"].values()) for r in trained),
    }


def _overall_detection(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Pool the counts of all rounds for each defense that judges clients."""
    pooled: dict[str, Detection] = {}
    for record in rounds:
        for defense in record["defenses"]:
            if defense["detection"] is not None:
                counts = Detection(**{name: defense["detection"][name] for name in _COUNTS})
                before = pooled.get(defense["name"])
                pooled[defense["name"]] = counts if before is None else before + counts
    return {name: _rates(counts) for name, counts in pooled.items()}


_COUNTS = tuple(field.name for field in fields(Detection))


def _rates(counts: Detection) -> dict[str, Any]:
    return {
        **asdict(counts),
        "precision": counts.precision,
        "recall": counts.recall,
        "false_positive_rate": counts.false_positive_rate,
    }


def _detection(verdict: Verdict, hostile: Collection[int]) -> dict[str, Any] | None:
    """Compare a verdict with the truth, for defenses that judge clients."""
    if not verdict.judges:
        return None
    rejected = set(verdict.participants) - set(verdict.kept)
    return _rates(detection(rejected, hostile, verdict.participants))


def _by_client(values: Mapping[int, float] | None) -> dict[str, float] | None:
    return None if values is None else {str(client): value for client, value in values.items()}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value
