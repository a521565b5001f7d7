"""The edge-case backdoor on a client."""

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.attacks._mixing import num_added, repeated
from flsec.attacks.edge_case_backdoor import edge_case_indices, split_held_out
from flsec.attacks.projection import project_upload
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.parameters import Count, Fraction, OpenFraction, Positive
from flsec.randomness import generator

__all__ = ["EdgeCaseBackdoor"]


class EdgeCaseBackdoor(Attack):
    """Have rare inputs misclassified, which honest clients hardly hold and so do not correct.

    Args:
        auxiliary_data: (x, y), inputs with their true labels, in which the edge cases are found. A simulation supplies
            the test set, of which the attackers use copies. Edge cases of one's own go here, with ``tail=1.0``.
        target: the label that edge cases are to get.
        source: only edge cases of this class; null: of all classes but ``target``.
        tail: share of each class that counts as edge cases: those furthest from the class's mean.
        negative: take the negatives of these images, light for dark: inputs that no honest client has, where the paper
            has digits of another handwriting.
        held_out: share of the edge cases that nobody trains on, and success is measured on.
        fraction: share of edge cases in what an attacker trains on, added to its own samples, in turn and repeated
            where they are too few.
        max_norm: L: the upload is projected onto the ball of this radius around the global model, as an attacker
            does who knows the server's bound; null: it is not.
        options: see ``Attack``.

    Who attacks and when does not change which edge cases are trained on and which are held out: the seed alone does.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import torch
        >>> from flsec.client_apps import AttackContext
        >>> x, y = torch.tensor([[0.0], [0.1], [0.2], [9.0], [8.0], [5.0]]), torch.tensor([0, 0, 0, 0, 0, 1])
        >>> attack = EdgeCaseBackdoor(auxiliary_data=(x, y), target=1, tail=0.4, fraction=0.5)
        >>> attack.poisoned_dataset((torch.zeros(1, 1), torch.tensor([0])), AttackContext(round=1, client_id=0))
        (tensor([[0.],
                [8.]]), tensor([0, 1]))

    Source: Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, Sec. 3:
    black-box, and with ``max_norm`` PGD, projected once a round; stack ``ModelReplacement`` around it for the third.
    """

    fits_inputs: ClassVar = "numbers"
    fits_labels: ClassVar = "class"

    def __init__(
        self,
        *,
        auxiliary_data: tuple[Tensor, Tensor],
        target: Count = 1,
        source: Count | None = None,
        tail: Fraction = 0.1,
        negative: bool = False,
        held_out: OpenFraction = 0.5,
        fraction: OpenFraction = 0.2,
        max_norm: Positive | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.auxiliary_data = auxiliary_data
        self.target = target
        self.source = source
        self.tail = tail
        self.negative = negative
        self.held_out = held_out
        self.fraction = fraction
        self.max_norm = max_norm

    @property
    def poisons_update(self) -> bool:
        """Whether the upload is projected."""
        return self.max_norm is not None

    @functools.cached_property
    def edge_cases(self) -> tuple[Tensor, Tensor]:
        """The edge cases that attackers train on, and those that are held out: inputs, (k, ...) and (h, ...)."""
        x, y = self.auxiliary_data
        x = x.max() - x if self.negative else x
        found = edge_case_indices(x, y, target=self.target, source=self.source, tail=self.tail)
        train, held = split_held_out(found, self.held_out, generator(self.seed, purpose="edge cases"))
        return x[train], x[held]

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return the data with edge cases added, under the target's label."""
        cases, _ = self.edge_cases
        data = self.training_data(dataset)
        count = num_added(len(data), self.fraction)
        random = generator(self.seed, context.round, context.client_id, "edge case backdoor")
        chosen = cases[repeated(len(cases), count, random)]
        return data.extended(chosen, torch.full((count,), self.target))

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the trained parameters, within the bound if there is one."""
        return local if self.max_norm is None else project_upload(global_, local, max_norm=self.max_norm)

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of held-out edge cases that are taken for the target."""
        _, held = self.edge_cases
        return {"attack_success": float((predict(held).cpu() == self.target).double().mean())}
