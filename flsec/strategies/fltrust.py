"""FLTrust as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.fltrust import fltrust, fltrust_scores
from flsec.parameters import PositiveCount
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies.base import FlowerStrategy, KeepPreviousModel, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.tasks import CLASSIFICATION, Task
from flsec.training import Training

__all__ = ["FLTrust"]


class FLTrust(RobustStrategy):
    """Trust each client as far as it points where the server's own training on a small clean set points.

    Args:
        strategy: the strategy to protect.
        root_data: (x, y), the server's clean examples; the paper has 100. Never of the test set.
        model_factory: builds the clients' network.
        training: how clients train; the server trains alike.
        local_steps: batches that the server trains on in a round; as ``training`` says if left out. Where that counts
            epochs a client with more data takes more steps; set ``local_steps`` to a client's number, since the
            server's update sets the length of the global step.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        seed: the seed of the run; the server's batches depend on it and on the round.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``root_data`` is not one label for each input, or ``model_factory`` makes no network, ``training``
            is no ``Training``, or ``local_steps`` or ``num_rounds`` is not at least 1. Others: see ``RobustStrategy``.

    Weights a round's (n, d) updates by (n,) trust scores and makes one (d,) of them. Clients whose cosine with the
    server's update is not positive are dropped; if that is everybody, or if the server's update is zero or not finite,
    the previous model is kept. Needs no honest majority. Two passes over the updates and the training of one client a
    round; nothing is kept between rounds.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> from flsec.training import Training
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> training = Training(learning_rate=0.5, steps=1)
        >>> strategy = FLTrust(FedAvg(), root_data=root_data, model_factory=lambda: network, training=training)
        >>> play_rounds(strategy, [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]], model=network)
        tensor([-0.2500,  0.2500,  0.0000,  0.0000])
        >>> strategy.last_report.verdicts[0].kept
        (0, 1)

    Source: Cao et al., NDSS 2021, Sec. IV and Algorithm 2.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        root_data: Examples,
        model_factory: ModelFactory,
        training: Training,
        local_steps: PositiveCount | None = None,
        num_rounds: PositiveCount | None = None,
        seed: int = 0,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_examples(root_data, "root_data")
        self.root_data = root_data
        self.local_steps = local_steps
        self._model = RootModel(model_factory, training=training, num_rounds=num_rounds, seed=seed, task=task)
        self._server_update: Tensor | None = None  # of the current round, from one stage to the next

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the clients that get no trust."""
        self._server_update = self._model.train(cohort, self.root_data, purpose="root update", steps=self.local_steps)
        if not bool(self._server_update.isfinite().all()):
            raise KeepPreviousModel("the server's own update is not finite")
        scores = fltrust_scores(cohort.updates, self._server_update)
        shares = scores / scores.sum().clamp(min=1e-300)
        self.report(scores=scores, weights=shares, threshold=Threshold(at_least=0.0))
        return cohort.keep(scores > 0)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the trust-weighted mean of the rescaled updates."""
        assert self._server_update is not None
        return fltrust(cohort.updates, self._server_update)
