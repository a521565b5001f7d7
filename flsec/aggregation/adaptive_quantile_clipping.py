"""A bound on updates that follows a quantile of their norms from round to round."""

import math

from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, Positive

__all__ = ["next_quantile_estimate"]

_LEAST = 1e-30  # rounds of zero updates must not bring an estimate to 0, from which no factor leads back


def next_quantile_estimate(
    estimate: Positive, values: Tensor, quantile: OpenFraction = 0.5, learning_rate: Positive = 0.2
) -> float:
    """Return the estimate of a quantile after one more round's values: C exp(-eta (share of values <= C - gamma)).

    Only how many values are above counts, never how far: one value of 1e30 moves the estimate as one of 2 C does.

    Args:
        estimate: C > 0, the estimate so far.
        values: (n,), the round's, such as norms of updates; NaN counts as above.
        quantile: gamma, which quantile is looked for, between 0 and 1.
        learning_rate: eta; the estimate moves by a factor between exp(-eta (1 - gamma)) and exp(eta gamma).

    Returns:
        The next estimate, at least 1e-30. f hostile values of n change its logarithm by at most eta f / n.

    Raises:
        ConfigError: no values, or a setting is out of range.

    Invariant to the order of values; equivariant to their scale, the estimate's included.

    Example:
        >>> import math, torch
        >>> next_quantile_estimate(1.0, torch.tensor([1.5, 3.5]), quantile=0.5, learning_rate=math.log(4.0))
        2.0

    Source: Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021 (geometric updates),
    without noise.
    """
    if not 0 < estimate < math.inf or not 0 < quantile < 1 or not 0 < learning_rate < math.inf or len(values) < 1:
        raise ConfigError(
            "next_quantile_estimate needs 0 < estimate < inf, 0 < quantile < 1, 0 < learning_rate < inf and at least "
            f"1 value; got estimate={estimate}, quantile={quantile}, learning_rate={learning_rate} and {len(values)} "
            "values. 1.0, 0.8 and 0.2 are a common start for clipping."
        )
    below = int((values <= estimate).sum()) / len(values)
    return max(_LEAST, estimate * math.exp(-learning_rate * (below - quantile)))
