"""Auror as a Flower strategy."""

from typing import Any, ClassVar

import torch

from flsec.aggregation.auror import Unit, auror_counts
from flsec.parameters import OpenFraction, Positive, PositiveCount
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["Auror"]


class Auror(RobustStrategy):
    """Watch each client in its first rounds; remove for good those often on the smaller side where clients differ.

    Args:
        strategy: the strategy to protect.
        min_distance: alpha, how far apart the two groups of a parameter's values must lie for the parameter to be
            indicative.
        unit: what alpha is measured in: ``"spread"``, standard deviations within the groups; or ``"parameters"``, as
            in the paper, whose value belongs to its data and learning rate.
        max_share: tau, a client is removed if it was on the smaller side in more than this share of the indicative
            parameters of the rounds in which it was watched.
        num_rounds_watched: in how many rounds a client is watched, from its first on. Then it is judged once.
        max_clients: how many clients' counts, and how many removed ones, are remembered; those that were not seen for
            the longest time are forgotten first. None: all, without end.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``min_distance`` is not positive, ``unit`` is none of its values, ``max_share`` is not in (0, 1),
            or ``num_rounds_watched`` or ``max_clients`` is not at least 1. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Against a minority that poisons its data from the first round on, the
    same parameters in all attackers. Until clients are judged nobody is dropped, so put a rule that bounds the damage
    inside, such as ``Median``. Attackers who behave while they are watched are never found, neither are those with a
    new id each round. If half or more of a round's clients would be removed, nobody is: the rule stands on an honest
    majority. Where only a few parameters are indicative, as in small models, a share of them says little. The verdict's
    scores are each client's share so far; its notes are ``indicative``, the round's number of indicative parameters,
    ``removed``, how many of the round's clients were removed in it, and ``forgotten``.

    O(n d log n) time in rounds in which somebody is watched; keeps three numbers for each client remembered. Nothing on
    the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Auror(FedAvg(), num_rounds_watched=2)
        >>> play_rounds(strategy, [[[1.0], [1.1], [0.9], [1.0], [-5.0]]] * 3)  # the last one counts in two rounds
        tensor([1.8000])
        >>> strategy.removed
        {4: 2}

    Source: Shen, Tople and Saxena, "Auror: Defending against Poisoning Attacks in Collaborative Deep Learning Systems",
        ACSAC 2016, where the final model is trained again without those found, on masked features that all clients
        share; here it goes on from the model there is, on all parameters, and clients come and go.
    """

    state_names: ClassVar[tuple[str, ...]] = ("clients", "removed")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        min_distance: Positive = 6.0,
        unit: Unit = "spread",
        max_share: OpenFraction = 0.5,
        num_rounds_watched: PositiveCount = 10,
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.min_distance = min_distance
        self.unit: Unit = unit
        self.max_share = max_share
        self.num_rounds_watched = num_rounds_watched
        self.max_clients = max_clients
        self.clients: dict[
            int, dict[str, int]
        ] = {}  # by id: rounds watched, indicative parameters, on the smaller side
        self.removed: dict[int, int] = {}  # by id: the round of its removal

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop those removed before and now; count for those who are watched."""
        kept = torch.tensor([client_id not in self.removed for client_id in cohort.client_ids])
        watched = kept & torch.tensor(
            [self._rounds(client_id) < self.num_rounds_watched for client_id in cohort.client_ids]
        )
        if bool(watched.any()):
            self._watch(cohort, kept, watched)
        shares = torch.tensor([self._share(client_id) for client_id in cohort.client_ids], dtype=torch.float64)
        judged = watched & torch.tensor([self._rounds(c) >= self.num_rounds_watched for c in cohort.client_ids])
        guilty = judged & (shares > self.max_share)
        if 2 * int(guilty.sum()) >= int(kept.sum()):
            guilty = torch.zeros_like(guilty)
        for row in guilty.nonzero().flatten().tolist():
            self.removed[cohort.client_ids[row]] = cohort.round
            del self.clients[cohort.client_ids[row]]
        self.report(scores=shares, threshold=Threshold(at_most=self.max_share), removed=int(guilty.sum()))
        forget_longest_unseen(self.removed, cohort.client_ids, self.max_clients)
        self.report(**forget_longest_unseen(self.clients, cohort.client_ids, self.max_clients))
        return cohort.keep(kept & ~guilty)

    def _rounds(self, client_id: int) -> int:
        return self.clients[client_id]["rounds"] if client_id in self.clients else 0

    def _share(self, client_id: int) -> float:
        """Return the share so far; 1 for a client that was removed before."""
        if client_id not in self.clients:
            return 1.0 if client_id in self.removed else 0.0
        known = self.clients[client_id]
        return known["suspected"] / max(1, known["indicative"])

    def _watch(self, cohort: Cohort, kept: torch.Tensor, watched: torch.Tensor) -> None:
        """Add this round's counts to those of each client that is watched."""
        counts = auror_counts(cohort.updates, kept.nonzero().flatten(), self.min_distance, self.unit)
        self.report(indicative=counts.indicative)
        for row in watched.nonzero().flatten().tolist():
            known = self.clients.get(cohort.client_ids[row], {"rounds": 0, "indicative": 0, "suspected": 0})
            self.clients[cohort.client_ids[row]] = {
                "rounds": known["rounds"] + 1,
                "indicative": known["indicative"] + counts.indicative,
                "suspected": known["suspected"] + int(counts.suspected[row]),
            }
