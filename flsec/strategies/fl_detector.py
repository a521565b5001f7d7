"""FLDetector as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import row_norms, weighted_sum
from flsec.aggregation.fl_detector import fl_detector_change, fl_detector_suspects
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["FLDetector"]


class FLDetector(RobustStrategy):
    """Remove clients for good whose updates are not what their last ones and the model's step foretell.

    Args:
        strategy: the strategy to protect.
        window: N, how many rounds back the model's steps and a client's scores are remembered.
        min_scores: a client is judged once it has been scored so often; at most ``window``.
        num_references: how many times the gap statistic draws numbers to compare with.
        seed: seed of these.
        max_clients: how many clients' last updates and scores, and how many removed ones, are remembered; those that
            were not seen for the longest time are forgotten first. None: all, without end.
        options: see ``RobustStrategy``; with ``weighting="examples"`` the mean update is weighted by its weights.

    Raises:
        ConfigError: ``min_scores`` is more than ``window``, or one of them, ``num_references`` or ``max_clients`` is
            not at least 1. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. A client is expected to send its last update, changed by the product of
    an approximate Hessian (L-BFGS, from the steps of the model and of the mean update) with what the model has moved
    since. Its distance from that, over the mean distance of the round's clients, is the round's score; suspicion is the
    mean of the last N. If the gap statistic finds two clusters of suspicion, the clients of the higher are removed:
    they are dropped now and whenever they come again. If half or more would be removed, nobody is: the rule stands on
    an honest majority. Until ``min_scores`` rounds are over nobody is dropped, so put a rule that bounds the damage
    inside, such as ``Median``.

    A client that was away longer than the window has no score in the round it comes back. Attackers whose updates go
    on as steadily as honest ones are not found, and neither are clients with a new id in each round. The verdict's
    scores are the means (1 before the first); its notes are ``removed``, how many of the round's clients were removed
    in it, and ``forgotten``.

    O(N^2 d + n d) time; keeps 2 N + 2 vectors, and one vector and N numbers for each client remembered: at most
    4 d ``max_clients`` bytes. Nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = FLDetector(FedAvg(), window=4, min_scores=4)
        >>> rounds = [[[1.0], [1.1], [0.9], [1.0], [5.0 * (-1) ** t]] for t in range(6)]  # the last is fitful
        >>> _ = play_rounds(strategy, rounds)
        >>> list(strategy.removed)
        [4]

    Source: Zhang et al., KDD 2022. Left open there, chosen here: when judging begins; rounds in
        which only some take part; scores are divided by their mean, not their sum, because the number of clients
        varies; and where the paper begins training again without those removed, it goes on here from the model there
        is, and scores begin again.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "clients",
        "removed",
        "model_steps",
        "update_steps",
        "model",
        "mean_update",
        "num_rounds_seen",
    )

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        window: PositiveCount = 10,
        min_scores: PositiveCount = 10,
        num_references: PositiveCount = 20,
        seed: int = 0,
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if min_scores > window:
            raise ConfigError(
                f"FLDetector needs min_scores <= window; got min_scores={min_scores}, window={window}. A client has at "
                f"most {window} scores: take min_scores={window}, or a longer window.",
                parameter="min_scores",
            )
        self.window = window
        self.min_scores = min_scores
        self.num_references = num_references
        self.seed = seed
        self.max_clients = max_clients
        self.clients: dict[int, dict[str, Any]] = {}  # by id: its last update, the round of that, its last scores
        self.removed: dict[int, int] = {}  # by id: the round of its removal
        self.model_steps: list[Tensor] = []  # (d,) each, the latest last
        self.update_steps: list[Tensor] = []
        self.model: Tensor | None = None  # what the clients of the last round started from
        self.mean_update: Tensor | None = None
        self.num_rounds_seen = 0

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop those removed before and now; remember the others' updates and scores."""
        self.num_rounds_seen += 1
        kept = torch.tensor([client_id not in self.removed for client_id in cohort.client_ids])
        self._score(cohort, kept)
        suspicion = torch.tensor([self._suspicion(client_id) for client_id in cohort.client_ids], dtype=torch.float64)
        judged = torch.tensor([self._num_scores(client_id) >= self.min_scores for client_id in cohort.client_ids])
        judged &= kept
        suspects = torch.zeros_like(kept)
        suspects[judged] = fl_detector_suspects(suspicion[judged], self.num_references, self.seed, cohort.round)
        for row in suspects.nonzero().flatten().tolist():
            self.removed[cohort.client_ids[row]] = cohort.round
        if bool(suspects.any()):
            for known in self.clients.values():
                known["scores"] = []  # those were made with the removed among the others
        kept &= ~suspects
        self._remember(cohort, kept)
        highest = Threshold.of_kept(suspicion[judged & ~suspects], highest=True) if bool(suspects.any()) else None
        self.report(scores=suspicion, threshold=highest, removed=int(suspects.sum()))
        return cohort.keep(kept)

    def _suspicion(self, client_id: int) -> float:
        scores = self.clients[client_id]["scores"] if client_id in self.clients else []
        return sum(scores) / len(scores) if scores else 1.0

    def _num_scores(self, client_id: int) -> int:
        return len(self.clients[client_id]["scores"]) if client_id in self.clients else 0

    def _score(self, cohort: Cohort, kept: Tensor) -> None:
        """Add this round's score to those of each client whose update can be foretold."""
        distances: dict[int, float] = {}
        ages = {row: self._age(cohort.client_ids[row]) for row in kept.nonzero().flatten().tolist()}
        for age in sorted({age for age in ages.values() if age is not None}):
            rows = [row for row in ages if ages[row] == age]
            changes = cohort.updates.new_empty(len(rows), cohort.layout.size)
            for change, row in zip(changes, rows, strict=True):
                torch.sub(cohort.updates[row], self.clients[cohort.client_ids[row]]["update"], out=change)
            changes.nan_to_num_()  # two huge opposite updates: as far as float32 goes, and not infinitely
            expected = self._expected_change(cohort.global_parameters, age)
            distances.update(zip(rows, row_norms(changes, origin=expected).tolist(), strict=True))
        mean = sum(distances.values()) / max(1, len(distances))
        for row, distance in distances.items():
            scores = self.clients[cohort.client_ids[row]]["scores"]
            scores.append(distance / mean if mean > 0 else 1.0)
            del scores[: -self.window]

    def _age(self, client_id: int) -> int | None:
        """Return how many rounds ago a client was seen last; None if that is too long ago to foretell its update."""
        if client_id not in self.clients:
            return None
        age: int = self.num_rounds_seen - self.clients[client_id]["round"]
        return age if age <= len(self.model_steps) + 1 else None

    def _expected_change(self, model: Tensor, age: int) -> Tensor:
        """Return how the update of a client is expected to have changed since it was seen so many rounds ago."""
        step = model - self.model if self.model is not None else torch.zeros_like(model)
        if not self.model_steps:
            return torch.zeros_like(step)
        for earlier in self.model_steps[len(self.model_steps) - (age - 1) :]:
            step = step + earlier
        return fl_detector_change(torch.stack(self.model_steps), torch.stack(self.update_steps), step)

    def _remember(self, cohort: Cohort, kept: Tensor) -> None:
        """Note the round's step of the model and of the mean update, and the updates of the rows kept."""
        weights = self.weights(cohort)
        shares = kept.double() if weights is None or not bool((weights * kept).any()) else weights * kept
        mean = weighted_sum(cohort.updates, shares / shares.sum().clamp(min=1e-300))
        if self.model is not None and self.mean_update is not None:
            self.model_steps = [*self.model_steps, cohort.global_parameters - self.model][-self.window :]
            self.update_steps = [*self.update_steps, mean - self.mean_update][-self.window :]
        self.model, self.mean_update = cohort.global_parameters.clone(), mean
        for row, client_id in enumerate(cohort.client_ids):
            if kept[row]:
                scores = self.clients[client_id]["scores"] if client_id in self.clients else []
                self.clients[client_id] = {
                    "update": cohort.updates[row].clone(),
                    "round": self.num_rounds_seen,
                    "scores": scores,
                }
            else:
                self.clients.pop(client_id, None)
        forget_longest_unseen(self.removed, cohort.client_ids, self.max_clients)
        self.report(**forget_longest_unseen(self.clients, cohort.client_ids, self.max_clients))
