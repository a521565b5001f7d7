"""SIREN's decisions: who raises the alarm, whom the server believes, who is banned."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, float64_blocks, row_norms
from flsec.aggregation._siren_keys import ALARM as ALARM
from flsec.aggregation._siren_keys import ALARM_RULE as ALARM_RULE
from flsec.aggregation._siren_keys import CLIENT_TOLERANCE as CLIENT_TOLERANCE
from flsec.aggregation._siren_keys import HELD_OUT as HELD_OUT
from flsec.aggregation._siren_keys import ROLLED_BACK as ROLLED_BACK
from flsec.aggregation._siren_keys import AlarmRule as AlarmRule
from flsec.aggregation.siren_alarm import falls_short
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, OpenFraction, check_parameters

__all__ = ["SirenCase", "SirenDecision", "siren_decision", "siren_penalties"]


class SirenCase(StrEnum):
    """The cases of SIREN's Fig. 3, as far as a server can tell them apart in the round itself.

    Case 2, poisoned updates before any client could notice, looks like case 1 until the next round's alarms.

    Example:
        >>> SirenCase.MIXED_ALARMS.value
        'case 4: differing alarming clients'
    """

    NO_ALARM = "case 1 or 2: no alarm"
    FALSE_ALARMS = "case 3: alike alarming clients, false alarms"
    TRUE_ALARMS = "case 3: alike alarming clients, silent ones malicious"
    MIXED_ALARMS = "case 4: differing alarming clients"
    RECHECK = "a single alarm, all rechecked"


@dataclass(frozen=True)
class SirenDecision:
    """What the server decides in one round.

    Attributes:
        case: which case of Fig. 3 this is.
        kept: the clients whose updates are aggregated, in the order of the round.
        rollback: whether the global model is judged poisoned, and the one before it takes its place.
        benign: for each client that was judged, whether it is benign. Without an alarm hardly anybody is.
        reasons: for each client that is not kept, why.

    Example:
        >>> decision = SirenDecision(SirenCase.MIXED_ALARMS, (1,), True, {1: True, 2: False}, {2: "silent"})
        >>> decision.kept, decision.rollback, decision.reasons
        ((1,), True, {2: 'silent'})
    """

    case: SirenCase
    kept: tuple[int, ...]
    rollback: bool
    benign: Mapping[int, bool]
    reasons: Mapping[int, str]


def siren_decision(
    alarms: Mapping[int, bool],
    accuracies: Mapping[int, float],
    updates: Tensor,
    *,
    tolerance: OpenFraction = 0.1,
    rule: AlarmRule = "tolerance",
    weight_analysis: bool = True,
    single_alarm: Literal["paper", "recheck"] = "paper",
    banned: Collection[int] = (),
    examine_banned: bool = True,
) -> SirenDecision:
    """Return the server's decision on one round.

    Args:
        alarms: {client id: whether it alarms}, in the order of the rows of ``updates``.
        accuracies: {client id: accuracy of its model on the root set}, in [0, 1]; NaN counts as 0. Only what the
            decision needs is looked up, so that a mapping may compute its values when asked.
        updates: (n, d), floating point; local minus global parameters. Not modified.
        tolerance: C_s, how far below the most accurate model of its group an accurate model may be.
        rule: ``"tolerance"``: malicious if max - omega > C_s. ``"paper"``: if max - omega >= C_s, as printed.
            ``"relative"``: if omega < (1 - C_s) max, as in the released program.
        weight_analysis: also judge a client malicious if its update's cosine with that of the most accurate client
            (with an update other than zero) is not positive.
        single_alarm: what to do if exactly one client alarms. ``"paper"``: the same as for several. ``"recheck"``:
            examine all clients in one group, as the released program does; the global model is judged poisoned only if
            nobody but the alarming client passes.
        banned: clients that are not accepted; their alarms do not count.
        examine_banned: judge them nevertheless, by the most accurate client that is kept, so that they can come back.

    Returns:
        The decision. At least one client that is not banned is kept, if there is one.

    Raises:
        ConfigError: a parameter out of its range, or another number of rows than of clients.

    An update that is not finite is malicious. Nobody else is judged without an alarm. Otherwise the alarming clients
    are examined: if some are malicious, the others are right (case 4): the model is poisoned, and whoever is silent is
    malicious. If all are alike, the silent ones are examined as well (case 3): if their best is as good, the alarms are
    false, the alarming clients malicious and the model is sound; otherwise the alarms are true and the silent ones
    malicious.

    Example:
        >>> decision = siren_decision(
        ...     {7: True, 8: False, 9: True}, {7: 0.81, 8: 0.1, 9: 0.8}, torch.tensor([[1.0], [-4.0], [1.1]])
        ... )
        >>> decision.case.value, decision.kept, decision.rollback
        ('case 3: alike alarming clients, silent ones malicious', (7, 9), True)

    Source: SIREN, Sec. 4.3-4.5 and Fig. 3; case 4 is in the text, not in Algorithm 2.
    """
    options = {
        "tolerance": tolerance,
        "rule": rule,
        "weight_analysis": weight_analysis,
        "single_alarm": single_alarm,
        "examine_banned": examine_banned,
    }
    check_parameters(siren_decision, options, name="siren_decision")
    if check_updates(updates, "siren_decision") != len(alarms):
        raise ConfigError(
            f"siren_decision needs one row of updates for each client in alarms; got {updates.shape[0]} rows and "
            f"{len(alarms)} clients."
        )
    examiner = _Examiner(list(alarms), accuracies, updates, tolerance, rule, weight_analysis)
    broken = [client for client in alarms if not examiner.is_finite(client)]
    active = [client for client in alarms if client not in banned and client not in broken]
    alarming = [client for client in active if alarms[client]]
    silent = [client for client in active if not alarms[client]]
    if not alarming:
        case, rollback, reasons = SirenCase.NO_ALARM, False, {}
    elif len(alarming) == 1 and single_alarm == "recheck":
        case, reasons = SirenCase.RECHECK, examiner.malicious(active)
        rollback = [client for client in active if client not in reasons] == alarming
    else:
        case, rollback, reasons = _case_3_or_4(examiner, alarming, silent)
    kept = tuple(client for client in active if client not in reasons)
    benign = {} if case is SirenCase.NO_ALARM else {client: client not in reasons for client in active}
    outside = [client for client in alarms if client in banned and client not in broken]
    if outside and kept and examine_banned:
        convicted = examiner.malicious(outside, among=kept)
        benign |= {client: client not in convicted for client in outside}
    benign |= dict.fromkeys(broken, False)
    reasons |= dict.fromkeys(outside, "banned") | dict.fromkeys(broken, "update is not finite")
    return SirenDecision(case, kept, rollback, benign, reasons)


def _case_3_or_4(
    examiner: "_Examiner", alarming: Sequence[int], silent: Sequence[int]
) -> tuple[SirenCase, bool, dict[int, str]]:
    malicious = examiner.malicious(alarming)
    if malicious:
        reasons = dict.fromkeys(silent, "silent where others are right to alarm")
        return SirenCase.MIXED_ALARMS, True, malicious | reasons
    if silent and not examiner.is_worse(silent, alarming):
        reasons = dict.fromkeys(alarming, "false alarm")
        return SirenCase.FALSE_ALARMS, False, reasons | examiner.malicious(silent)
    return SirenCase.TRUE_ALARMS, True, dict.fromkeys(silent, "silent, and worse than those that alarm")


class _Examiner:
    """Tells malicious from benign clients by their models' accuracies and their updates' directions."""

    def __init__(
        self,
        clients: Sequence[int],
        accuracies: Mapping[int, float],
        updates: Tensor,
        tolerance: float,
        rule: AlarmRule,
        weight_analysis: bool,
    ) -> None:
        self._row = {client: i for i, client in enumerate(clients)}
        self._accuracies, self._updates = accuracies, updates
        self._tolerance, self._rule, self._weight_analysis = tolerance, rule, weight_analysis
        self._norms = row_norms(updates)

    def malicious(self, clients: Sequence[int], among: Sequence[int] | None = None) -> dict[int, str]:
        """Return {client: reason} of those that are malicious, measured by the best of ``among`` (default: of them)."""
        measures = clients if among is None else among
        best = max(measures, key=self._accuracy)
        moving = [client for client in measures if self._norms[self._row[client]] > 0]
        guide = max(moving, key=self._accuracy) if moving and self._weight_analysis else None
        products = None if guide is None else _products(self._updates, self._row[guide])
        found = {}
        for client in clients:
            if client == best:
                continue
            if falls_short(self._accuracy(client), self._accuracy(best), self._tolerance, self._rule):
                found[client] = f"accuracy {self._accuracy(client):.3f}, the best has {self._accuracy(best):.3f}"
            elif products is not None and not products[self._row[client]] > 0:
                found[client] = "update does not point where the most accurate client's does"
        return found

    def is_worse(self, silent: Sequence[int], alarming: Sequence[int]) -> bool:
        """Return whether the best of the silent clients is worse than the best of the alarming ones."""
        best_silent, best_alarming = (max(map(self._accuracy, group)) for group in (silent, alarming))
        rule: AlarmRule = "tolerance" if self._rule == "paper" else self._rule  # "<= C_s" is printed for this one
        return falls_short(best_silent, best_alarming, self._tolerance, rule)

    def is_finite(self, client: int) -> bool:
        """Return whether the client's update has a finite norm."""
        return bool(self._norms[self._row[client]].isfinite())

    def _accuracy(self, client: int) -> float:
        accuracy = float(self._accuracies[client])
        return accuracy if accuracy == accuracy else 0.0


def _products(updates: Tensor, row: int) -> Tensor:
    """Return the (n,) inner products of all rows with one of them; their signs are the cosines'."""
    products = torch.zeros(updates.shape[0], dtype=torch.float64, device=updates.device)
    for _, block in float64_blocks(updates):
        products += block @ block[row]
    return products


def siren_penalties(
    penalties: Mapping[int, float],
    banned: Collection[int],
    decision: SirenDecision,
    *,
    threshold: NonNegative | None,
    award: NonNegative = 0.5,
) -> tuple[dict[int, float], tuple[int, ...]]:
    """Return the penalty counts and the banned clients after a round.

    Args:
        penalties: {client id: count} before the round. Not modified.
        banned: clients that were banned in the round.
        decision: of the round.
        threshold: C_p: a client whose count exceeds it is banned; None bans nobody.
        award: C_a: what a banned client's count falls by when it is judged benign. Below C_p it comes back; with 0,
            never.

    Returns:
        {client id: count}, and the banned clients in ascending order.

    Raises:
        ConfigError: a negative threshold or award.

    Example:
        >>> decision = SirenDecision(SirenCase.MIXED_ALARMS, (1,), True, {1: True, 2: False}, {2: "silent"})
        >>> siren_penalties({2: 1.0}, (), decision, threshold=1.5)
        ({2: 2.0}, (2,))

    Source: SIREN, Sec. 4.6. A verdict counts, not a round; who is not judged keeps the count.
    """
    check_parameters(siren_penalties, {"threshold": threshold, "award": award}, name="siren_penalties")
    counts, now_banned = dict(penalties), set(banned)
    for client, benign in decision.benign.items():
        if not benign:
            counts[client] = counts.get(client, 0.0) + 1.0
        elif client in banned:
            counts[client] = max(0.0, counts.get(client, 0.0) - award)
        count = counts.get(client, 0.0)
        if threshold is not None and count > threshold:
            now_banned.add(client)
        elif threshold is None or count < threshold:
            now_banned.discard(client)
    return counts, tuple(sorted(now_banned))
