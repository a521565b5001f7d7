"""FLANDERS: the clients' models as a time series of matrices, forecast by autoregression."""

import math

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount

__all__ = ["flanders_forecast"]


@torch.no_grad()
def flanders_forecast(past: Tensor, num_iterations: PositiveCount = 10, ridge: Positive = 0.01) -> Tensor:
    """Return the matrix that is expected to follow earlier ones, by X_t = A X_{t-1} B + noise.

    A and B, k x k and m x m, are fitted by turns: each minimises the sum of |X_t - A X_{t-1} B|^2 with the other held
    fixed, plus a penalty on its distance from the identity, so that of few rounds nothing but "as the last one" is
    learnt. Both begin as the identity.

    Args:
        past: (L, k, m), floating point, the latest last: k parameters of m clients in each of L rounds. Not modified.
        num_iterations: how many times each is fitted.
        ridge: weight of the penalty, relative to the mean eigenvalue of the matrix that is inverted.

    Returns:
        (k, m) float64: A X_L B; X_L itself where L < 2, or the values leave no finite forecast.

    Raises:
        ConfigError: ``past`` has another shape, or a setting is out of range.

    Follows the order of the k parameters and of the m clients; equivariant to scale. O(L k m (k + m) + k^3 + m^3) time
    a turn.

    Example:
        >>> flanders_forecast(torch.tensor([[[1.0]], [[2.0]], [[4.0]], [[8.0]]]), 100, ridge=1e-9).round(decimals=3)
        tensor([[16.]], dtype=torch.float64)

    Source: Gabrielli et al., "Protecting Federated Learning from Extreme Model Poisoning Attacks via Multidimensional
        Time Series Anomaly Detection" (FLANDERS), arXiv 2303.16668; matrix autoregression and its alternating
        least squares: Chen, Xiao and Yang, Journal of Econometrics 2021. Left open there, chosen here: the penalty.
    """
    if not isinstance(past, Tensor) or past.ndim != 3 or not len(past) or not past.is_floating_point():
        got = tuple(past.shape) if isinstance(past, Tensor) else type(past).__name__
        raise ConfigError(f"flanders_forecast needs past as a floating tensor of shape (L, k, m), L >= 1; got {got}.")
    if not 0 < ridge < math.inf or num_iterations < 1:
        raise ConfigError(
            f"flanders_forecast needs 0 < ridge < inf and num_iterations >= 1; got ridge={ridge}, num_iterations="
            f"{num_iterations}. Try 0.01 and 10."
        )
    series = past.double()
    last = series[-1]
    size = series.abs().max()
    if len(series) < 2 or not bool(size.isfinite()) or not bool(size > 0):
        return last
    before, after = series[:-1] / size, series[1:] / size
    left = torch.eye(series.shape[1], dtype=torch.float64, device=series.device)
    right = torch.eye(series.shape[2], dtype=torch.float64, device=series.device)
    for _ in range(num_iterations):
        left = _fitted(before @ right, after, ridge)
        right = _fitted((left @ before).mT, after.mT, ridge).T
    forecast = left @ last @ right
    return forecast if bool(forecast.isfinite().all()) else last


def _fitted(given: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Return M that minimises sum_t |wanted_t - M given_t|^2 + penalty |M - I|^2."""
    squares = (given @ given.mT).sum(dim=0)
    identity = torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
    penalty = ridge * squares.trace() / len(squares) * identity
    solved: Tensor = torch.linalg.solve_ex(squares + penalty, ((wanted @ given.mT).sum(dim=0) + penalty).T).result
    return solved.T
