"""How updates lie to what a server computed itself: what FLTrust and DiverseFL have in common."""

import torch
from torch import Tensor

from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._threads import each_block
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

    def work(columns: slice) -> Tensor:
        rows, guide = (part[..., columns].to(device, torch.float64) for part in (source, reference))
        return torch.stack([(rows * guide).sum(dim=1), rows.square().sum(dim=1), guide.square().sum(dim=-1).expand(n)])

    products, squares, reference_squares = each_block(work, n, d, device).to(updates.device)
    return products, squares.sqrt_(), (reference_squares if reference.ndim > 1 else reference_squares[0]).sqrt_()
