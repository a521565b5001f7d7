"""Loss function based rejection (LFR) as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.removal_rejection import harmless, removal_scores
from flsec.parameters import Count
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.tasks import CLASSIFICATION, Task

__all__ = ["LossFunctionRejection"]


class LossFunctionRejection(RobustStrategy):
    """Drop the f clients without whom the aggregate has the lowest loss on the server's data (LFR).

    Args:
        strategy: the strategy to protect.
        root_data: (x, y), the server's clean examples. Never of the test set.
        model_factory: builds the clients' network.
        num_byzantine: f, how many clients to drop.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``; ``weighting="examples"`` weights the aggregate that is evaluated, too.

    Raises:
        ConfigError: ``root_data`` is not one label for each input, or ``model_factory`` makes no network,
            ``num_byzantine`` is negative, or a first round asks fewer than f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. The aggregate is the mean, whatever this wraps. Scores are losses
    without each client. Needs n >= f + 1 usable replies a round. O(n^2 d) time and n evaluations a round; nothing is
    kept between rounds.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> strategy = LossFunctionRejection(
        ...     FedAvg(), root_data=root_data, model_factory=lambda: network, num_byzantine=1
        ... )
        >>> play_rounds(strategy, [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]], model=network)
        tensor([-0.9500,  0.9500,  0.0000,  0.0000])

    Source: Fang et al., USENIX Security 2020, Sec. 5 (loss function based rejection).
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        root_data: Examples,
        model_factory: ModelFactory,
        num_byzantine: Count,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_examples(root_data, "root_data")
        self.root_data = root_data
        self.num_byzantine = num_byzantine
        self._model = RootModel(model_factory, task=task)

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the f that are dropped, and one."""
        return num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the f clients whose removal leaves the lowest loss."""

        def loss(aggregate: Tensor) -> float:
            return self._model.evaluate(cohort, aggregate, self.root_data).loss

        scores = removal_scores(cohort.updates, loss, self.weights(cohort))
        kept = harmless(scores, cohort.updates, min(self.faults(cohort), len(cohort) - 1))
        self.report(scores=scores.nan_to_num(), threshold=Threshold.of_kept(scores[kept], lowest=True))
        return cohort.keep(kept)
