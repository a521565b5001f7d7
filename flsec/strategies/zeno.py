"""Zeno as a Flower strategy."""

from typing import Any

import torch
from torch import Tensor

from flsec.aggregation.zeno import best, zeno_scores
from flsec.parameters import Count, NonNegative, PositiveCount
from flsec.randomness import generator
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.tasks import CLASSIFICATION, Task

__all__ = ["Zeno"]


class Zeno(RobustStrategy):
    """Keep the clients whose updates lower the loss on a small batch of the server's data most.

    Args:
        strategy: the strategy to protect.
        root_data: (x, y), the server's clean examples. Never of the test set.
        model_factory: builds the clients' network.
        num_byzantine: b, how many of the worst clients to drop; at least the number of hostile ones.
        rho: weight of the penalty on an update's squared length. For SGD clients it is the paper's rho divided by
            learning_rate^2, since an update is -learning_rate times a gradient.
        batch_size: n_r, examples of the root data that are drawn afresh each round; all of them if there are fewer.
        seed: the seed of the run; the batches depend on it and on the round.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``root_data`` is not one label for each input, or ``model_factory`` makes no network,
            ``num_byzantine`` or ``rho`` is negative, ``batch_size`` is not at least 1, or a first round asks fewer than
            b + 1 clients. Others: see ``RobustStrategy``.

    Hands on (n - b, d) of a round's (n, d) updates. Needs n >= b + 1 usable replies a round, and no honest majority. n
    + 1 evaluations of the batch a round; nothing is kept between rounds.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> strategy = Zeno(FedAvg(), root_data=root_data, model_factory=lambda: network, num_byzantine=1)
        >>> play_rounds(strategy, [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]], model=network)
        tensor([-0.9500,  0.9500,  0.0000,  0.0000])

    Source: Xie et al., "Zeno: Distributed SGD with suspicion-based fault-tolerance", ICML 2019, Sec. 4.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        root_data: Examples,
        model_factory: ModelFactory,
        num_byzantine: Count,
        rho: NonNegative = 0.0005,
        batch_size: PositiveCount = 12,
        seed: int = 0,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_examples(root_data, "root_data")
        self.root_data = root_data
        self.num_byzantine = num_byzantine
        self.rho = rho
        self.batch_size = batch_size
        self.seed = seed
        self._model = RootModel(model_factory, task=task)

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the b that are dropped, and one."""
        return num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the b lowest scores, and all that are not finite."""
        batch = self._batch(cohort.round)

        def loss(update: Tensor) -> float:
            return self._model.evaluate(cohort, update, batch).loss

        scores = zeno_scores(cohort.updates, loss, self.rho)
        kept = best(scores, min(self.faults(cohort), len(cohort) - 1))
        self.report(scores=scores.nan_to_num(), threshold=Threshold.of_kept(scores[kept], lowest=True))
        return cohort.keep(kept)

    def _batch(self, round_: int) -> Examples:
        x, y = self.root_data
        order = torch.randperm(len(x), generator=generator(self.seed, round_, purpose="Zeno's batch"))
        rows = order[: self.batch_size].to(x.device)
        return x[rows], y[rows.to(y.device)]
