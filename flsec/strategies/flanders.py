"""FLANDERS as a Flower strategy."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from flsec.aggregation.flanders import flanders_forecast
from flsec.aggregation.multi_krum import lowest_scores
from flsec.parameters import Count, Positive, PositiveCount
from flsec.randomness import numpy_generator
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["Flanders"]

_FEWEST_ROUNDS = 2  # before a step from one to the next can be learnt


class Flanders(RobustStrategy):
    """Drop the f clients whose models are farthest from what the rounds before foretell of them.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies; so many are dropped.
        num_parameters: how many of the model's parameters are looked at, drawn once for the run; all where it has
            fewer. The forecast takes time with their third power.
        window: how many rounds back are remembered.
        num_iterations: steps of the alternating least squares in each round.
        ridge: how strongly the forecast is held to "as in the last round", see ``flsec.aggregation.flanders_forecast``.
        seed: seed of the draw.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_parameters``, ``window`` or ``num_iterations`` is not at least
            1, ``ridge`` is not positive, or a first round asks no more than 2 f clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. The sampled parameters of the clients' models are one matrix a
    round, a column a client; a matrix autoregression over the last rounds forecasts the next, and a client's score is
    the distance of its column from that. In the first two rounds nobody is dropped, and the verdict's note ``warm_up``
    says so. A client that was not there in a round, or was dropped, has in its place the mean of those who were kept,
    so that a new one is judged as well. Attackers who are there from the first round on, and steady, become what is
    expected.

    Needs n > 2 f usable replies a round. O(window k n (k + n) + k^3) time a turn, k the number of parameters looked at;
    keeps k numbers for each client of the last ``window`` rounds. Nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Flanders(FedAvg(), num_byzantine=1)
        >>> steady = [[1.0], [1.1], [0.9], [1.0]]
        >>> play_rounds(strategy, [steady, steady, [*steady[:3], [-9.0]]]).round(decimals=1)
        tensor([3.])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Gabrielli et al., "Protecting Federated Learning from Extreme Model Poisoning Attacks via Multidimensional
        Time Series Anomaly Detection" (FLANDERS), arXiv 2303.16668. Left open there, chosen here: who was away.
    """

    state_names: ClassVar[tuple[str, ...]] = ("rounds",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        num_parameters: PositiveCount = 500,
        window: PositiveCount = 10,
        num_iterations: PositiveCount = 10,
        ridge: Positive = 0.01,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.num_parameters = num_parameters
        self.window = window
        self.num_iterations = num_iterations
        self.ridge = ridge
        self.seed = seed
        # Of each round, the latest last: ids, their (n, k) models, and the (k,) mean of these.
        self.rounds: list[dict[str, Any]] = []

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the f rows that are farthest from the forecast."""
        columns = self._columns(cohort.layout.size)
        models = cohort.global_parameters[columns] + cohort.updates[:, columns]
        kept = torch.ones(len(cohort), dtype=torch.bool)
        if len(self.rounds) >= _FEWEST_ROUNDS:
            past = torch.stack([self._models_of(cohort.client_ids, earlier) for earlier in self.rounds])
            forecast = flanders_forecast(past.mT, self.num_iterations, self.ridge)
            scores = (models.double() - forecast.T).norm(dim=1)
            kept = torch.zeros_like(kept)
            kept[lowest_scores(scores, self.faults(cohort), None)] = True
            self.report(scores=scores, threshold=Threshold.of_kept(scores[kept], highest=True))
        else:
            self.report(warm_up=True)
        mean = models[kept].mean(dim=0)
        entry = {"ids": list(cohort.client_ids), "models": torch.where(kept[:, None], models, mean), "mean": mean}
        self.rounds = [*self.rounds, entry][-self.window :]
        return cohort.keep(kept)

    def _columns(self, size: int) -> Tensor:
        """Return which parameters are looked at, the same in every round."""
        count = min(self.num_parameters, size)
        return torch.from_numpy(np.sort(numpy_generator(self.seed, purpose="flanders").choice(size, count, False)))

    @staticmethod
    def _models_of(client_ids: tuple[int, ...], earlier: dict[str, Any]) -> Tensor:
        """Return the (n, k) models that these clients had in an earlier round; for those who were away, the mean."""
        rows = {client_id: row for row, client_id in enumerate(earlier["ids"])}
        return torch.stack([earlier["models"][rows[i]] if i in rows else earlier["mean"] for i in client_ids])
