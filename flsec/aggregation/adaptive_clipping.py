"""A bound on updates that follows the clients' learning rate."""

from flsec.parameters import Positive, PositiveCount
from flsec.training import Training

__all__ = ["adaptive_max_norm"]


def adaptive_max_norm(
    max_norm: Positive, round: PositiveCount, training: Training | None = None, num_rounds: PositiveCount | None = None
) -> float:
    """Return L lambda(t) / lambda: the bound of one round, in the proportion of the clients' learning rate.

    Where the rate is small, honest updates are short, and a constant bound leaves an attacker room to send an update
    that is hundreds of times longer than theirs.

    Args:
        max_norm: L, the bound at the rate ``training.learning_rate``, in parameter units. The paper multiplies by
            the rate itself, L lambda(t): its L = 5 with rates up to 0.2 is ``max_norm=1.0`` here.
        round: t, from 1.
        training: how clients train; None: the bound is constant.
        num_rounds: rounds of the run, where the schedule asks for it.

    Returns:
        The bound, a float in parameter units.

    Raises:
        ConfigError: the schedule needs ``num_rounds``, or the round lies beyond it.

    Example:
        >>> decaying = Training(learning_rate=0.1, schedule="inverse_sqrt")
        >>> adaptive_max_norm(5.0, round=4, training=decaying)
        2.5

    Source: Panda et al., SparseFed, AISTATS 2022, App. B.2 ("L := L * lambda(t)").
    """
    if training is None:
        return max_norm
    return max_norm * (training.learning_rate_at(round, num_rounds) / training.learning_rate)
