"""Targeted model poisoning on a client."""

import functools
from typing import Any, ClassVar

from torch import Tensor

from flsec.attacks._mixing import num_added, repeated
from flsec.attacks.model_replacement import model_replacement, replacement_boost
from flsec.attacks.targeted_poisoning import choose_targets
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.metrics.confidence import misclassification_confidence
from flsec.parameters import Count, OpenFraction, Positive, PositiveCount
from flsec.randomness import generator

__all__ = ["TargetedPoisoning"]


class TargetedPoisoning(Attack):
    """Have a handful of chosen samples misclassified, with an update boosted so that averaging does not cancel it.

    Attackers train on their own data and, at the same time, on the chosen samples with wrong labels.

    Args:
        auxiliary_data: (x, y), inputs with their true labels, of which the samples are chosen. A simulation supplies
            the test set, of which the attackers use copies.
        num_targets: r, how many samples: 1 or 10 in the paper.
        source: only samples of this class; null: of any.
        target: what they are to be taken for; null: another class than its own for each, at random.
        fraction: share of the chosen samples in what an attacker trains on, added to its own samples and repeated;
            1/2 weighs both goals alike.
        boost: factor of the upload's update, lambda; null: computed.
        clients_per_round: n, how many updates the server averages in a round, for a boost of n / eta.
        server_learning_rate: eta, for the same.
        options: see ``Attack``.

    All attackers of a run choose the same samples, by the seed alone. ``success`` is the share of them that is
    classified as wanted, and the model's mean confidence in the wanted labels.

    Raises:
        ConfigError: neither boost nor clients_per_round.

    Source: Bhagoji et al., "Analyzing Federated Learning through an Adversarial Lens", ICML 2019, Sec. 3 (targeted
    model poisoning with explicit boosting); SIREN, Sec. 2.2; SparseFed, Sec. 3.2. The paper alternates between the two
    goals and boosts one part of the update; here both are trained jointly and the whole update is boosted.
    """

    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        auxiliary_data: tuple[Tensor, Tensor],
        num_targets: PositiveCount = 1,
        source: Count | None = None,
        target: Count | None = None,
        fraction: OpenFraction = 0.5,
        boost: Positive | None = None,
        clients_per_round: PositiveCount | None = None,
        server_learning_rate: Positive = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.auxiliary_data = auxiliary_data
        self.num_targets = num_targets
        self.source = source
        self.target = target
        self.fraction = fraction
        needed = f"{type(self).__name__} needs boost"
        self.boost = replacement_boost(boost, clients_per_round, server_learning_rate, name=needed)

    @functools.cached_property
    def targets(self) -> tuple[Tensor, Tensor]:
        """Inputs (r, ...) of the chosen samples, and the labels (r,) that the attackers want for them."""
        x, y = self.auxiliary_data
        random = generator(self.seed, purpose="targets")
        chosen, wanted = choose_targets(y, self.num_targets, random, source=self.source, target=self.target)
        return x[chosen], wanted

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
