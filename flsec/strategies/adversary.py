"""The attackers' side of a round, where they need each other's or everybody's updates."""

import logging
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
from flwr.serverapp import Grid
from torch import Tensor

from flsec.attacks.cohort_view import ADVERSARY, CohortView, Rehearsal
from flsec.client_apps.base import Attack, AttackContext
from flsec.errors import ConfigError
from flsec.strategies._rehearsal import rehearse
from flsec.strategies._truth import are_real, check_known
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Adversary"]

logger = logging.getLogger("flsec")


class Adversary(RobustStrategy):
    """Complete the attacks that need several clients' updates: replace what attackers sent before a defense sees it.

    For simulations only, SuperNodes are refused, and always the outermost wrapper. The attackers train and upload like
    everybody; here, where all updates are at hand, each attack is shown what its ``knowledge`` allows and says what its
    attackers upload instead. Attacks that need no other client's update have done their work on the client, and are
    passed over.

    Args:
        strategy: the defense to attack, or an undefended strategy.
        attacks: the attacks of the run, in order: each sees what the one before it has left. Each must know its
            ``adversaries``, whose client ids are those that the replies come from.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: an attack that needs others' updates does not know its ``adversaries``, a client of the round is
            none of theirs, or the clients are real SuperNodes. Others: see ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). Rows that come out as NaN or infinity are dropped and named in the note
    ``not_finite``: an attack on float32 numbers cannot send more. The note ``chosen`` holds what each attack decided,
    by the name of its class.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.client_apps import IPM, Adversaries
        >>> attack = IPM(epsilon=2.0, adversaries=Adversaries(num_clients=3, ids=[2]))
        >>> strategy = Adversary(FedAvg(), attacks=[attack])
        >>> play_rounds(strategy, [[1.0], [2.0], [1.5]])  # client 2 sends -2 times the others' mean
        tensor([0.])

    Source: FedMLSecurity, Sec. 3.2 (attacks injected at the server).
    """

    outermost: ClassVar[int] = 1  # inside, it would complete attacks that the defense outside has judged already
    compares_clients: ClassVar[bool] = False
    defends: ClassVar[bool] = False

    def __init__(self, strategy: FlowerStrategy, *, attacks: Sequence[Attack], **options: Any) -> None:
        super().__init__(strategy, **options)
        together = [attack for attack in attacks if attack.poisons_cohort]
        for attack in together:
            if attack.adversaries is None:
                raise ConfigError(
                    f"Adversary: {type(attack).__name__} must know who attacks; got adversaries=None. For example: "
                    f"{type(attack).__name__}(adversaries=Adversaries(num_clients=20, fraction=0.2)).",
                    parameter="attacks",
                )
        self.attacks = together

    @property
    def knows_clients(self) -> bool:
        """Always: it looks up who attacks."""
        return True

    @property
    def judges_clients(self) -> bool:
        """Never: what it drops, it has made itself."""
        return False

    def accused(self, given: Cohort, kept: Cohort) -> tuple[int, ...]:
        """Return whose row came out as NaN or infinity: a server would have quarantined it."""
        return tuple(self.stated_notes().get("not_finite", ()))

    def check_clients(self, client_ids: Collection[int], grid: Grid | None) -> None:
        """Refuse SuperNodes, and clients of whom the attacks do not know whether they attack; see ``Stages``."""
        if self.attacks and are_real(grid):
            names = ", ".join(type(attack).__name__ for attack in self.attacks)
            raise ConfigError(
                f"Adversary: {names} needs several clients' updates, which are at hand in a simulation only, and these "
                "clients are SuperNodes. Leave it out of a deployment, or run the experiment with `flsec run`.",
                parameter="attacks",
            )
        for attack in self.attacks:
            check_known(type(self).__name__, attack.adversaries, client_ids)

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return which attacks are completed here; clients that do not hear of theirs refuse to train."""
        names = dict.fromkeys(type(attack).__name__ for attack in self.attacks)
        return {ADVERSARY: ",".join(names)} if names else {}

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Return the cohort with the attackers' rows in place of what they sent."""
        chosen: dict[str, Any] = {}
        for attack in self.attacks:
            cohort = self._attacked(attack, cohort, chosen)
        self.report(chosen=chosen)
        finite = cohort.updates.isfinite().all(dim=1)
        if bool(finite.all()):
            return cohort
        lost = [client_id for client_id, sound in zip(cohort.client_ids, finite.tolist(), strict=True) if not sound]
        logger.warning("round %d: the attack left no finite update for clients %s; dropped", cohort.round, lost)
        self.report(not_finite=lost)
        return cohort.keep(finite).replace(num_rejected=cohort.num_rejected + len(lost))

    def _attacked(self, attack: Attack, cohort: Cohort, chosen: dict[str, Any]) -> Cohort:
        contexts = [AttackContext(cohort.round, client_id, seed=attack.seed) for client_id in cohort.client_ids]
        rows = [i for i, context in enumerate(contexts) if attack.attacks(context)]
        if not rows:
            return cohort
        assert attack.adversaries is not None
        hostile = attack.adversaries.active(cohort.round)
        others = [i for i, client_id in enumerate(cohort.client_ids) if client_id not in hostile]
        view = CohortView(
            own=cohort.updates[rows],
            own_ids=tuple(cohort.client_ids[i] for i in rows),
            clients_per_round=len(cohort),
            global_parameters=cohort.global_parameters,
            round=cohort.round,
            seed=attack.seed,
            others=cohort.updates[others] if attack.knowledge == "all" else None,
            global_state=cohort.global_state,
            rehearse=_Rehearse(self._defenses(), cohort, rows) if attack.knows_defense else None,
        )
        uploads = attack.poison_cohort(view)
        if uploads.shape != view.own.shape:
            raise ValueError(
                f"{type(attack).__name__}.poison_cohort must return {tuple(view.own.shape)}, a row for each attacker; "
                f"got {tuple(uploads.shape)}."
            )
        if view.notes:
            chosen[type(attack).__name__] = view.notes
        return _with_rows(cohort, rows, uploads)

    def _defenses(self) -> list[RobustStrategy]:
        """Return the wrappers inside; around an undefended strategy one that does nothing."""
        return self.chain()[1:] or [RobustStrategy(self.strategy, weighting=self.weighting)]


def _with_rows(cohort: Cohort, rows: Sequence[int], uploads: Tensor) -> Cohort:
    updates = cohort.updates.clone()
    updates[rows] = uploads.to(updates.dtype)
    return cohort.with_updates(updates)


class _Rehearse:
    """What the deployed defense would make of uploads; one copy of the round's matrix, however often it is asked."""

    def __init__(self, chain: Sequence[RobustStrategy], cohort: Cohort, rows: Sequence[int]):
        self._chain = chain
        self._rows = list(rows)
        self._ids = [cohort.client_ids[i] for i in rows]
        self._cohort = cohort.with_updates(cohort.updates.clone())

    def __call__(self, uploads: Tensor) -> Rehearsal:
        self._cohort.updates[self._rows] = uploads.to(self._cohort.updates.dtype)
        aggregate, accepted = rehearse(self._chain, self._cohort.replace())
        return Rehearsal(aggregate, torch.tensor([client_id in accepted for client_id in self._ids]))
