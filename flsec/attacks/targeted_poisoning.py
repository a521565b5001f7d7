"""Targeted model poisoning: a handful of samples is to be misclassified."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flsec.attacks.projected_gradient import wrong_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount, check_parameters
from flsec.training import Training, get_weights, set_weights, train, weight_names

__all__ = ["alternating_poisoning", "choose_targets"]


def choose_targets(
    labels: Tensor,
    num_targets: PositiveCount,
    generator: torch.Generator,
    *,
    source: Count | None = None,
    target: Count | None = None,
) -> tuple[Tensor, Tensor]:
    """Return which samples the attacker wants misclassified, and as what.

    Args:
        labels: (n,) int64, the true labels, of two classes at least. Not modified.
        num_targets: r, how many, or all where there are fewer.
        generator: source of randomness, on the CPU; advanced.
        source: only samples of this class; None: of any.
        target: the class that all of them are to be taken for; None: for each sample another one than its own, drawn
            at random.

    Returns:
        (r,) int64 positions, ascending, and (r,) int64, the wanted labels; none of them is the sample's own.

    Raises:
        ConfigError: source is target, labels of a single class, or no sample to choose from.

    Example:
        >>> choose_targets(torch.tensor([5, 7, 5]), 10, torch.Generator(), target=7)
        (tensor([0, 2]), tensor([7, 7]))

    Source: Bhagoji et al., "Analyzing Federated Learning through an Adversarial Lens", ICML 2019, Sec. 3.1: r = 1 in
    most experiments, 10 in others, with "a desired target class".
    """
    given = {"num_targets": num_targets, "source": source, "target": target}
    check_parameters(choose_targets, given, name="choose_targets")
    if source is not None and source == target:
        raise ConfigError(
            f"choose_targets: source and target must differ, or nothing is attacked; got {source}.", parameter="source"
        )
    eligible = torch.ones_like(labels, dtype=torch.bool)
    if source is not None:
        eligible &= labels == source
    if target is not None:
        eligible &= labels != target
    candidates = eligible.nonzero().flatten()
    if not len(candidates):
        raise ConfigError(
            f"choose_targets: some sample must be of class source={source} and of another than target={target} (null: "
            f"any); got labels of the classes {sorted(set(labels.tolist()))}. Choose others."
        )
    order = torch.randperm(len(candidates), generator=generator)[:num_targets]
    chosen = candidates[order].sort().values
    if target is not None:
        return chosen, torch.full_like(labels[chosen], target)
    return chosen, wrong_labels(labels[chosen], int(labels.max()) + 1, generator)


def alternating_poisoning(
    model: nn.Module,
    own: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    training: Training,
    *,
    boost: Positive,
    steps: PositiveCount = 5,
    round: PositiveCount,
    generator: torch.Generator,
    num_rounds: PositiveCount | None = None,
) -> list[NDArray[Any]]:
    """Return a model trained on the targets and on own samples in turn, of which only the targets' part is boosted.

    In each epoch ``steps`` steps are taken on the targets, this change alone is multiplied by ``boost``, and then the
    model is trained on the own samples for that epoch, which makes it inconspicuous again.

    Args:
        model: where training starts. Not modified.
        own: (x, y), the attacker's own samples with their true labels.
        targets: (x, wanted), the chosen samples and the labels that the attacker wants for them.
        training: how honest clients train; with ``steps`` in the place of epochs there is one turn.
        boost: lambda.
        steps: on the targets, each on all of them.
        round: 1-based; sets the learning rate.
        generator: of the batches; advanced.
        num_rounds: where the schedule asks for it.

    Returns:
        New arrays in the order of ``flsec.training.get_weights``. Statistics such as BatchNorm's are not boosted.

    Raises:
        ConfigError: as ``flsec.training.train``, or boost or steps out of its range.

    Example:
        >>> from flsec.models import Softmax
        >>> own = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> targets = torch.tensor([[3.0]]), torch.tensor([0])
        >>> training = Training(learning_rate=0.1)
        >>> weight, _ = alternating_poisoning(
        ...     Softmax((1,), 2), own, targets, training, boost=10.0, round=1, generator=torch.Generator()
        ... )
        >>> bool(weight[0, 0] > weight[1, 0])  # input 3 is taken for class 0, where honest training says 1
        True

    Source: Bhagoji et al., "Analyzing Federated Learning through an Adversarial Lens", ICML 2019: alternating
    minimization; without the distance constraint.
    """
    check_parameters(alternating_poisoning, {"boost": boost, "steps": steps}, name="alternating_poisoning")
    local = copy.deepcopy(model)
    weights = {name for name, _ in local.named_parameters()}
    on_targets = replace(training, epochs=None, steps=steps, batch_size=len(targets[0]))
    turns, on_own = (1, training) if training.epochs is None else (training.epochs, replace(training, epochs=1))
    for _ in range(turns):
        before = get_weights(local)
        train(local, *targets, on_targets, round=round, generator=generator, num_rounds=num_rounds)
        after = get_weights(local)
        boosted = [
            (a + np.float32(boost) * (b - a)).astype(b.dtype) if name in weights else b
            for name, a, b in zip(weight_names(local), before, after, strict=True)
        ]
        set_weights(local, boosted)
        train(local, *own, on_own, round=round, generator=generator, num_rounds=num_rounds)
    return get_weights(local)
