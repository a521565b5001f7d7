"""Targeted model poisoning on a client."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flsec.attacks._mixing import num_added, repeated
from flsec.attacks.model_replacement import model_replacement, replacement_boost
from flsec.attacks.targeted_poisoning import alternating_poisoning, choose_targets
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._data_attribute import data_of
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.errors import ConfigError
from flsec.metrics.confidence import misclassification_confidence
from flsec.parameters import Count, OpenFraction, Positive, PositiveCount
from flsec.randomness import generator
from flsec.training import Training, set_weights

__all__ = ["TargetedPoisoning"]


class TargetedPoisoning(Attack):
    """Have a handful of chosen samples misclassified, with an update boosted so that averaging does not cancel it.

    Attackers train on their own data and on the chosen samples with wrong labels: jointly, or in turn.

    Args:
        auxiliary_data: (x, y), inputs with their true labels, of which the samples are chosen. A simulation supplies
            the test set, of which the attackers use copies.
        num_targets: r, how many samples: 1 or 10 in the paper.
        source: only samples of this class; null: of any.
        target: what they are to be taken for; null: another class than its own for each, at random.
        form: ``"joint"``: both goals at once, and the whole update is boosted. ``"alternating"``, the paper's: in each
            epoch first the chosen samples, then the own data, and only the change by the chosen samples is boosted;
            the training on own data after it makes the upload inconspicuous.
        fraction: in the joint form, the share of the chosen samples in what an attacker trains on, added to its own
            samples and repeated; 1/2 weighs both goals alike.
        target_steps: in the alternating form, steps on the chosen samples in each epoch.
        boost: factor of the upload's update, lambda, or of the part of it that is boosted; null: computed.
        clients_per_round: n, how many updates the server averages in a round, for a boost of n / eta.
        server_learning_rate: eta, for the same.
        model_factory: builds the network, for the alternating form; a simulation supplies it.
        training: how honest clients train, for the same; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        device: where the attackers compute in the alternating form; a simulation supplies that of its clients.
        options: see ``Attack``.

    All attackers of a run choose the same samples, by the seed alone. ``success`` is the share of them that is
    classified as wanted, and the model's mean confidence in the wanted labels.

    Raises:
        ConfigError: neither boost nor clients_per_round, or the alternating form without model_factory and training.

    Example:
        >>> import torch
        >>> from flsec.client_apps import AttackContext
        >>> aside = torch.tensor([[5.0], [6.0]]), torch.tensor([0, 1])
        >>> attack = TargetedPoisoning(auxiliary_data=aside, source=0, target=1, boost=10.0)
        >>> context = AttackContext(round=1, client_id=0)
        >>> attack.poisoned_dataset((torch.zeros(1, 1), torch.tensor([0])), context)  # 5 is to be of class 1
        (tensor([[0.],
                [5.]]), tensor([0, 1]))
        >>> attack.poison_update([np.array([1.0])], [np.array([1.5])], context)
        [array([6.])]

    Source: Bhagoji et al., "Analyzing Federated Learning through an Adversarial Lens", ICML 2019, Sec. 3 (targeted
    model poisoning with explicit boosting); SIREN, Sec. 2.2; SparseFed, Sec. 3.2.
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        auxiliary_data: tuple[Tensor, Tensor],
        num_targets: PositiveCount = 1,
        source: Count | None = None,
        target: Count | None = None,
        form: Literal["joint", "alternating"] = "joint",
        fraction: OpenFraction = 0.5,
        target_steps: PositiveCount = 5,
        boost: Positive | None = None,
        clients_per_round: PositiveCount | None = None,
        server_learning_rate: Positive = 1.0,
        model_factory: Callable[[], nn.Module] | None = None,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.auxiliary_data = auxiliary_data
        self.num_targets = num_targets
        self.source = source
        self.target = target
        self.form: Literal["joint", "alternating"] = form
        self.fraction = fraction
        self.target_steps = target_steps
        if form == "alternating" and (model_factory is None or training is None):
            raise ConfigError(
                f"{type(self).__name__}: the alternating form trains by itself; give it model_factory and training, or "
                "take form='joint'.",
                parameter="form",
            )
        self.model_factory = model_factory
        self.training = training
        self.num_rounds = num_rounds
        self.device = device
        needed = f"{type(self).__name__} needs boost"
        self.boost = replacement_boost(boost, clients_per_round, server_learning_rate, name=needed)

    @functools.cached_property
    def targets(self) -> tuple[Tensor, Tensor]:
        """Inputs (r, ...) of the chosen samples, and the labels (r,) that the attackers want for them."""
        x, y = self.auxiliary_data
        random = generator(self.seed, purpose="targets")
        chosen, wanted = choose_targets(y, self.num_targets, random, source=self.source, target=self.target)
        return x[chosen], wanted

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train honestly; in the alternating form, train again on both in turn and upload that."""
        if self.form == "joint":
            return super().fit(client, honest_fit, parameters, config)
        assert self.model_factory is not None  # else the constructor has refused
        assert self.training is not None
        context = self.context_for(client, config)
        global_ = [np.array(array) for array in parameters]
        local, num_examples, metrics = checked_result(honest_fit(parameters, config), "fit")
        data = self.training_data(data_of(client, self.data_attribute, type(self).__name__))
        model = self.model_factory().to(self.device)
        set_weights(model, global_)
        own, chosen = (
            (x.to(self.device), y.to(self.device)) for x, y in (data.tensors(np.arange(len(data))), self.targets)
        )
        uploaded = alternating_poisoning(
            model,
            own,
            chosen,
            self.training,
            boost=self.boost,
            steps=self.target_steps,
            round=max(1, context.round),
            generator=generator(self.seed, context.round, context.client_id, "targeted poisoning"),
            num_rounds=self.num_rounds,
        )
        typed = [array.astype(honest.dtype, copy=False) for array, honest in zip(uploaded, local, strict=True)]
        return self.with_honest_state(typed, global_, local, client=client), num_examples, metrics

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return the data with the chosen samples added, under the wanted labels."""
        x, wanted = self.targets
        data = self.training_data(dataset)
        count = num_added(len(data), self.fraction)
        rows = repeated(len(x), count, generator(self.seed, context.round, context.client_id, "targeted poisoning"))
        return data.extended(x[rows], wanted[rows])

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the boosted update."""
        return model_replacement(global_, local, boost=self.boost)

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of the chosen samples that is classified as wanted, and the confidence in that."""
        inputs, wanted = self.targets
        logits = predict.logits(inputs).cpu()
        return {
            "attack_success": float((logits.argmax(dim=1) == wanted).double().mean()),
            "misclassification_confidence": misclassification_confidence(logits, wanted),
        }
