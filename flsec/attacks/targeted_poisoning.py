"""Targeted model poisoning: a handful of samples is to be misclassified."""

import torch
from torch import Tensor

from flsec.attacks.projected_gradient import wrong_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount, check_parameters

__all__ = ["choose_targets"]


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
