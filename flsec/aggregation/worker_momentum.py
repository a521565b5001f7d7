"""Worker momentum: each client's updates, averaged over rounds."""

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates
from flsec.errors import ConfigError
from flsec.parameters import Fraction

__all__ = ["worker_momentum"]


@torch.no_grad()
def worker_momentum(updates: Tensor, momenta: Tensor, beta: Fraction = 0.9) -> Tensor:
    """Return beta m_i + (1 - beta) u_i for each client: its updates with the noise of single rounds averaged out.

    Honest clients' momenta differ less than their updates, so that a robust rule over them tells apart what it could
    not in one round, and an attacker who hides in the noise of each round adds up to something that shows.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        momenta: (n, d), what this function returned for the clients in their last rounds; for a client that is new, its
            own update. Not modified.
        beta: the share that the past keeps, from 0 to 1.

    Returns:
        (n, d), with the dtype and device of ``updates``. A row that holds NaN or infinity touches no other.

    Raises:
        ConfigError: ``updates`` is no floating matrix, ``momenta`` has another shape, or ``beta`` is out of range.

    Equivariant to row order, shift, scale and rotation of both. O(n d) time.

    Example:
        >>> worker_momentum(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [2.0]]), beta=0.75)
        tensor([[0.2500],
                [1.5000]])

    Source: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021 (worker
    momentum).
    """
    check_updates(updates, "worker_momentum")
    if not isinstance(momenta, Tensor) or momenta.shape != updates.shape:
        got = tuple(momenta.shape) if isinstance(momenta, Tensor) else type(momenta).__name__
        raise ConfigError(f"worker_momentum needs momenta of shape {tuple(updates.shape)}, as the updates; got {got}.")
    if not 0 <= beta <= 1:
        raise ConfigError(f"worker_momentum needs 0 <= beta <= 1; got beta={beta}. 0.9 is common.")
    return (beta * momenta.to(updates)).add_(updates, alpha=1 - beta)  # lerp would overflow between 3e38 and -3e38
