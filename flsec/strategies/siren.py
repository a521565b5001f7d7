"""SIREN as a Flower strategy."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from flsec.aggregation.siren import (
    ALARM,
    ALARM_RULE,
    CLIENT_TOLERANCE,
    HELD_OUT,
    ROLLED_BACK,
    AlarmRule,
    SirenCase,
    siren_decision,
    siren_penalties,
)
from flsec.parameters import Fraction, NonNegative, OpenFraction, PositiveCount
from flsec.strategies._memory import forget_longest_unseen
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies._server_state import take
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.tasks import CLASSIFICATION, Task

__all__ = ["Siren"]


class Siren(RobustStrategy):
    """Let clients raise the alarm about the global model, find out who is right, and go back if it is poisoned.

    Args:
        strategy: the strategy to protect.
        root_data: (x, y), the server's clean examples; the paper has 100. Never of the test set.
        model_factory: builds the clients' network.
        held_out: share of its data on which a client tests the global model and never trains; a tenth in the
            released program.
        client_tolerance: C_c, for the client's test; 0.04 in the paper. See ``flsec.aggregation.siren_alarm``.
        server_tolerance: C_s, for the server's test; 0.1 in the paper. See ``flsec.aggregation.siren_decision``.
        alarm_rule: how the two are read: ``"tolerance"``, ``"paper"`` (as printed) or ``"relative"`` (as released).
        weight_analysis: also judge clients malicious whose update points away from the most accurate client's.
        single_alarm: ``"paper"``: one alarm is treated as several are; ``"recheck"``: it has all clients examined.
        rollback: what is added to the model g_{t-1} in a round that goes back to it. ``"local_models"``: the kept
            clients' models less g_{t-1}, so that the mean of these models is the new one. ``"paper"``: as printed, the
            models less the poisoned g_t, which adds the step that made g_t once more, reversed.
        penalty_threshold: C_p as a share of the clients in a round, |K|; 0.45 in the paper. A client with more
            malicious verdicts is banned: its update is not accepted, its alarms do not count. None: nobody is.
        award: C_a, what a banned client's count falls by with each benign verdict; 0.5 in the paper. Below C_p it is
            accepted again. With 0 banned clients are not examined, and never return.
        max_clients: how many clients' penalty counts are remembered; of those that were ever judged malicious, the ones
            that sent nothing for the longest time are forgotten first, and with the count its ban. None: all, without
            end.
        start_round: the first round in which the server acts; until then it averages, while clients watch as ever.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``root_data`` is not one label for each input, or ``model_factory`` makes no network, a share or
            tolerance is out of its range, a rule is none of its values, ``max_clients`` or ``start_round`` is not at
            least 1, or the wrapped strategy remembers something that cannot be set back. Others: see
            ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Needs ``flsec.client_apps.siren_client`` around the clients: their last
    model and the bit ``siren-alarm`` in their metrics. Only the number 1 is an alarm; anything else, or nothing, is
    none. An alarm in the first round can have no model to go back to.

    The verdict's notes tell the case of Fig. 3 by name, who alarmed, the accuracies that were looked at, why clients
    were dropped, penalty counts and bans. Case 2 shows in the round after it: its note ``previous_round`` says so.

    Going back restores the model and the state of the wrapped Flower strategy (FedAdam's moments, FedAvgM's momentum)
    to what they were before the step that made the poisoned model; not the memory of defenses inside. If all clients
    are banned, the previous model is kept. Without alarms and bans it costs one pass over the updates, else up to n
    evaluations of the root set and a few passes more. Memory: a model, the server optimizer's state, and one number for
    each of at most ``max_clients`` clients that were judged malicious. A banned client that stays away until so many
    others were has a clean record again, which a new client id gives at once.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> strategy = Siren(FedAvg(), root_data=root_data, model_factory=lambda: network)
        >>> alarms = [{"siren-alarm": 0}, {"siren-alarm": 0}, {"siren-alarm": 1}]
        >>> updates = [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]]
        >>> play_rounds(strategy, updates, model=network, metrics=alarms)
        tensor([-0.9500,  0.9500,  0.0000,  0.0000])
        >>> strategy.last_report.verdicts[0].notes["case"]
        'case 3: alike alarming clients, false alarms'

    Source: SIREN (Guo et al., SoCC 2021), Sec. 4 and Table 2; the delayed start is Sec. 5.9. Where text and Algorithms
    differ it follows the text: case 4 is not in Algorithm 2, and the client's test is printed with the wrong sign.
    """

    compares_clients: ClassVar[bool] = False
    goes_back: ClassVar[bool] = True
    client_half: ClassVar[str | None] = "flsec.client_apps.siren_client:SirenClient"
    state_names: ClassVar[tuple[str, ...]] = ("earlier", "penalties", "banned", "rolled_back", "last_case")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        root_data: Examples,
        model_factory: ModelFactory,
        held_out: OpenFraction = 0.1,
        client_tolerance: Fraction = 0.04,
        server_tolerance: OpenFraction = 0.1,
        alarm_rule: AlarmRule = "tolerance",
        weight_analysis: bool = True,
        single_alarm: Literal["paper", "recheck"] = "paper",
        rollback: Literal["local_models", "paper"] = "local_models",
        penalty_threshold: NonNegative | None = 0.45,
        award: NonNegative = 0.5,
        max_clients: PositiveCount | None = 100_000,
        start_round: PositiveCount = 1,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_examples(root_data, "root_data")
        self.root_data = root_data
        self.held_out = held_out
        self.client_tolerance = client_tolerance
        self.server_tolerance = server_tolerance
        self.alarm_rule = alarm_rule
        self.weight_analysis = weight_analysis
        self.single_alarm = single_alarm
        self.rollback = rollback
        self.penalty_threshold = penalty_threshold
        self.award = award
        self.max_clients = max_clients
        self.start_round = start_round
        self.earlier: dict[str, Any] | None = None  # g_{t-1} and the optimizer's state before the step from it
        self.penalties: dict[int, float] = {}
        self.banned: tuple[int, ...] = ()
        self.rolled_back = False
        self.last_case: str | None = None
        self._model = RootModel(model_factory, task=task)
        take(self.base)  # refuses now a strategy that could not be set back

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return the client's settings, and whether the last round went back to an earlier model."""
        return {
            HELD_OUT: self.held_out,
            CLIENT_TOLERANCE: self.client_tolerance,
            ALARM_RULE: self.alarm_rule,
            ROLLED_BACK: int(self.rolled_back),
        }

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the malicious and the banned clients, and go back to the earlier model if this one is poisoned."""
        if cohort.round < self.start_round:
            self._remember(cohort)
            self.report(case="not started")
            return cohort
        alarms = {i: _alarms(metrics) for i, metrics in zip(cohort.client_ids, cohort.metrics, strict=True)}
        accuracies = _Accuracies(self, cohort)
        decision = siren_decision(
            alarms,
            accuracies,
            cohort.updates,
            tolerance=self.server_tolerance,
            rule=self.alarm_rule,
            weight_analysis=self.weight_analysis,
            single_alarm=self.single_alarm,
            banned=self.banned,
            examine_banned=self.award > 0,
        )
        threshold = None if self.penalty_threshold is None else self.penalty_threshold * len(cohort)
        self.penalties, self.banned = siren_penalties(
            self.penalties, self.banned, decision, threshold=threshold, award=self.award
        )
        self.report(**forget_longest_unseen(self.penalties, cohort.client_ids, self.max_clients))
        self.banned = tuple(client for client in self.banned if client in self.penalties)
        self.rolled_back = decision.rollback and self.earlier is not None
        self.report(
            case=decision.case.value,
            alarms=[client for client, alarm in alarms.items() if alarm],
            accuracies=dict(accuracies),
            dropped=dict(decision.reasons),
            penalties={i: self.penalties[i] for i in cohort.client_ids if i in self.penalties},
            banned=[i for i in self.banned if i in alarms],
            rolled_back=self.rolled_back,
        )
        if self.rolled_back and self.last_case == SirenCase.NO_ALARM:
            self.report(previous_round="case 2: poisoned updates, no alarm")
        self.last_case = decision.case.value
        kept = cohort.keep([row for row, i in enumerate(cohort.client_ids) if i in decision.kept])
        if self.rolled_back:
            return self._go_back(kept)
        if len(kept):
            self._remember(cohort)
        return kept

    def _remember(self, cohort: Cohort) -> None:
        """Keep what the clients started from: the next model is made from it."""
        self.earlier = {
            "parameters": cohort.global_parameters.clone(),
            "state": list(cohort.global_state),
            "optimizer": take(self.base),
        }

    def _go_back(self, cohort: Cohort) -> Cohort:
        assert self.earlier is not None
        parameters = self.earlier["parameters"].clone()
        earlier = cohort.replace(
            global_parameters=parameters,
            global_state=tuple(self.earlier["state"]),
            server_state=self.earlier["optimizer"],
        )
        if self.rollback == "paper":
            return earlier.replace(modified=True)
        return earlier.replace(updates=cohort.updates + (cohort.global_parameters - parameters))


def _alarms(metrics: Mapping[str, Any]) -> bool:
    value = metrics.get(ALARM)
    return isinstance(value, int | float) and value == 1


class _Accuracies(dict[int, float]):
    """{client id: accuracy of its model on the root set}, computed when it is asked for."""

    def __init__(self, siren: Siren, cohort: Cohort) -> None:
        super().__init__()
        self._siren, self._cohort = siren, cohort

    def __missing__(self, client_id: int) -> float:
        update = self._cohort.updates[self._cohort.client_ids.index(client_id)]
        self[client_id] = self._siren._model.evaluate(self._cohort, update, self._siren.root_data).accuracy
        return self[client_id]
