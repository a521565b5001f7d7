"""FLDetector: clients whose updates are not what their last ones and the model's step foretell."""

import torch
from torch import Tensor

from flsec.aggregation._gram import gram, weighted_sum
from flsec.aggregation._two_means import two_means
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount
from flsec.randomness import generator

__all__ = ["fl_detector_change", "fl_detector_suspects"]

_FEWEST = 3  # clients that can be told into more and fewer
_RELATIVE_RANK = 1e-10  # singular values below this share of the largest count as zero
_LEAST_VARIATION = 1e-12  # of scores between 0 and 1; its logarithm is taken


@torch.no_grad()
def fl_detector_change(model_steps: Tensor, update_steps: Tensor, step: Tensor) -> Tensor:
    """Return how an update is expected to change when the model makes a step, by L-BFGS from earlier steps.

    With S and Y the columns s_k and y_k, A = S^T Y, D its diagonal, L its part below, sigma = y_m s_m / s_m s_m:
    B v = sigma v - [Y, sigma S] p, where p solves [[-D, L^T], [L, sigma S^T S]] p = [Y^T v, sigma S^T v]. B is the
    matrix for which B s_k is about y_k: minus the learning rate times the Hessian, where updates are steps of descent.

    Args:
        model_steps: (m, d): s_k, how the global model moved, the latest last. Not modified.
        update_steps: (m, d): y_k, how the mean update changed with it. Not modified.
        step: (d,): v, the step of the model now. Not modified.

    Returns:
        (d,): B v. Zero where nothing can be told: pairs with a zero step or with values that are not finite are left
        out, and none may be left; or the result is too large for its dtype.

    Raises:
        ConfigError: the shapes do not fit.

    O(m^2 d) time, a copy of both matrices.

    Example:
        >>> fl_detector_change(torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]]), torch.tensor([3.0, 0.0]))
        tensor([-6.,  0.])

    Source: Zhang et al., "FLDetector: Defending Federated Learning Against Model Poisoning Attacks via Detecting
        Malicious Clients", KDD 2022; Byrd, Nocedal and Schnabel, Mathematical Programming 1994, Thm. 2.3.
        A singular system is solved by least squares.
    """
    if model_steps.ndim != 2 or model_steps.shape != update_steps.shape or step.shape != model_steps.shape[1:]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (model_steps, update_steps, step))
        raise ConfigError(f"fl_detector_change needs shapes (m, d), (m, d) and (d,); got {shapes}.")
    vectors = torch.cat([update_steps, model_steps, step[None]])
    m = len(model_steps)
    products = gram(vectors, center=False)
    squares = products.diagonal()
    good = (squares[:m].isfinite() & squares[m : 2 * m].isfinite() & (squares[m : 2 * m] > 0)).nonzero().flatten()
    if not len(good) or not bool(squares[-1].isfinite()):
        return torch.zeros_like(step)
    y, s, v = good, good + m, 2 * m
    coefficients = torch.zeros_like(squares)
    sigma = products[y[-1], s[-1]] / squares[s[-1]]
    steps_with_updates = products[s][:, y]
    diagonal, below = steps_with_updates.diagonal().diag(), steps_with_updates.tril(-1)
    system = torch.cat([torch.cat([-diagonal, below.T], dim=1), torch.cat([below, sigma * products[s][:, s]], dim=1)])
    solved = torch.linalg.pinv(system, rtol=_RELATIVE_RANK) @ torch.cat([products[y, v], sigma * products[s, v]])
    coefficients[v], coefficients[y], coefficients[s] = sigma, -solved[: len(y)], -sigma * solved[len(y) :]
    change = weighted_sum(vectors, coefficients)
    return change if bool(change.isfinite().all()) else torch.zeros_like(step)


@torch.no_grad()
def fl_detector_suspects(scores: Tensor, num_references: PositiveCount = 20, seed: int = 0, round: Count = 1) -> Tensor:
    """Return which scores are the higher of two clusters, if the gap statistic says that there are two.

    The scores are brought to [0, 1]. V_k is the least sum of squared distances to the nearest of k centres, and V*_k
    the same of as many numbers drawn evenly from [0, 1]; Gap(k) = mean log V*_k - log V_k. There is one cluster if
    Gap(1) >= Gap(2) - s_2, s_2 the standard deviation of log V*_2 times sqrt(1 + 1 / B).

    Args:
        scores: (n,), finite: how much each client is to be suspected. Not modified.
        num_references: B, how many times numbers are drawn.
        seed: seed of the run.
        round: the server's round; what is drawn depends on seed, round and n alone.

    Returns:
        (n,) bool. All False where there is one cluster, n < 3, or half or more would be suspects: the rule stands
        on an honest majority.

    Raises:
        ConfigError: ``scores`` is no floating vector of finite numbers.

    Follows the order of scores; invariant to their shift and positive factor. Two centres on a line are found exactly,
    not by k-means from random starts. O(B n log n).

    Example:
        >>> fl_detector_suspects(torch.tensor([0.9, 1.0, 1.1, 5.0, 1.0, 0.95, 5.1]))
        tensor([False, False, False,  True, False, False,  True])

    Source: Zhang et al., KDD 2022 (gap statistic of Tibshirani et al. 2001).
    """
    if not isinstance(scores, Tensor) or scores.ndim != 1 or not bool(scores.isfinite().all()):
        raise ConfigError("fl_detector_suspects needs scores as a floating vector of finite numbers, one per client.")
    values = scores.double()
    nobody = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    if len(values) < _FEWEST or not bool(values.max() > values.min()):
        return nobody
    values = (values - values.min()) / (values.max() - values.min())
    drawn = torch.rand(
        num_references, len(values), generator=generator(seed, round, purpose="fl_detector"), dtype=torch.float64
    ).to(values.device)
    own, bounds = _log_variations(values[None])
    references, _ = _log_variations(drawn)
    gaps = references.mean(dim=0) - own[0]
    deviation = references[:, 1].std(correction=0) * (1 + 1 / num_references) ** 0.5
    suspects = values > bounds[0]
    two = bool(gaps[0] < gaps[1] - deviation) and 2 * int(suspects.sum()) < len(values)
    return suspects if two else nobody


def _log_variations(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (b, 2) log V_1 and log V_2 of each row, and the (b,) largest value of the lower of two clusters."""
    ordered = values.sort(dim=1).values
    found = two_means(ordered)
    variations = torch.stack([found.whole, found.parts], dim=1).clamp(min=_LEAST_VARIATION)
    return variations.log(), ordered.gather(1, found.lower[:, None] - 1).squeeze(1)
