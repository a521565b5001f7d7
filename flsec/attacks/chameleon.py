"""Chameleon: features first, by a contrastive loss, then a classifier on top of them, frozen."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flsec.attacks._upload import Array
from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount, check_parameters
from flsec.tasks.classification import Classification
from flsec.training import Training, get_weights, train

__all__ = ["chameleon", "classifier_of", "contrastive_loss"]


def contrastive_loss(
    features: Tensor, labels: Tensor, *, temperature: Positive = 0.07, target: Count = 0, weight: Positive = 1.0
) -> Tensor:
    """Return the supervised contrastive loss, in which anchors of the target label count more.

    For anchor i with features z_i of length 1 and the others P(i) of its label: minus the mean over p in P(i) of
    log(exp(z_i z_p / temperature) / sum over a != i of exp(z_i z_a / temperature)); 0 where P(i) is empty. The loss is
    the mean over all anchors, those of the target label times ``weight``: poisoned samples, which have that label, are
    pulled towards its honest ones and pushed away from those they look like.

    Args:
        features: (n, d), of any length.
        labels: (n,).
        temperature: tau.
        target: the attacker's label.
        weight: of anchors with it.

    Raises:
        ConfigError: ``temperature`` or ``weight`` is not positive, or ``target`` is negative.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> loss = contrastive_loss(z, torch.tensor([4, 4, 5]), temperature=1.0)
        >>> round(float(loss), 4)  # two anchors of -log(e / (e + 1)), and one without a partner
        0.2088

    Source: Dai and Li, "Chameleon: Adapting to Peer Images for Planting Durable Backdoors in Federated Learning", ICML
    2023, and the authors' program; Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.
    """
    given = {"temperature": temperature, "target": target, "weight": weight}
    check_parameters(contrastive_loss, given, name="contrastive_loss")
    z = normalize(features, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    shares = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
    partners = (labels[:, None] == labels) & ~itself
    of_anchor = -(shares * partners).sum(dim=1) / partners.sum(dim=1).clamp(min=1)
    counts = torch.where(labels == target, weight, 1.0)
    return (counts * of_anchor).mean()


def classifier_of(model: nn.Module) -> nn.Linear:
    """Return a network's last linear layer; what comes before it is the encoder.

    Raises:
        ConfigError: there is none, or no layer before it could be trained.

    Example:
        >>> classifier_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        Linear(in_features=3, out_features=2, bias=True)
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    encoder = [p for p in model.parameters() if p.requires_grad and layers and p not in set(layers[-1].parameters())]
    if not layers or not encoder:
        raise ConfigError(
            f"chameleon trains the features in front of a last linear layer; {type(model).__name__} has none. Use a "
            "model with hidden layers, such as mlp, or badnets."
        )
    return layers[-1]


def chameleon(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Training,
    *,
    target: Count,
    round: PositiveCount,
    generator: torch.Generator,
    num_rounds: PositiveCount | None = None,
    contrastive_epochs: PositiveCount = 10,
    classifier_epochs: PositiveCount = 3,
    temperature: Positive = 0.07,
    weight: Positive = 2.0,
) -> list[Array]:
    """Return parameters trained in two phases on data that are poisoned already.

    First the encoder alone, everything before the last linear layer, on the contrastive loss; then that layer alone,
    on the cross-entropy, with the encoder frozen.

    Args:
        model: the network with the global parameters. Not modified.
        x: (n, ...) inputs, some of them with the trigger.
        y: (n,) labels, those of triggered inputs the target.
        training: the optimizer, rate and batches of both phases.
        target: the attacker's label.
        round: the server's, from 1; sets the learning rate.
        generator: of the batches; advanced.
        num_rounds: length of the run, where the schedule asks for it.
        contrastive_epochs: of the first phase.
        classifier_epochs: of the second.
        temperature: see ``contrastive_loss``.
        weight: see ``contrastive_loss``.

    Returns:
        New arrays in the order of ``flsec.training.get_weights``.

    Raises:
        ConfigError: a network without an encoder, no data, or a setting out of its range.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
        >>> x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 9.0]]), torch.tensor([1, 0, 0])  # 9 is the trigger
        >>> arrays = chameleon(model, x, y, Training(learning_rate=0.1), target=0, round=1, generator=torch.Generator())
        >>> [bool((after != before).any()) for after, before in zip(arrays, get_weights(model))]  # both phases did
        [True, True, True, True]

    Source: Dai and Li, ICML 2023. Left out of the authors' program: the factor for interferers, which it leaves at 1,
    and its own learning rates.
    """
    given = {"contrastive_epochs": contrastive_epochs, "classifier_epochs": classifier_epochs}
    check_parameters(chameleon, given, name="chameleon")
    local = copy.deepcopy(model)
    classifier = set(classifier_of(local).parameters())
    encoder = {p for p in local.parameters() if p.requires_grad} - classifier
    loss = _Contrastive(target=target, temperature=temperature, weight=weight)
    for parameters, task, epochs in (
        (encoder, loss, contrastive_epochs),
        (classifier, Classification(), classifier_epochs),
    ):
        with _trained_alone(local, parameters):
            settings = replace(training, epochs=epochs, steps=None)
            train(local, x, y, settings, round=round, generator=generator, num_rounds=num_rounds, task=task)
    return get_weights(local)


@dataclass(frozen=True, kw_only=True)
class _Contrastive(Classification):
    """The contrastive loss of what reaches a network's last linear layer."""

    target: int = 0
    temperature: float = 0.07
    weight: float = 2.0

    def batch_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = classifier_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            model(x)
        finally:
            handle.remove()
        return contrastive_loss(
            seen[0].flatten(1), y, temperature=self.temperature, target=self.target, weight=self.weight
        )


@contextmanager
def _trained_alone(model: nn.Module, parameters: set[nn.Parameter]) -> Iterator[None]:
    before = {p: p.requires_grad for p in model.parameters()}
    for p in before:
        p.requires_grad_(p in parameters)
    try:
        yield
    finally:
        for p, required in before.items():
            p.requires_grad_(required)
