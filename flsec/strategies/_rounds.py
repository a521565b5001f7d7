"""Flower's calls of a wrapper, in both APIs: whom to ask, and what becomes of their replies."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import Parameters
from flwr.server.client_manager import ClientManager
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp import Grid

from flsec.aggregation._device import computing_on
from flsec.errors import ConfigError, NoProgressError
from flsec.strategies import _classic, _message
from flsec.strategies._asking import Others, asked_client, excluded_among, others_to_evaluate, others_to_train, too_few
from flsec.strategies._evaluation import Averaging, Screening
from flsec.strategies._flower import FlowerRound, FlowerServer, only_flowers_own
from flsec.strategies._forwarding import Forwarding
from flsec.strategies._round import Outcome, run_round
from flsec.strategies._round_line import evaluation_line, round_line
from flsec.strategies._screening import screen
from flsec.strategies._stages import Stages
from flsec.strategies._state_arrays import StateArrays, state_positions
from flsec.strategies._summary import summary
from flsec.strategies.replies import GlobalModel
from flsec.strategies.report import KeepPreviousModel, RoundReport, Verdict

if TYPE_CHECKING:
    from flsec.strategies.base import RobustStrategy

__all__ = ["Progress", "Rounds"]

logger = logging.getLogger("flsec")


@dataclass
class Progress:
    """What the outermost wrapper remembers from one call of Flower's to the next.

    Attributes:
        sent: the model of this round as Flower has it.
        model: the same, read.
        asked: ids of the clients that train in this round.
        evaluating: ids of the clients that evaluate in this round.
        messages: what is known of this round's messages; Flower fills in their ids.
        had_enough: whether any round so far asked as many clients as the rules need.
        without_model: how many rounds in a row gave no new model.
    """

    sent: Parameters | ArrayRecord | None = None
    model: GlobalModel | None = None
    asked: frozenset[int] = frozenset()
    evaluating: frozenset[int] = frozenset()
    messages: list[Any] = field(default_factory=list)
    had_enough: bool = False
    without_model: int = 0


class Rounds(Stages, Forwarding):
    """A wrapper as Flower sees it; the outermost one of a chain does the work of all."""

    max_num_examples: int
    patience: int | None
    evaluation: Averaging
    state_arrays: StateArrays
    device: torch.device
    partition_ids: Mapping[int, int]
    last_report: RoundReport | None
    _progress: Progress

    def chain(self) -> "list[RobustStrategy]":
        """Return this wrapper and the wrappers inside it, outermost first."""
        raise NotImplementedError

    # --- classic API ----------------------------------------------------------------------------------------

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: ClientManager) -> Any:
        """Ask the wrapped strategy whom to send the model, and add the round and the defenses' settings."""
        base = self._classic_base()
        _classic.refuse_secure_aggregation()
        model = self._start_round(parameters, parameters.tensors)
        wide = model.has_bfloat16 and only_flowers_own(base)
        given = Parameters(model.in_float32(), parameters.tensor_type) if wide else parameters
        others = others_to_train(self.chain(), server_round, client_manager)
        chosen = self._chosen(
            lambda: base.configure_fit(server_round=server_round, parameters=given, client_manager=others.source),
            others,
        )
        self._check_clients(chosen, next((getattr(proxy, "grid", None) for proxy, _ in chosen), None))
        if not self._ask(server_round, chosen, "min_fit_clients", others):
            return []
        return _classic.configured(chosen, parameters, given, self._client_config(server_round))

    def aggregate_fit(
        self, server_round: int, results: list[_classic.Result], failures: _classic.Failures
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Screen the replies, run the three stages of every wrapper, and let the wrapped strategy step."""
        if self._progress.model is None or not isinstance(self._progress.sent, Parameters):
            raise RuntimeError("aggregate_fit before configure_fit: the model that clients started from is unknown.")
        flower = _classic.ClassicRound(self._classic_base(), server_round, results, failures)
        tensors, metrics = self._aggregate(server_round, flower, self._progress.model)
        return Parameters(tensors, "numpy.ndarray"), {**metrics, **summary(self.last_report, lists=False)}

    # --- Message API ----------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy whom to send the model, and add the round and the defenses' settings."""
        base, names = self._message_base(), list(arrays)
        model = self._start_round(arrays, [array.data for array in arrays.values()], names)
        wide = model.has_bfloat16 and only_flowers_own(base)
        given = _message.array_record(names, model.in_float32()) if wide else arrays
        choose = self.inner_method("configure_train")
        others = others_to_train(self.chain(), server_round, grid)
        messages = self._chosen(lambda: choose(server_round, given, config, others.source), others)
        self._progress.messages = [message.metadata for message in messages]
        self._check_clients(messages, grid)
        if not self._ask(server_round, messages, "min_train_nodes", others):
            return []
        key = _message.setting_of(base, "configrecord_key", "config")
        return _message.configured(messages, arrays, given, self._client_config(server_round), key)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, run the three stages of every wrapper, and let the wrapped strategy step."""
        if self._progress.model is None or not isinstance(self._progress.sent, ArrayRecord):
            raise RuntimeError(
                "aggregate_train before configure_train: the model that clients started from is unknown."
            )
        base, step = self._message_base(), self.inner_method("aggregate_train")
        messages = list(replies)
        if not messages and not self._progress.asked:  # nobody trains in this round
            return self._progress.sent, MetricRecord()
        asked = _message.destinations(self._progress.messages)
        flower = _message.MessageRound(base, step, server_round, messages, self._progress.sent, asked)
        tensors, metrics = self._aggregate(server_round, flower, self._progress.model)
        record = _message.array_record(list(self._progress.sent), tensors, like=self._progress.sent)
        return record, MetricRecord({**metrics, **summary(self.last_report, lists=True)})

    # --- the two methods whose name both APIs use -----------------------------------------------------------

    def configure_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Ask the wrapped strategy who evaluates: (parameters, client_manager) or (arrays, config, grid)."""
        choose = self.inner_method("configure_evaluate")
        key = "client_manager" if isinstance(self.base, ClassicStrategy) else "grid"
        if key in kwargs:
            others = others_to_evaluate(self.chain(), server_round, kwargs[key])
            kwargs[key] = others.source
        else:  # Flower passes it last
            others = others_to_evaluate(self.chain(), server_round, args[-1])
            args = (*args[:-1], others.source)
        instructions = others.instructions(self.base, lambda: choose(server_round, *args, **kwargs))
        self._progress.messages = [entry.metadata for entry in instructions if isinstance(entry, Message)]
        self._progress.evaluating = frozenset(map(asked_client, instructions))
        return instructions

    def aggregate_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Screen evaluation replies as training replies are, then hand them on: (results, failures) or (replies)."""
        screening = Screening(
            self._progress.evaluating,
            self.max_num_examples,
            self.weighting == "uniform",
            self.max_weight_ratio,
            self.evaluation,
        )
        aggregate = self.inner_method("aggregate_evaluate")
        if isinstance(self.base, ClassicStrategy):
            results, failures = args if args else (kwargs["results"], kwargs["failures"])
            outcome: Any = _classic.aggregate_evaluation(self.base, server_round, results, failures, screening)
        else:
            replies = args[0] if args else kwargs["replies"]
            asked = _message.destinations(self._progress.messages)
            outcome = _message.aggregate_evaluation(self.base, aggregate, server_round, replies, asked, screening)
        line = evaluation_line(server_round, screening.quarantined, screening.left_out, self.partition_ids)
        if line is not None:
            logger.warning("%s", line)
        return outcome

    # --- one round, the same for both APIs ------------------------------------------------------------------

    def _start_round(
        self, sent: Parameters | ArrayRecord, tensors: Sequence[bytes], names: Sequence[str] | None = None
    ) -> GlobalModel:
        """Return the model that a round starts from; refuse one that cannot be defended before clients train."""
        given = next((w.state_arrays for w in self.chain() if w.state_arrays is not None), None)
        model = GlobalModel(tensors, names, lambda arrays: state_positions(given, names, arrays))
        self._progress.sent, self._progress.model = sent, model
        return model

    def excluded_among(self, server_round: int, clients: Collection[int]) -> frozenset[int]:
        """Return the ids of the clients that are not to be asked to train in a round, of those that are there."""
        return excluded_among(self.chain(), server_round, clients)

    def _chosen(self, choose: Callable[[], Iterable[Any] | None], others: Others) -> list[Any]:
        """Return whom the wrapped strategy chooses; in the beginning let it choose again if those are too few.

        Flower's strategies take their share of the clients that are there, and only then wait for the others to come:
        in the first round of a run they may choose two where they would choose all a moment later.
        """
        chosen = others.instructions(self.base, choose)
        if self._progress.had_enough or too_few(self.chain(), len(chosen)) is None:
            return chosen
        return others.instructions(self.base, choose)

    def _check_clients(self, instructions: Sequence[Any], grid: Grid | None) -> None:
        """Have every wrapper look at who is asked to train; one that cannot work with them raises."""
        for wrapper in self.chain():
            wrapper.check_clients([asked_client(instruction) for instruction in instructions], grid)

    def _ask(self, server_round: int, instructions: Sequence[Any], setting: str, others: Others) -> bool:
        """Note who is asked to train; return False if that is fewer than the rules can ever use.

        Raises:
            ConfigError: they were too few in every round so far.
        """
        self._progress.asked = frozenset(map(asked_client, instructions))
        short = too_few(self.chain(), len(self._progress.asked))
        if short is None:
            self._progress.had_enough = self._progress.had_enough or bool(instructions)
            if not instructions:
                why = f"the wrapped strategy asked nobody to train{others.in_words()}"
                self._conclude(_without_clients(server_round, why))
            return True
        why = f"{short}, and the strategy asks {len(self._progress.asked)}{others.in_words()}"
        if not self._progress.had_enough and not others.excluded:
            raise ConfigError(
                f"{why}. Ask more clients a round, for example with {setting}, lower what the rule tolerates, or say "
                "what to do with when_short='largest_f' or unsafe=True."
            )
        self._progress.asked = frozenset()
        self._conclude(_without_clients(server_round, f"nobody is asked to train: {why}"))
        return False

    def _client_config(self, server_round: int) -> dict[str, Any]:
        config: dict[str, Any] = {"server-round": server_round}
        for wrapper in self.chain():
            config.update(wrapper.client_config(server_round))
        return config

    def _aggregate(
        self, server_round: int, flower: FlowerRound, model: GlobalModel
    ) -> tuple[list[bytes], Mapping[str, Any]]:
        """Screen, run the round, and return the new model as ``.npy`` bytes (or the previous one) and metrics."""
        started = time.perf_counter()
        screened = screen(flower.collect(), model, self._progress.asked, server_round, self.max_num_examples)
        seconds = {"parse": time.perf_counter() - started}
        server = FlowerServer(flower, model, screened.replies)
        with computing_on(None if self.device.type == "cpu" else self.device):
            outcome: Outcome[Any] = run_round(self.chain(), screened.cohort, server, screened.one_sum)
        reason = outcome.reason
        try:
            tensors = server.finished(outcome.model)
        except KeepPreviousModel as refusal:
            tensors, reason = model.tensors, str(refusal)
        self._conclude(
            RoundReport(
                round=server_round,
                quarantined=screened.quarantined,
                verdicts=outcome.verdicts,
                kept_previous_model=reason,
                seconds={**seconds, **outcome.seconds},
                metrics_left_out=screened.metrics_left_out,
                asked=len(self._progress.asked),
                usable=len(screened.cohort),
                rejected=screened.rejected,
            )
        )
        return tensors, server.metrics

    def _conclude(self, report: RoundReport) -> None:
        """Remember a round's report, log it, tell who wants to know, and end the run after too many without a model."""
        notes = [(type(wrapper).__name__, wrapper.after_round(report)) for wrapper in self.chain()]
        self.last_report = report = replace(report, verdicts=_with_notes(report.verdicts, notes))
        notable = report.quarantined or report.metrics_left_out or report.kept_previous_model is not None
        logger.log(logging.WARNING if notable else logging.INFO, "%s", round_line(report, self.partition_ids))
        reason = report.kept_previous_model
        rounds = self._progress.without_model = 0 if reason is None else self._progress.without_model + 1
        for wrapper in self.chain():
            told = wrapper.on_verdict or ()
            for callback in (told,) if callable(told) else told:
                callback(report)
        if self.patience is not None and rounds >= self.patience:
            raise NoProgressError(
                f"{rounds} rounds in a row gave no new model; the last because {reason}. Mend what the "
                f"log says, or give {type(self).__name__} another patience (None: never give up)."
            )


def _without_clients(server_round: int, why: str) -> RoundReport:
    """Return the report of a round in which nobody was asked."""
    return RoundReport(server_round, (), (), why, {})


def _with_notes(verdicts: Sequence[Verdict], notes: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Verdict, ...]:
    """Return the verdicts with more notes, in one of its own where a wrapper was not reached.

    Args:
        verdicts: those of the wrappers that were reached, outermost first.
        notes: (class name, notes) of every wrapper, outermost first.
    """
    left = list(verdicts)
    noted = []
    for name, more in notes:
        if left and left[0].defense == name:
            verdict = left.pop(0)
            noted.append(replace(verdict, notes={**verdict.notes, **more}) if more else verdict)
        elif more:
            noted.append(Verdict(name, (), (), notes=more))
    return (*noted, *left)
