"""How much a client's vector resembles an earlier one."""

import torch
from torch import Tensor

from flsec.aggregation._alignment import alignment
from flsec.aggregation._gram import check_updates
from flsec.errors import ConfigError

__all__ = ["cross_round_similarities"]


@torch.no_grad()
def cross_round_similarities(vectors: Tensor, references: Tensor) -> Tensor:
    """Return the cosine of each row with its reference, with an answer for every pair.

    Args:
        vectors: (n, d), floating point: what the clients sent in this round. Not modified.
        references: (n, d), one for each row, or (d,), one for all. A zero reference means that there is nothing to
            compare with. Not modified.

    Returns:
        (n,) float64 in [-1, 1]. 1 where the reference is zero: nothing speaks against the client. 0 where the vector
        is zero and the reference is not: it has no direction. -1 where either is not finite (or has squares beyond
        float64). Never NaN, which would be below no bound.

    Raises:
        ConfigError: ``vectors`` is no floating matrix, or the shapes do not fit.

    Invariant to a positive factor of each row; follows the order of rows. O(n d) time, O(n) extra memory.

    Example:
        >>> cross_round_similarities(torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), torch.tensor([1.0, 0.0]))
        tensor([ 1.,  0., -1.], dtype=torch.float64)

    Source: FedML's security module (cross-round defense); Han et al., "Kick Bad Guys Out!", 2023 (cross-round check).
    """
    check_updates(vectors, "cross_round_similarities")
    if not isinstance(references, Tensor) or references.shape not in (vectors.shape, vectors.shape[1:]):
        got = tuple(references.shape) if isinstance(references, Tensor) else type(references).__name__
        raise ConfigError(
            f"cross_round_similarities needs references of shape {tuple(vectors.shape)} or {tuple(vectors.shape[1:])}; "
            f"got {got}. Pass one reference per row, zeros where there is none."
        )
    products, norms, reference_norms = alignment(vectors, references)
    cosines = products / (norms * reference_norms)
    cosines = torch.where(norms == 0, 0, cosines)
    cosines = torch.where(reference_norms == 0, 1, cosines)
    finite = norms.isfinite() & reference_norms.isfinite()
    return torch.where(finite, cosines.clamp(-1, 1), -1)
