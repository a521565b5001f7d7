"""The cross-round check as a Flower strategy."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from flsec.aggregation.cross_round import cross_round_similarities
from flsec.parameters import PositiveCount
from flsec.strategies._features import Features, feature_columns
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["CrossRound"]


class CrossRound(RobustStrategy):
    """Drop the clients that suddenly stop resembling what they sent before, or the global model.

    Args:
        strategy: the strategy to protect.
        min_similarity: gamma, the least cosine similarity. A client is dropped if it resembles what it sent when it was
            last accepted, or the global model, less than this. For ``compare="updates"`` try 0: honest updates are
            noisy.
        compare: ``"models"``, as FedML does: the client's model with its own last accepted one, and with the global
            model that it started from. ``"updates"``: the client's update with its own last accepted one, and with
            the step that the global model took before this round.
        features: ``"output_layer"``, as FedML does: the last weight matrix and its bias; or ``"all"``.
        max_clients: how many clients' accepted vectors are remembered; those that were not seen for the longest time
            are forgotten first. None: all, without end.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``min_similarity`` is not in [-1, 1], ``compare`` or ``features`` is none of its values, or
            ``max_clients`` is not at least 1. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. The first round has no verdict: all are accepted. A client that comes
    later for the first time is compared with the global model only, and nobody is compared with a zero vector. A zero
    upload where there is something to compare with has similarity 0. If everybody is dropped, the previous model and
    the memory are kept. An attacker who changes slowly, or attacks from the first round on, passes. A forgotten client
    that comes back counts as new, so that an attacker who stays away until ``max_clients`` others were accepted gains
    what a new client id gives at once.

    O(n k) time; keeps k float32 values, k the number of features, for each client remembered: at most
    4 k ``max_clients`` bytes, and k values of the previous global model. Nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = CrossRound(FedAvg(), compare="updates", features="all")
        >>> play_rounds(strategy, [[[1.0], [1.2], [1.1]], [[1.0], [1.2], [-9.0]]])  # the third turns round
        tensor([2.2000])
        >>> strategy.last_report.verdicts[0].dropped
        (2,)

    Source: FedML's security module (cross-round defense); Han et al., "Kick Bad Guys Out!", 2023. There a client that
    fails is handed to a second check, such as ``ThreeSigma``; here it is dropped.
    """

    state_names: ClassVar[tuple[str, ...]] = ("accepted", "previous_global")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        min_similarity: Annotated[float, Ge(-1), Le(1)] = 0.5,
        compare: Literal["models", "updates"] = "models",
        features: Features = "output_layer",
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.min_similarity = min_similarity
        self.compare = compare
        self.features: Features = features
        self.max_clients = max_clients
        self.accepted: dict[int, Tensor] = {}  # by client id: what it sent when it was last accepted
        self.previous_global: Tensor | None = None  # what the clients of the round before started from

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the rows that changed too much, and remember the others."""
        vectors, reference = self._vectors(cohort)
        kept = torch.ones(len(cohort), dtype=torch.bool)
        if self.accepted:
            unknown = torch.zeros_like(vectors[0])
            own = torch.stack([self.accepted.get(client_id, unknown) for client_id in cohort.client_ids])
            similarities = torch.minimum(
                cross_round_similarities(vectors, own), cross_round_similarities(vectors, reference)
            )
            kept = similarities >= self.min_similarity
            self.report(scores=similarities, threshold=Threshold(at_least=self.min_similarity))
        for row in kept.nonzero().flatten().tolist():
            self.accepted[cohort.client_ids[row]] = vectors[row].clone()
        self.report(**forget_longest_unseen(self.accepted, cohort.client_ids, self.max_clients))
        return cohort.keep(kept)

    def _vectors(self, cohort: Cohort) -> tuple[Tensor, Tensor]:
        """Return what the clients are compared by, and what of the global model they are compared with."""
        columns = feature_columns(cohort.layout, self.features)
        updates, model = cohort.updates[:, columns], cohort.global_parameters[columns]
        if self.compare == "models":
            return model + updates, model
        previous = model if self.previous_global is None else self.previous_global
        self.previous_global = model.clone()
        return updates, model - previous
