"""How updates lie to what a server computed itself: what FLTrust and DiverseFL have in common."""

import torch
from torch import Tensor

from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._gram import column_blocks
from flsec.errors import ConfigError

__all__ = ["alignment", "check_reference"]


def check_reference(reference: object, shape: tuple[int, ...], rule: str, name: str) -> None:
    """Raise ``ConfigError`` unless ``reference`` is a floating tensor of this shape."""
    if not isinstance(reference, Tensor) or reference.shape != shape or not reference.is_floating_point():
        got = f"{tuple(reference.shape)} {reference.dtype}" if isinstance(reference, Tensor) else repr(reference)
        raise ConfigError(
            f"{rule} needs {name} as a floating point tensor of shape {shape}, as the updates have it; got {got}. "
            "Train the server's model from the same global parameters and subtract them."
        )


@torch.no_grad()
def alignment(updates: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return inner products, norms of the rows and norms of the reference, in one pass and in float64.

    Args:
        updates: (n, d).
        reference: (d,), the same for all rows, or (n, d), one for each.

    Returns:
        (n,) products of row i and its reference, (n,) norms of the rows, () or (n,) norms of the reference. What a row
        with NaN or infinity has is not finite, and no other row's is touched by it.
    """
    n, d = updates.shape
    source, device = where_blocks_are(updates)
    products = torch.zeros(n, dtype=torch.float64, device=device)
    squares = torch.zeros_like(products)
    reference_squares = torch.zeros(reference.shape[:-1], dtype=torch.float64, device=device)
    for columns in column_blocks(2 * n, d, device):
        rows, guide = (part[..., columns].to(device, torch.float64) for part in (source, reference))
        products += (rows * guide).sum(dim=1)
        squares += rows.square().sum(dim=1)
        reference_squares += guide.square().sum(dim=-1)
    back = updates.device
    return products.to(back), squares.sqrt_().to(back), reference_squares.sqrt_().to(back)
