"""The three-sigma rule as a Flower strategy."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from flsec.aggregation.foolsgold import foolsgold_similarities
from flsec.aggregation.three_sigma import distances_from_center, three_sigma_bound
from flsec.parameters import Positive, PositiveCount
from flsec.strategies._features import Features, feature_columns, remember_updates
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["ThreeSigma"]


class ThreeSigma(RobustStrategy):
    """Drop the clients whose score lies more than some standard deviations above what is usual in the round.

    Args:
        strategy: the strategy to protect.
        score: what must not lie far above the usual. ``"geometric_median"`` and ``"plain"``: the distance of the
            update from the geometric median or the mean of the round's updates. ``"foolsgold"``: the largest pardoned
            cosine similarity of the client's summed updates to another client's; this finds sybils, not outliers.
        num_sigmas: lambda, how many standard deviations above the middle a score may lie.
        estimate: ``"robust"``: median and median deviation of the round's scores. ``"moments"``: mean and standard
            deviation, as FedML does; they contain the outliers, so that 3 sigmas cannot find anybody among 10
            clients, and FedML takes ``num_sigmas`` 1 (distances) or 2 (FoolsGold).
        features: ``"all"``, or ``"output_layer"`` as FedML does: the last weight matrix and its bias.
        max_clients: how many clients FoolsGold's score remembers, as for ``FoolsGold``; None: all, without end.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_sigmas`` is not positive, ``max_clients`` is not at least 1, or ``score``, ``estimate`` or
            ``features`` is none of its values. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Finds fewer than half of the round's clients (``"moments"``: about n /
    (1 + lambda^2)). It always keeps somebody. The usual is estimated anew in each round: FedML's frozen first round is
    out of date as soon as updates shrink, and an attacker of the first round sets it.

    O(n^2 d) time, O(n^2) extra memory, nothing on the client. FoolsGold's score keeps one float32 vector of the k
    features for each client remembered, at most 4 k ``max_clients`` bytes; the others keep nothing.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = ThreeSigma(FedAvg())
        >>> play_rounds(strategy, [[1.0], [1.1], [1.2], [1.3], [900.0]]).round(decimals=2)
        tensor([1.1500])
        >>> strategy.last_report.verdicts[0].accused
        (4,)

    Source: FedML's security module (Han et al., "FedMLSecurity", KDD 2024; "Kick Bad Guys Out!", 2023).
    """

    state_names: ClassVar[tuple[str, ...]] = ("histories",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        score: Literal["plain", "foolsgold", "geometric_median"] = "geometric_median",
        num_sigmas: Positive = 3.0,
        estimate: Literal["robust", "moments"] = "robust",
        features: Features = "all",
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.score = score
        self.num_sigmas = num_sigmas
        self.estimate: Literal["robust", "moments"] = estimate
        self.features: Features = features
        self.max_clients = max_clients
        self.histories: dict[int, Tensor] = {}  # by client id: the sum of its updates, for FoolsGold's score

    @property
    def knows_clients(self) -> bool:
        """Only FoolsGold's score remembers clients."""
        return self.score == "foolsgold"

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the rows whose score is above the bound."""
        scores = self._scores(cohort)
        bound = three_sigma_bound(scores, self.num_sigmas, self.estimate)
        self.report(scores=scores, bound=bound, threshold=Threshold(at_most=bound) if bound == bound else None)
        return cohort.keep(scores <= bound)

    def _scores(self, cohort: Cohort) -> Tensor:
        if self.score == "foolsgold":
            similarities = foolsgold_similarities(remember_updates(self.histories, cohort, self.features))
            self.report(**forget_longest_unseen(self.histories, cohort.client_ids, self.max_clients))
            return similarities
        columns = feature_columns(cohort.layout, self.features)
        return distances_from_center(cohort.updates[:, columns], self.score)
