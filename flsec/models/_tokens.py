"""Which of a row's tokens are text, and which only fill the row up."""

import torch
from torch import Tensor

__all__ = ["last_token", "real_tokens"]


def real_tokens(tokens: Tensor, pad: int) -> Tensor:
    """Return True where a row holds text: between the runs of ``pad`` at its start and at its end.

    Some vocabularies fill rows up with the token that ends a text. One between two texts is text; those in the run at
    the end of a row are not, though the first of them may have ended it. A row of nothing but ``pad`` counts as its
    first token, so that there is something to judge.

    Args:
        tokens: (n, L).
        pad: the token that fills rows up.

    Returns:
        (n, L), bool.

    Example:
        >>> real_tokens(torch.tensor([[0, 5, 0, 6, 0, 0], [0, 0, 0, 0, 0, 0]]), pad=0).int()
        tensor([[0, 1, 1, 1, 0, 0],
                [1, 0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    text = (tokens != pad).int()
    begun, not_over = text.cumsum(dim=1) > 0, text.flip(1).cumsum(dim=1).flip(1) > 0
    real = begun & not_over
    real[:, 0] |= ~real.any(dim=1)
    return real


def last_token(tokens: Tensor, pad: int) -> Tensor:
    """Return the position (n,) of the last token of each row's text."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return (real_tokens(tokens, pad) * positions).amax(dim=1)
