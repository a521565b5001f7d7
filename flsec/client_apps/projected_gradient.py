"""Colluding projected gradient descent on clients."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flsec.aggregation.adaptive_clipping import adaptive_max_norm
from flsec.aggregation.sparsefed import Coordinates
from flsec.attacks.projected_gradient import projected_gradient, wrong_labels
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount
from flsec.randomness import generator
from flsec.training import Training, set_weights

__all__ = ["ProjectedGradient"]


class ProjectedGradient(Attack):
    """Have chosen samples misclassified: all attackers upload the same update, fitted to them inside the clipping ball.

    The attackers share an auxiliary set, samples with wrong labels drawn at random, and the randomness of a round.
    Nothing depends on which of them computes the update, where, or how many they are: their uploads agree bit by bit.

    Args:
        auxiliary_data: (x, y), samples with their true labels, of which the auxiliary set is drawn. The paper's
            attackers take it from the test distribution; a simulation supplies the test set, of which the attackers'
            copies alone get wrong labels. Needs samples of two classes at least.
        model_factory: builds the network that is trained; its weights are overwritten with the global ones. A
            simulation supplies it.
        num_auxiliary: samples of the auxiliary set, or all where there are fewer.
        max_norm: L, the defense's bound as the attackers know it.
        epochs: steps of projected gradient descent, a minibatch each. The paper tries 1 to 11.
        batch_size: samples of a minibatch: a number, or a share of the auxiliary set. The paper tries 0.1 to 0.8.
        boost: factor of the attackers' loss. The paper tries 1 to 20 and takes 20.
        learning_rate: eta; null: the honest clients' rate in that round, which needs ``training``.
        adaptive_clipping: let the bound follow the clients' learning rate, as SparseFed's own does, see
            ``flsec.aggregation.adaptive_max_norm``. Without ``training`` it stays constant.
        training: how honest clients train; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        device: where the attackers compute; a simulation supplies that of its clients.
        options: see ``Attack``.

    The client's own training still runs, and its outcome is discarded. ``success`` is the paper's attack accuracy: the
    share of the auxiliary set that the global model classifies as the attackers want.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from flwr.client import NumPyClient
        >>> from flsec.models import Softmax
        >>> from flsec.training import get_weights
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> attack = ProjectedGradient(
        ...     auxiliary_data=(x, y), model_factory=lambda: Softmax((1,), 2), max_norm=0.5, learning_rate=0.1
        ... )
        >>> @attack
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return parameters, 10, {}
        >>> upload, _, _ = Client().fit(get_weights(Softmax((1,), 2)), {})
        >>> round(float(np.sqrt(sum((array**2).sum() for array in upload))), 2)  # as far as the server lets pass
        0.5

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 6, Sec. 3.2 ("Colluding attack") and App. B.8.
    """

    fits_labels: ClassVar = "class"

    knows_defense = True  # its bound

    def __init__(
        self,
        *,
        auxiliary_data: tuple[Tensor, Tensor],
        model_factory: Callable[[], nn.Module],
        num_auxiliary: PositiveCount = 500,
        max_norm: Positive = 5.0,
        epochs: PositiveCount = 5,
        batch_size: Coordinates = 0.2,
        boost: Positive = 20.0,
        learning_rate: Positive | None = None,
        adaptive_clipping: bool = True,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if learning_rate is None and training is None:
            raise ConfigError(
                f"{type(self).__name__} needs learning_rate, or training to take the honest clients' rate from; got "
                "neither. For example: learning_rate=0.1.",
                parameter="learning_rate",
            )
        self.model_factory = model_factory
        self.max_norm = max_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.boost = boost
        self.learning_rate = learning_rate
        self.adaptive_clipping = adaptive_clipping
        self.training = training
        self.num_rounds = num_rounds
        self.device = device
        self.inputs, self.true_labels, self.wanted_labels = self._auxiliary_set(auxiliary_data, num_auxiliary)

    def _auxiliary_set(self, data: tuple[Tensor, Tensor], num_auxiliary: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, true and wanted labels, drawn by the seed alone."""
        x, y = data
        if len(x) != len(y) or len(set(y.tolist())) < 2:
            raise ConfigError(
                f"{type(self).__name__} needs auxiliary_data as (x, y) with a label for each sample and at least two "
                f"classes; got {len(x)} samples and {len(y)} labels of {len(set(y.tolist()))} classes.",
                parameter="auxiliary_data",
            )
        random = generator(self.seed, purpose="auxiliary set")
        chosen = torch.randperm(len(y), generator=random)[:num_auxiliary]
        true = y[chosen].clone()
        return x[chosen].clone(), true, wrong_labels(true, int(y.max()) + 1, random)

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return what every attacker uploads in this round."""
        model = self.model_factory().to(self.device)
        set_weights(model, global_)
        training = self.training if self.adaptive_clipping else None
        uploaded = projected_gradient(
            model,
            self.inputs.to(self.device),
            self.wanted_labels.to(self.device),
            max_norm=adaptive_max_norm(self.max_norm, max(1, context.round), training, self.num_rounds),
            learning_rate=self._rate(context),
            generator=generator(self.seed, context.round, purpose="projected gradient"),
            epochs=self.epochs,
            batch_size=self.batch_size,
            boost=self.boost,
            coordinates=self.coordinates_of(model, context),
        )
        return [array.astype(honest.dtype, copy=False) for array, honest in zip(uploaded, local, strict=True)]

    def coordinates_of(self, model: nn.Module, context: AttackContext) -> Tensor | None:
        """Return the places that the update may change; None: all. ``model`` holds the global parameters."""
        return None

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of the auxiliary set that is classified as the attackers want."""
        taken = predict(self.inputs).cpu() == self.wanted_labels
        return {"attack_accuracy": float(taken.double().mean())}

    def _rate(self, context: AttackContext) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        assert self.training is not None
        return self.training.learning_rate_at(max(1, context.round), self.num_rounds)
