"""A backdoor that stays where honest updates are: trained close to an honest model, then clipped into their range."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flsec.attacks._upload import Array
from flsec.attacks.distance_penalty import DistancePenalty
from flsec.errors import ConfigError
from flsec.parameters import Fraction, NonNegative, PositiveCount, check_parameters
from flsec.training import Training, get_weights, train

__all__ = ["clip_to_range", "minimizing_distance"]


def minimizing_distance(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Training,
    *,
    anchor: Sequence[Array],
    alpha: Fraction,
    round: PositiveCount,
    generator: torch.Generator,
    num_rounds: PositiveCount | None = None,
) -> list[Array]:
    """Return a model trained on alpha * (loss on the backdoor) + (1 - alpha) * ||model - anchor||^2.

    Args:
        model: where training starts. Not modified.
        x: (n, ...) inputs, backdoored ones among them.
        y: (n,) the labels that the attacker wants.
        training: the settings; momentum and weight decay act on the sum.
        anchor: the model to stay close to: parameters and buffers in the order of ``flsec.training.get_weights``.
        alpha: 1: the backdoor alone.
        round: 1-based; sets the learning rate.
        generator: of the batches; advanced.
        num_rounds: where the schedule asks for it.

    Returns:
        New arrays in the order of ``flsec.training.get_weights``.

    Raises:
        ConfigError: as ``flsec.training.train``, or alpha out of its range.

    The paper divides each coordinate of the distance by z * sigma, which takes other clients' updates to know. Here
    all coordinates weigh the same.

    Example:
        >>> from flsec.models import Softmax
        >>> model = Softmax((1,), 2)
        >>> x, y, training = torch.ones(4, 1), torch.ones(4, dtype=torch.int64), Training(learning_rate=1.0, steps=5)
        >>> def length(alpha):
        ...     arrays = minimizing_distance(
        ...         model, x, y, training, anchor=get_weights(model), alpha=alpha, round=1, generator=torch.Generator()
        ...     )
        ...     return round(float(abs(arrays[0]).max()), 1)
        >>> length(alpha=1.0), length(alpha=0.8), length(alpha=0.0)
        (0.8, 0.4, 0.0)

    Source: Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019, Sec. 4.2.
    """
    check_parameters(minimizing_distance, {"alpha": alpha}, name="minimizing_distance")
    local = copy.deepcopy(model)
    penalty = DistancePenalty(anchor, alpha=alpha, distance="squared")
    train(local, x, y, training, round=round, generator=generator, num_rounds=num_rounds, hooks=(penalty,))
    return get_weights(local)


def clip_to_range(rows: Tensor, honest: Tensor, *, z: NonNegative) -> Tensor:
    """Return ``rows`` with each coordinate moved into mean - z * std to mean + z * std of the honest updates.

    Args:
        rows: (m, d) or (d,), what the attackers would upload. Not modified.
        honest: (h, d) updates that count as honest, h at least 2. Not modified.
        z: half the width of the range in standard deviations.

    Returns:
        A new tensor like ``rows``.

    Raises:
        ConfigError: fewer than two honest updates, shapes that do not match, or a negative z.

    The standard deviation is that of a sample (n - 1). Statistics are taken in float64.

    Example:
        >>> honest = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> clip_to_range(torch.tensor([[9.0, 9.0], [1.5, -1.0]]), honest, z=1.0)
        tensor([[2.4142, 0.0000],
                [1.5000, 0.0000]])

    Source: Baruch, Baruch and Goldberg, "A Little Is Enough", NeurIPS 2019, Sec. 4.2 and Algorithm 4.
    """
    check_parameters(clip_to_range, {"z": z}, name="clip_to_range")
    if honest.ndim != 2 or len(honest) < 2 or rows.shape[-1] != honest.shape[1]:
        raise ConfigError(
            "clip_to_range needs rows (m, d) and honest updates (h, d), h at least 2; got "
            f"{tuple(rows.shape)} and {tuple(honest.shape)}."
        )
    wide = honest.double()
    mean, std = wide.mean(dim=0), wide.std(dim=0)
    return rows.double().clamp(mean - z * std, mean + z * std).to(rows.dtype)
