"""A3FL on a client."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flsec.attacks.a3fl import OptimisedTrigger, adapted_trigger, patch_mask
from flsec.attacks.triggers import SampleTrigger, triggered_test_set
from flsec.client_apps._around import FitResult, HonestFit, NDArrays
from flsec.client_apps._client_data import DataChange
from flsec.client_apps._trigger_backdoor import TriggerBackdoor
from flsec.client_apps.base import AttackContext, Predict
from flsec.metrics.attack_success import attack_success_rate
from flsec.parameters import Count, Fraction, NonNegative, Positive, PositiveCount
from flsec.randomness import generator
from flsec.training import set_weights

__all__ = ["A3FL"]


class A3FL(TriggerBackdoor):
    """Plant a trigger that is fitted, in every round, to the global model and to one that has learned to resist it.

    The attackers share samples and the randomness of a round, so that all have the same trigger, whatever the worker
    process. Each trains on its own data, a share of which carries the trigger and the attacker's label.

    Args:
        auxiliary_data: (x, y), images with their true labels, that the trigger is fitted on. The paper's attackers use
            their own data; so that they agree, here they share some. A simulation supplies the test set, of which the
            attackers use copies.
        model_factory: builds the network; its weights are overwritten with the global ones. A simulation supplies it.
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        size: side of the trigger, a square near the top left corner, in pixels.
        margin: pixels between it and the edges.
        num_auxiliary: how many samples it is fitted on, or all where there are fewer.
        iterations: steps of the fit.
        step_size: of a step, as a share of the range from ``low`` to ``value``.
        balance: lambda_0, weight of the model that resists.
        adversarial_every: that model is trained anew after so many steps.
        adversarial_epochs: of its training.
        low: the trigger's smallest number, in the units of the data.
        value: its largest.
        device: where the attackers compute; a simulation supplies that of its clients.
        options: see ``Attack``.

    ``success`` is measured with the trigger of the round: the one that the attackers have just trained on. Before the
    first round there is none, and the attack success is null. A trigger fitted to a model has some success on it
    without any backdoor; compare with the round in which the attack begins.

    Raises:
        ConfigError: a parameter out of its range, or samples in which the trigger has no place; in a round, see
            ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.models import Softmax
        >>> from flsec.training import get_weights
        >>> x, y = torch.zeros(8, 1, 3, 3), torch.zeros(8, dtype=torch.int64)
        >>> model = Softmax((1, 3, 3), 2)
        >>> attack = A3FL(auxiliary_data=(x, y), model_factory=lambda: model, target=1, size=2, margin=0)
        >>> attack.trigger_for(get_weights(model), round=1).mask[0].astype(int)
        array([[1, 1, 0],
               [1, 1, 0],
               [0, 0, 0]])

    Source: Zhang et al., "A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning", NeurIPS 2023; see
    ``flsec.attacks.adapted_trigger`` for what differs.
    """

    def __init__(
        self,
        *,
        auxiliary_data: tuple[Tensor, Tensor],
        model_factory: Callable[[], nn.Module],
        target: Count = 0,
        fraction: Fraction = 0.25,
        size: PositiveCount = 3,
        margin: Count = 1,
        num_auxiliary: PositiveCount = 256,
        iterations: PositiveCount = 50,
        step_size: Positive = 0.02,
        balance: NonNegative = 0.01,
        adversarial_every: PositiveCount = 10,
        adversarial_epochs: PositiveCount = 5,
        low: float = 0.0,
        value: float = 1.0,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.model_factory = model_factory
        self.size, self.margin = size, margin
        self.low, self.value = low, value
        self.device = device
        self.iterations, self.step_size, self.balance = iterations, step_size, balance
        self.adversarial_every, self.adversarial_epochs = adversarial_every, adversarial_epochs
        x, y = auxiliary_data
        chosen = torch.randperm(len(y), generator=generator(self.seed, purpose="a3fl"))[:num_auxiliary]
        self.inputs, self.labels = x[chosen].clone(), y[chosen].clone()

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train on data of which a share carries the trigger of this round."""
        context = self.context_for(client, config)
        trigger = self.trigger_for(parameters, context.round)
        change = DataChange(type(self).__name__, lambda dataset: self._stamped(dataset, context, trigger))
        with change.at_work(), change.in_place_of(client, self.data_attribute):
            return honest_fit(parameters, config)

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return the data with the trigger that the fit starts from."""
        mask = self._mask(self.training_data(dataset).tensors(np.arange(1))[0].shape[1:])
        return self._stamped(dataset, context, _made(torch.full(mask.shape, (self.low + self.value) / 2), mask))

    def trigger_for(self, parameters: Sequence[Any], round: int) -> SampleTrigger:
        """Return the trigger of all attackers of a round.

        Args:
            parameters: that the server sent.
            round: the server's, from 1.
        """
        model = self.model_factory().to(self.device)
        set_weights(model, parameters)
        mask = self._mask(self.inputs.shape[1:])
        values = adapted_trigger(
            model,
            self.inputs.to(self.device),
            self.labels.to(self.device),
            mask,
            target=self.target,
            generator=generator(self.seed, round, purpose="a3fl"),
            low=self.low,
            value=self.value,
            iterations=self.iterations,
            step_size=self.step_size,
            balance=self.balance,
            adversarial_every=self.adversarial_every,
            adversarial_epochs=self.adversarial_epochs,
        )
        return _made(values, mask)

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of test samples of other classes that are taken for the target with the round's trigger."""
        if predict.start is None:
            return {"attack_success": None}
        trigger = self.trigger_for(predict.start, predict.round)
        triggered, labels = triggered_test_set(x, y, trigger, self.target)
        return {"attack_success": attack_success_rate(predict(triggered), labels, self.target)}

    def check_samples(self, x: Tensor) -> None:
        """Raise ``ConfigError`` if the trigger has no place in the samples.

        Args:
            x: some samples.
        """
        self._mask(x.shape[1:])

    def _mask(self, shape: Sequence[int]) -> Tensor:
        return patch_mask(shape, size=self.size, margin=self.margin)

    def _stamped(self, dataset: Any, context: AttackContext, trigger: SampleTrigger) -> Any:
        data = self.training_data(dataset)
        return data.poisoned(self.poison_with(trigger, len(data), context))


def _made(values: Tensor, mask: Tensor) -> OptimisedTrigger:
    return OptimisedTrigger(values.cpu().numpy(), mask.numpy())
