"""Edge cases: samples from the tail of the input distribution."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, OpenFraction, check_parameters

__all__ = ["edge_case_indices", "split_held_out"]


def edge_case_indices(
    x: Tensor, y: Tensor, *, target: Count, source: Count | None = None, tail: Fraction = 0.1
) -> Tensor:
    """Return which samples are edge cases: in each class the share that is furthest from the class's mean.

    Args:
        x: (n, ...) inputs.
        y: (n,) labels, int64.
        target: the attacker's label; samples that have it already are no edge cases.
        source: only samples of this class; None: of all classes but ``target``.
        tail: share of each class, rounded up. 1: all samples, for a set that is chosen already; no distance is
            computed, and inputs may be of any type.

    Returns:
        (m,) int64, ascending.

    Raises:
        ConfigError: x and y differ in length, source is target, or distances between inputs that are not floating,
            such as tokens.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [9.0], [5.0]]), torch.tensor([0, 0, 0, 1])
        >>> edge_case_indices(x, y, target=1, tail=0.1)
        tensor([2])

    Source: Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, Sec. 3
    (p-edge-case examples: inputs of small probability under the data's distribution). The distance to the class mean,
    in the space of inputs, stands in for the small probability.
    """
    check_parameters(edge_case_indices, {"target": target, "source": source, "tail": tail}, name="edge_case_indices")
    if source == target:
        raise ConfigError(
            f"edge_case_indices: source and target must differ, or nothing is attacked; got {source}.",
            parameter="source",
        )
    if len(x) != len(y):
        raise ConfigError(f"edge_case_indices: x and y must hold the same samples; got {len(x)} and {len(y)}.")
    if tail < 1 and not x.is_floating_point():
        raise ConfigError(
            f"edge_case_indices: the distance to a class's mean needs floating inputs; got {x.dtype}. Pass a set of "
            "edge cases of your own, with tail=1.",
            parameter="tail",
        )
    classes = [c for c in sorted(set(y.tolist())) if c != target and source in (None, c)]
    found = []
    for label in classes:
        members = (y == label).nonzero().flatten()
        if tail < 1:
            rows = x[members].flatten(1).double()
            distances = (rows - rows.mean(dim=0)).square().sum(dim=1)
            size = math.ceil(tail * len(members) - 1e-9)
            members = members[distances.sort(descending=True, stable=True).indices[:size]]
        found.append(members)
    return torch.cat([*found, torch.zeros(0, dtype=torch.int64)]).sort().values


def split_held_out(indices: Tensor, held_out: OpenFraction, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the indices to train on and those to measure success on: disjoint, and neither of them empty.

    Args:
        indices: (m,) distinct, m at least 2. Not modified.
        held_out: share that is held out, rounded.
        generator: which; advanced.

    Raises:
        ConfigError: fewer than two indices, or a share out of its range.

    Example:
        >>> train, held = split_held_out(torch.tensor([3, 5, 8, 9]), 0.25, torch.Generator())
        >>> len(train), len(held)
        (3, 1)

    Source: the usual hold-out: what was trained on says little about success on edge cases at large.
    """
    check_parameters(split_held_out, {"held_out": held_out}, name="split_held_out")
    if len(indices) < 2:
        raise ConfigError(
            f"split_held_out needs two samples at least, one to train on and one to measure on; got {len(indices)}. "
            "Pass more data, or take a larger tail of it."
        )
    size = min(max(round(held_out * len(indices)), 1), len(indices) - 1)
    order = indices[torch.randperm(len(indices), generator=generator)]
    return order[size:].sort().values, order[:size].sort().values
