"""Clients that were caught too often are not asked any more: a ban list around a Flower strategy."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.report import RoundReport

__all__ = ["BanList"]

logger = logging.getLogger("flsec")

_MOST_NAMED = 20  # clients in one line

_MOST_CLIENTS = 100_000  # whose offences, and whose bans, are remembered


class BanList(RobustStrategy):
    """Do not ask clients again for some rounds that were quarantined, or dropped by verdict, too often.

    Args:
        strategy: the defense whose verdicts count.
        after: so many rounds with an offence among the last ``within`` ban a client.
        within: how many rounds back offences count, whether or not the client was asked in them; at least ``after``.
            Take more where a round asks few of many clients.
        for_rounds: how many rounds a ban lasts. Then the client is asked again, with a clean record.
        verdicts: whether verdicts of the rules inside count; else only what was quarantined does.
        options: see ``RobustStrategy``.

    Attributes:
        bans: {client id: the last round in which it is not asked}, the oldest ban first.

    Raises:
        ConfigError: ``after`` is more than ``within``; or the only rules inside that drop clients do so in every round,
            whoever they are (those that are told f, such as Krum and Multi-Krum, and those that keep the largest of
            several groups, such as FLAME), or see means of several clients (inside ``Bucketing``). With these, every
            honest client would be banned in the end. Others: see ``RobustStrategy``.

    An offence is a reply that was quarantined for what it held, or that a rule dropped or weighed with zero where this
    is an accusation: ``ThreeSigma``, ``CrossRound``, ``FoolsGold``, ``FLTrust``, ``DiverseFL``, ``Siren``,
    ``FLDetector``, ``OracleSGD``; of your own rules, where ``accuses_clients`` says so. Rules that drop a number of
    clients in every round may stand beside them and do not count; rules that judge coordinates drop nobody. It makes
    one offence a round at most. No offence: to fail, to be silent, to reply without having been asked, and to be
    dropped by a rule that accepts nobody.

    Whom the wrapped strategy is not shown it cannot sample, for training or for evaluation. Its shares
    (``fraction_train``, ``fraction_fit``) are of the others; its ``min_...`` numbers are taken from the others as well,
    as far as there are enough, and it waits for clients to connect as ever, where banned ones count. f of the rules
    stays what it is: it may be lowered by hand when attackers are banned. Where the others are fewer than the rules
    need, the oldest bans are passed over for the round, at most f of them, and the log says so; where that is not
    enough nobody is asked, the previous model is kept, and after ``patience`` such rounds the run ends with a
    ``NoProgressError``.

    The verdict's notes say who was ``banned`` and who was ``reinstated`` by the round, ``bans``, how many are in
    force after it, and ``asked_despite_ban``. Bans go by Flower's node id: a client that comes with a new one begins
    anew, so let nodes authenticate themselves. Bans and offences are part of ``state_dict``, for at most 100,000
    clients each; the oldest are forgotten first. Where it stands among other wrappers does not matter; outside is
    usual.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import ThreeSigma
        >>> strategy = BanList(ThreeSigma(FedAvg()), after=2, within=5, for_rounds=50)
        >>> _ = play_rounds(strategy, [[[1.0], [1.1], [1.2], [1.3], [900.0]]] * 2)
        >>> strategy.bans  # asked again in round 53
        {4: 52}

    Source: ours. SIREN's and FLDetector's bans are parts of these rules.
    """

    state_names: ClassVar[tuple[str, ...]] = ("offences", "bans", "reinstated")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        after: PositiveCount = 3,
        within: PositiveCount = 10,
        for_rounds: PositiveCount = 50,
        verdicts: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if after > within:
            raise ConfigError(
                f"BanList needs after <= within, since a round makes one offence of a client at most; got "
                f"after={after}, within={within}. For example: within={after}.",
                parameter="after",
            )
        self.after = after
        self.within = within
        self.for_rounds = for_rounds
        self.verdicts = verdicts
        self.offences: dict[int, list[int]] = {}  # by client id: in which rounds; the latest offender is last
        self.bans: dict[int, int] = {}
        self.reinstated: list[int] = []  # by hand, since the last round
        self._check_rules()

    def _check_rules(self) -> None:
        """Refuse rules whose drops accuse nobody, unless another one's do."""
        judges = [wrapper for wrapper in self.chain() if wrapper.judges_clients]
        if not self.verdicts or not judges:
            return
        single = itertools.takewhile(lambda wrapper: not wrapper.merges_clients, self.chain())
        if not any(wrapper.accuses_clients for wrapper in single):
            names = " and ".join(type(wrapper).__name__ for wrapper in judges)
            raise ConfigError(
                f"BanList: what {names} drops accuses no client: some are dropped in every round, honest ones too, or "
                "are means of several. Give verdicts=False to ban only for what was quarantined, or put a rule outside "
                f"{names} whose drop is an accusation, such as ThreeSigma.",
                parameter="verdicts",
            )

    def excluded(self, server_round: int) -> Sequence[int]:
        """Return who is banned in a round, the oldest ban first."""
        return [client_id for client_id, last in self.bans.items() if last >= server_round]

    def after_round(self, report: RoundReport) -> Mapping[str, Any]:
        """Count the round's offences, ban, and reinstate whose time is over; return the notes that say so."""
        despite = [i for verdict in report.verdicts[:1] for i in verdict.participants if i in self.bans]
        over = [client_id for client_id, last in self.bans.items() if last <= report.round]
        for client_id in over:
            del self.bans[client_id]
        reinstated, self.reinstated = [*self.reinstated, *over], []
        banned = [client_id for client_id in self._offenders(report) if self._is_one_too_many(client_id, report.round)]
        for client_id in banned:
            del self.offences[client_id]
            self.bans.pop(client_id, None)
            self.bans[client_id] = report.round + self.for_rounds
        self._forget(report.round)
        self._log(report.round, banned, reinstated)
        facts = {"banned": banned, "reinstated": reinstated, "asked_despite_ban": despite}
        return {**{name: ids for name, ids in facts.items() if ids}, "bans": len(self.bans)}

    def _offenders(self, report: RoundReport) -> list[int]:
        accused = [i for verdict in report.verdicts for i in verdict.accused] if self.verdicts else []
        return sorted({*report.rejected, *accused})

    def _is_one_too_many(self, client_id: int, server_round: int) -> bool:
        earlier = self.offences.pop(client_id, [])
        recent = [r for r in earlier if server_round - self.within < r < server_round]
        self.offences[client_id] = [*recent, server_round]
        return len(self.offences[client_id]) >= self.after

    def _forget(self, server_round: int) -> None:
        """Forget offences that count no more, and the oldest of too many."""
        old = [i for i, rounds in self.offences.items() if rounds[-1] <= server_round - self.within]
        for memory, gone in ((self.offences, old), (self.bans, [])):
            for client_id in [*gone, *list(memory)[: max(0, len(memory) - _MOST_CLIENTS)]]:
                memory.pop(client_id, None)

    def _log(self, server_round: int, banned: Sequence[int], reinstated: Sequence[int]) -> None:
        why = f"for {self.for_rounds} rounds: {self.after} offences within {self.within} rounds"
        for what, ids in ((f"banned {why}", banned), ("asked again from now on", reinstated)):
            if ids:
                shown = ", ".join(map(str, ids[:_MOST_NAMED])) + (" and more" if len(ids) > _MOST_NAMED else "")
                logger.warning("round %d: %s: client %s", server_round, what, shown)

    def reinstate(self, client_id: int) -> None:
        """Lift a ban at once and forget the client's offences; the next round's verdict says so.

        Args:
            client_id: Flower's node id.

        Raises:
            ConfigError: it is not banned.
        """
        if client_id not in self.bans:
            known = ", ".join(map(str, list(self.bans)[:_MOST_NAMED])) or "nobody"
            raise ConfigError(f"BanList.reinstate: client {client_id} is not banned; banned: {known}.")
        del self.bans[client_id]
        self.offences.pop(client_id, None)
        self.reinstated.append(client_id)
