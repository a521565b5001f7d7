"""DiverseFL as a Flower strategy."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor

from flsec.aggregation.diversefl import accepts, check_epsilons, diversefl_scores
from flsec.parameters import NonNegative, Positive, PositiveCount
from flsec.strategies._root_model import Examples, ModelFactory, RootModel, check_examples
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold
from flsec.tasks import CLASSIFICATION, Task
from flsec.training import Training

__all__ = ["DiverseFL"]


class DiverseFL(RobustStrategy):
    """Accept each client whose update resembles what the server computes on a sample of that client's data.

    Args:
        strategy: the strategy to protect.
        client_samples: {client id: (x, y)}, given once before training; the paper has 1 % or 3 % of each client's data.
        model_factory: builds the clients' network.
        training: how clients train.
        client_sample_share: share of its data that each client gave. It tells how many batches a client's epoch has;
            the number of examples that a reply claims is not trusted with that.
        guiding: what the server computes. ``"local_training"``: as many steps as the client takes, in batches of the
            client's size or of the whole sample if that is smaller; with one step it is the paper's gradient.
            ``"gradient"``: one step on the whole sample, times the client's number of steps: cheap, but only where
            these are few and small. Over many, gradients shrink, and honest clients look too short (C2 about 0.1
            after 30 steps of an MLP on MNIST).
        epsilon_1: least ratio of the lengths of update and guiding update, exclusive.
        epsilon_2: largest ratio, exclusive.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        seed: the seed of the run; the guiding batches depend on it, the round and the client.
        task: what the clients learn; see ``flsec.tasks``.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: a client's sample is not one label for each input, ``model_factory`` makes no network, ``training``
            is no ``Training``, ``client_sample_share`` is not in (0, 1], or ``epsilon_1`` is not below ``epsilon_2``.
            Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. The verdict's scores are C1 x C2 of each client (the paper's Fig. 1), 0
    where there is none. A client without a sample, or whose guiding update is zero or not finite, is rejected and
    listed in the notes ``no_sample`` and ``no_guiding_update``. If nobody is accepted the previous model is kept.
    Clients are judged alone, so any number of hostile ones can be rejected. Cost: the training of the round's clients
    on their samples; memory: one update and the samples, nothing else is kept between rounds.

    Example:
        >>> import torch
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.models import Softmax
        >>> from flsec.testing import play_rounds
        >>> from flsec.training import Training
        >>> network, root_data = Softmax((1,), 2), (torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0]))
        >>> samples = dict.fromkeys(range(3), root_data)
        >>> training = Training(learning_rate=2.0, steps=1)
        >>> strategy = DiverseFL(FedAvg(), client_samples=samples, model_factory=lambda: network, training=training)
        >>> play_rounds(strategy, [[-1.0, 1.0, 0.0, 0.0], [-0.9, 0.9, 0.0, 0.0], [9.0, -9.0, 0.0, 0.0]], model=network)
        tensor([-0.9500,  0.9500,  0.0000,  0.0000])

    Source: DiverseFL, Sec. III and Algorithm 1. The paper compares single gradients; for clients that take several
    local steps the guiding update takes as many.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        client_samples: Mapping[int, Examples],
        model_factory: ModelFactory,
        training: Training,
        client_sample_share: Annotated[float, Gt(0), Le(1)] = 0.03,
        guiding: Literal["local_training", "gradient"] = "local_training",
        epsilon_1: NonNegative = 0.5,
        epsilon_2: Positive = 2.0,
        num_rounds: PositiveCount | None = None,
        seed: int = 0,
        task: Task = CLASSIFICATION,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_epsilons(epsilon_1, epsilon_2)
        for client_id, sample in client_samples.items():
            check_examples(sample, f"client_samples[{client_id}]")
        self.client_samples = client_samples
        self.training = training
        self.client_sample_share = client_sample_share
        self.guiding = guiding
        self.epsilon_1 = epsilon_1
        self.epsilon_2 = epsilon_2
        self._model = RootModel(model_factory, training=training, num_rounds=num_rounds, seed=seed, task=task)

    @property
    def knows_clients(self) -> bool:
        """Always: each client has samples of its own here."""
        return True

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the clients that do not meet both conditions."""
        scores = torch.zeros(len(cohort), dtype=torch.float64)
        no_sample, no_guiding_update = [], []
        for i, client_id in enumerate(cohort.client_ids):
            if client_id not in self.client_samples:
                no_sample.append(client_id)
                continue
            guide = self.guiding_update(cohort, client_id)
            if not bool(guide.any()) or not bool(guide.isfinite().all()):
                no_guiding_update.append(client_id)
                continue
            scores[i] = diversefl_scores(cohort.updates[i : i + 1], guide[None]).item()
        self.report(
            scores=scores,
            threshold=Threshold(self.epsilon_1, self.epsilon_2),
            no_sample=no_sample,
            no_guiding_update=no_guiding_update,
        )
        return cohort.keep(accepts(scores, self.epsilon_1, self.epsilon_2))

    def accused(self, given: Cohort, kept: Cohort) -> tuple[int, ...]:
        """Return the clients dropped for what they sent, and not for want of something to compare it with."""
        notes = self.stated_notes()
        unjudged = {*notes.get("no_sample", ()), *notes.get("no_guiding_update", ())}
        return tuple(i for i in super().accused(given, kept) if i not in unjudged)

    def guiding_update(self, cohort: Cohort, client_id: int) -> Tensor:
        """Return the (d,) update that the server gets from this client's sample."""
        sample = self.client_samples[client_id]
        size = len(sample[0])
        local_size = max(size, round(size / self.client_sample_share))
        steps = self.training.num_steps(local_size)
        if self.guiding == "gradient":
            taken, batch_size = 1, size
        else:
            taken, batch_size = steps, min(size, self.training.batch_size_for(local_size))
        update = self._model.train(
            cohort, sample, client=client_id, purpose="guiding update", steps=taken, batch_size=batch_size
        )
        return update * (steps / taken)
