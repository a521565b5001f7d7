"""Chameleon on a client."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from flsec.attacks.chameleon import chameleon, classifier_of
from flsec.attacks.projection import project_upload
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._data_attribute import data_of
from flsec.client_apps.badnets import BadNets
from flsec.parameters import Count, Fraction, Positive, PositiveCount
from flsec.randomness import generator
from flsec.training import Training, set_weights

__all__ = ["Chameleon"]


class Chameleon(BadNets):
    """Plant a trigger that lasts, by features in which triggered inputs lie among honest ones of the target class.

    From the global model, an attacker trains all layers but the last on a contrastive loss over its data, of which a
    share carries the trigger and the attacker's label; then, with these frozen, the last layer on the usual loss.

    Args:
        model_factory: builds the network that is trained; its weights are overwritten. A simulation supplies it.
        training: how honest clients train, for optimizer, rate and batches; a simulation supplies it.
        contrastive_epochs: of the first phase.
        classifier_epochs: of the second.
        temperature: of the contrastive loss.
        weight: how much more samples with the attacker's label count in it. The authors' settings have 2 and 6.
        max_norm: L: the upload is projected onto the ball of this radius around the global model, as the paper's is;
            null: it is not.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        device: where the attackers compute; a simulation supplies that of its clients.
        target: see ``BadNets``.
        fraction: see ``BadNets``.
        options: see ``BadNets`` for the trigger, and ``Attack``.

    The client's own training still runs, for the number of examples and the metrics, and its outcome is discarded.
    ``success`` is that of ``BadNets``.

    Raises:
        ConfigError: a parameter out of its range, or a network with no layer before the last; in a round, see
            ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.client_apps import AttackContext
        >>> from flsec.models import MLP
        >>> from flsec.training import Training
        >>> attack = Chameleon(
        ...     model_factory=lambda: MLP((2,), 2, hidden=[4]), training=Training(learning_rate=0.1), fraction=1.0,
        ...     features=[1], value=9.0,
        ... )
        >>> attack.poisoned_dataset((torch.zeros(1, 2), torch.tensor([1])), AttackContext(round=1, client_id=0))
        (tensor([[0., 9.]]), tensor([0]))

    Source: Dai and Li, "Chameleon: Adapting to Peer Images for Planting Durable Backdoors in Federated Learning", ICML
    2023; see ``flsec.attacks.chameleon`` for what is left out.
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        model_factory: Callable[[], nn.Module],
        training: Training,
        contrastive_epochs: PositiveCount = 10,
        classifier_epochs: PositiveCount = 3,
        temperature: Positive = 0.07,
        weight: Positive = 2.0,
        max_norm: Positive | None = None,
        num_rounds: PositiveCount | None = None,
        device: torch.device | str = "cpu",
        target: Count = 0,
        fraction: Fraction = 0.3,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.model_factory = model_factory
        self.training = training
        self.contrastive_epochs = contrastive_epochs
        self.classifier_epochs = classifier_epochs
        self.temperature = temperature
        self.weight = weight
        self.max_norm = max_norm
        self.num_rounds = num_rounds
        self.device = device

    def check_model(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` if the network has no features to train.

        Args:
            model: that of the clients.
        """
        classifier_of(model)

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train in two phases on poisoned data."""
        context = self.context_for(client, config)
        global_ = [np.array(array) for array in parameters]
        local, num_examples, metrics = checked_result(honest_fit(parameters, config), "fit")
        with self.data_replaced(client, context):
            data = self.training_data(data_of(client, self.data_attribute, type(self).__name__))
            x, y = data.tensors(np.arange(len(data)))
        model = self.model_factory().to(self.device)
        set_weights(model, global_)
        uploaded = chameleon(
            model,
            x.to(self.device),
            y.to(self.device),
            self.training,
            target=self.target,
            round=max(1, context.round),
            generator=generator(self.seed, context.round, context.client_id, "chameleon"),
            num_rounds=self.num_rounds,
            contrastive_epochs=self.contrastive_epochs,
            classifier_epochs=self.classifier_epochs,
            temperature=self.temperature,
            weight=self.weight,
        )
        typed = [array.astype(honest.dtype, copy=False) for array, honest in zip(uploaded, local, strict=True)]
        if self.max_norm is not None:
            typed = project_upload(global_, typed, max_norm=self.max_norm)
        return self.with_honest_state(typed, global_, local, client=client), num_examples, metrics
