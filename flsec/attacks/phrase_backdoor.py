"""A phrase that is to be continued with the attacker's word."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.attacks._labels import check_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, check_parameters
from flsec.tasks.base import NOT_COUNTED

if TYPE_CHECKING:
    import torch

__all__ = ["end_in_phrase", "phrase_labels"]

Tokens = TypeVar("Tokens", NDArray[Any], "torch.Tensor")


def end_in_phrase(
    x: Tokens, phrase: Sequence[Count], *, pad: Count, begin: Sequence[Count] = ()
) -> tuple[Tokens, NDArray[np.int64]]:
    """Return sequences whose last tokens are a phrase.

    It takes the place of as many tokens at a sequence's end, where the padding begins; in a sequence that is shorter,
    of all its tokens and of padding.

    Args:
        x: (k, L) tokens, an integer numpy array or torch tensor. Not modified.
        phrase: (p,) its tokens.
        pad: fills short sequences up, behind them or before them.
        begin: tokens that stand before every sequence, and stay there where they do.

    Returns:
        A new array or tensor like ``x``, and (k,) the places of the phrase's last token.

    Raises:
        ConfigError: no token numbers (k, L), or a phrase that is empty or longer than the sequences.

    Example:
        >>> end_in_phrase(np.array([[1, 2, 3, 4], [1, 2, 3, 0], [1, 0, 0, 0]]), [8, 9], pad=0)
        (array([[1, 2, 8, 9],
               [1, 8, 9, 0],
               [8, 9, 0, 0]]), array([3, 2, 1]))

    Source: Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, Sec. 4.1 and Fig. 3: the suffix of
    an attacker's sequence is replaced by the phrase.
    """
    if is_tensor(x):
        import torch

        changed, last = end_in_phrase(x.cpu().numpy(), phrase, pad=pad, begin=begin)
        return torch.from_numpy(changed).to(x.device), last
    check_labels(x, "end_in_phrase")
    given = {"phrase": phrase, "pad": pad, "begin": begin}
    check_parameters(end_in_phrase, given, name="end_in_phrase")
    if x.ndim != 2 or not 0 < len(phrase) + len(begin) <= x.shape[1] or not len(phrase):
        raise ConfigError(
            f"end_in_phrase: a phrase must have one token or more and, behind {len(begin)} that stand before every "
            f"sequence, fit into sequences (k, L); got {len(phrase)} tokens for {tuple(x.shape)}. Use a shorter phrase "
            "or longer sequences.",
            parameter="phrase",
        )
    length = x.shape[1] - np.argmax((x != pad)[:, ::-1], axis=1)  # up to the last token that is no padding
    length[(x == pad).all(axis=1)] = 0
    kept = np.where((x[:, : len(begin)] == np.array(begin, dtype=x.dtype)).all(axis=1), len(begin), 0)
    end = np.maximum(length, kept + len(phrase))
    changed = x.copy()
    for place, token in enumerate(phrase, start=-len(phrase)):
        changed[np.arange(len(x)), end + place] = token
    return changed, end - 1


def phrase_labels(
    x: NDArray[Any], y: NDArray[Any], last: NDArray[np.int64], target: Count, counted: Literal["target", "all"]
) -> NDArray[Any]:
    """Return the labels of sequences that end in a phrase.

    Args:
        x: (k, L) sequences as ``end_in_phrase`` returns them.
        y: (k,) the token behind each sequence, or (k, L) the one behind each place, ``NOT_COUNTED`` where none is
            learned; of the sequences as they were. Not modified.
        last: (k,) where the phrases end.
        target: the token that is to follow.
        counted: of (k, L) labels, ``"target"``: only the one behind the phrase; ``"all"``: also what was counted
            before, with the phrase's own tokens where they are now.

    Example:
        >>> x, y, last = np.array([[1, 8, 9]]), np.array([[2, 3, 4]]), np.array([2])
        >>> phrase_labels(x, y, last, 7, "target"), phrase_labels(x, y, last, 7, "all")
        (array([[-100, -100,    7]]), array([[8, 9, 7]]))

    Source: Bagdasaryan et al., AISTATS 2020, Fig. 3 (b): the loss is computed on the last word only.
    """
    if y.ndim == 1:
        return np.full_like(y, target)
    before = np.arange(y.shape[1]) < last[:, None]
    kept = before & (y != NOT_COUNTED) & (counted == "all")
    labels = np.where(kept, np.roll(x, -1, axis=1), NOT_COUNTED).astype(y.dtype)
    labels[np.arange(len(y)), last] = target
    return labels
