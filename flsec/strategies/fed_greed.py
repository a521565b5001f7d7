"""FedGreed as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.fed_greed import greedy_selection
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.tasks import CLASSIFICATION, Task

__all__ = ["FedGreed"]


class FedGreed(RobustStrategy):
    """Add clients in the order of their losses on the server's data, as long as the loss of their mean falls.

    Args:
        strategy: the strategy to protect.
        root_data: (x, y), the server's clean examples. Never of the test set.
        model_factory: builds the clients' network.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``root_data`` is not one label for each input, or ``model_factory`` makes no network. Others: see
            ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Needs neither an honest majority nor a number of attackers; the means
    that are tried are unweighted. Backdoors that the server's examples do not show pass, and where all clients are
    worse than the global model, the least bad is taken. Few honest clients are kept where one is much better than the
    others' mean. The verdict's scores are the clients' own losses; nobody with a finite one: the previous model stays.
    At most 2 n evaluations of the root data a round; nothing is kept between rounds, nothing on the client.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> strategy = FedGreed(FedAvg(), root_data=root_data, model_factory=lambda: network)
        >>> play_rounds(strategy, [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]], model=network)
        tensor([-1.,  1.,  0.,  0.])

    Source: Kritharakis, Makris, Jakovetic and Tserpes, "FedGreed: A Byzantine-Robust Loss-Based Aggregation Method for
        Federated Learning", arXiv:2508.18060, 2025.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        root_data: Examples,
        model_factory: ModelFactory,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_examples(root_data, "root_data")
        self.root_data = root_data
        self._model = RootModel(model_factory, task=task)

    @property
    def accuses_clients(self) -> bool:
        """Never: it keeps as many clients as make the best mean."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the clients of the best mean."""

        def loss(update: Tensor) -> float:
            return self._model.evaluate(cohort, update, self.root_data).loss

        found = greedy_selection(cohort.updates, loss)
        losses = found.losses.nan_to_num()
        self.report(scores=losses, threshold=Threshold.of_kept(losses[found.selected], highest=True))
        return cohort.keep(found.selected)
