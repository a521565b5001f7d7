"""Flower's calls of a wrapper, in both APIs: whom to ask, and what becomes of their replies."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from flsec.strategies._evaluation import Averaging, Screening
from flsec.strategies._flower import FlowerRound, FlowerServer, only_flowers_own
from flsec.strategies._forwarding import Forwarding
from flsec.strategies._round import Outcome, run_round
from flsec.strategies._screening import log_left_out, log_quarantined, screen
from flsec.strategies._stages import Stages
from flsec.strategies._state_arrays import StateArrays, state_positions
from flsec.strategies.replies import GlobalModel
from flsec.strategies.report import KeepPreviousModel, RoundReport

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
        chosen = self._chosen(
            lambda: base.configure_fit(server_round=server_round, parameters=given, client_manager=client_manager)
        )
        grid = next((getattr(proxy, "grid", None) for proxy, _ in chosen), None)
        if not self._ask(server_round, [_classic.node_id(proxy) for proxy, _ in chosen], "min_fit_clients", grid):
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
        return Parameters(tensors, "numpy.ndarray"), {**metrics, **self._summary(lists=False)}

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
        messages = self._chosen(lambda: choose(server_round, given, config, grid))
        self._progress.messages = [message.metadata for message in messages]
        asked = [message.metadata.dst_node_id for message in messages]
        if not self._ask(server_round, asked, "min_train_nodes", grid):
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
        return record, MetricRecord({**metrics, **self._summary(lists=True)})

    # --- the two methods whose name both APIs use -----------------------------------------------------------

    def configure_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Ask the wrapped strategy who evaluates: (parameters, client_manager) or (arrays, config, grid)."""
        instructions = list(self.inner_method("configure_evaluate")(server_round, *args, **kwargs) or [])
        self._progress.messages = [entry.metadata for entry in instructions if isinstance(entry, Message)]
        self._progress.evaluating = frozenset(
            entry.metadata.dst_node_id if isinstance(entry, Message) else _classic.node_id(entry[0])
            for entry in instructions
        )
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
        log_quarantined("evaluation of client", server_round, screening.quarantined)
        log_left_out("evaluation metrics", server_round, screening.left_out)
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

    def _chosen(self, choose: Callable[[], Iterable[Any] | None]) -> list[Any]:
        """Return whom the wrapped strategy chooses; in the beginning let it choose again if those are too few.

        Flower's strategies take their share of the clients that are there, and only then wait for the others to come:
        in the first round of a run they may choose two where they would choose all a moment later.
        """
        chosen = list(choose() or [])
        if self._progress.had_enough or self._too_few(len(chosen)) is None:
            return chosen
        return list(choose() or [])

    def _ask(self, server_round: int, clients: Sequence[int], setting: str, grid: Grid | None) -> bool:
        """Note who is asked to train; return False if that is fewer than the rules can ever use.

        Raises:
            ConfigError: they were too few in every round so far, or a wrapper refuses them.
        """
        for wrapper in self.chain():
            wrapper.check_clients(clients, grid)
        self._progress.asked = frozenset(clients)
        short = self._too_few(len(self._progress.asked))
        if short is None:
            self._progress.had_enough = self._progress.had_enough or bool(clients)
            if not clients:
                self._count_rounds_without_model("the wrapped strategy asked nobody to train")
            return True
        why = f"{short}, and the strategy asks {len(self._progress.asked)}"
        if not self._progress.had_enough:
            raise ConfigError(
                f"{why}. Ask more clients a round, for example with {setting}, lower what the rule tolerates, or say "
                "what to do with when_short='largest_f' or unsafe=True."
            )
        logger.warning("round %d: nobody is asked to train: %s", server_round, why)
        self._progress.asked = frozenset()
        self.last_report = RoundReport(server_round, (), (), why, {})
        self._count_rounds_without_model(why)
        return False

    def _too_few(self, num_clients: int) -> str | None:
        """Return which wrapper needs more clients than so many; None if all have enough, or nobody is asked."""
        left = num_clients
        for wrapper in self.chain() if num_clients else ():
            needed = wrapper.needed_of(left)
            if left < needed:
                hands = "" if left == num_clients else f" and is handed at most {left}"
                return f"{type(wrapper).__name__} needs at least {needed} replies{hands}"
            left = wrapper.most_kept(left)
        return None

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
        log_quarantined("client", server_round, screened.quarantined)
        log_left_out("metrics", server_round, screened.metrics_left_out)
        seconds = {"parse": time.perf_counter() - started}
        server = FlowerServer(flower, model, screened.replies)
        with computing_on(None if self.device.type == "cpu" else self.device):
            outcome: Outcome[Any] = run_round(self.chain(), screened.cohort, server, screened.one_sum)
        reason = outcome.reason
        try:
            tensors = server.finished(outcome.model)
        except KeepPreviousModel as refusal:
            tensors, reason = model.tensors, str(refusal)
        if reason is not None:
            logger.warning("round %d: the previous global model is kept: %s", server_round, reason)
        seconds.update(outcome.seconds)
        self.last_report = RoundReport(
            server_round, screened.quarantined, outcome.verdicts, reason, seconds, screened.metrics_left_out
        )
        self._count_rounds_without_model(reason)
        return tensors, server.metrics

    def _count_rounds_without_model(self, reason: str | None) -> None:
        rounds = self._progress.without_model = 0 if reason is None else self._progress.without_model + 1
        if self.patience is not None and rounds >= self.patience:
            raise NoProgressError(
                f"{rounds} rounds in a row gave no new model; the last because {reason}. Mend what the "
                f"log says, or give {type(self).__name__} another patience (None: never give up)."
            )

    def _summary(self, *, lists: bool) -> dict[str, Any]:
        """Return what Flower's metrics dictionary is told."""
        report = self.last_report
        assert report is not None
        judged = [v for v in report.verdicts if v.judges]
        participants = len(report.verdicts[0].participants) if report.verdicts else 0
        kept = judged[-1].kept if judged else (report.verdicts[-1].kept if report.verdicts else ())
        quarantined = list(dict.fromkeys(entry.client_id for entry in report.quarantined))
        return {
            "flsec-usable": participants,
            "flsec-kept": len(kept),
            "flsec-quarantined": len(quarantined),
            "flsec-kept-previous-model": int(report.kept_previous_model is not None),
            "flsec-seconds": sum(report.seconds.values()),
            "flsec-kept-ids": list(kept) if lists else ",".join(map(str, kept)),
            "flsec-quarantined-ids": quarantined if lists else ",".join(map(str, quarantined)),
        }
