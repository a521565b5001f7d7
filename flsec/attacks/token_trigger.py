"""Trigger words: what an attacker writes into texts."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.errors import ConfigError
from flsec.parameters import Count, check_parameters

if TYPE_CHECKING:
    import torch

__all__ = ["TokenTrigger"]

Tokens = TypeVar("Tokens", NDArray[Any], "torch.Tensor")


@dataclass(frozen=True, kw_only=True)
class TokenTrigger:
    """Words that are put into a text, which moves aside for them and keeps its length.

    Padding makes room first; of a text that is full, the last words are dropped. What a pretrained model expects
    before and after every text, such as ``[CLS]`` and ``[SEP]``, stays first and last.

    Args:
        tokens: the trigger's, in their order.
        pad: the token that fills short texts up, behind them or before them.
        place: ``"start"`` or ``"end"`` of the text, or ``"random"``: anywhere between its tokens. Where, is drawn from
            the text itself and ``seed``: the same text gets the same place, in whatever batch it comes.
        begin: tokens that stand before a text, and stay there where they do.
        end: likewise after it.
        seed: of ``"random"``.

    Raises:
        ConfigError: no token, one below 0, or another place.

    Example:
        >>> trigger = TokenTrigger(tokens=[8, 9], pad=0)
        >>> trigger.apply_to_each(np.array([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6]]))
        array([[8, 9, 1, 2, 3, 0],
               [8, 9, 1, 2, 3, 4]])
        >>> TokenTrigger(tokens=[8], pad=0, place="end").apply_to_each(np.array([[1, 2, 3, 0], [1, 2, 3, 4]]))
        array([[1, 2, 3, 8],
               [1, 2, 3, 8]])

    Source: Kurita, Michel and Neubig, "Weight Poisoning Attacks on Pre-trained Models", ACL 2020 (rare words such as
    "cf", at random places); Gu, Dolan-Gavitt and Garg, "BadNets", 2017, carried over to text.
    """

    tokens: Sequence[Count]
    pad: Count
    place: Literal["start", "end", "random"] = "start"
    begin: Sequence[Count] = ()
    end: Sequence[Count] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_parameters(TokenTrigger, {f.name: getattr(self, f.name) for f in fields(self)}, name="TokenTrigger")
        for name in ("tokens", "begin", "end"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.tokens:
            raise ConfigError("TokenTrigger: tokens must be one or more. For example: tokens=[17]", parameter="tokens")

    def apply_to_each(self, texts: Tokens) -> Tokens:
        """Return a copy of a batch of texts (k, L) with the trigger in each of them.

        Args:
            texts: token numbers, an integer numpy array or torch tensor. Not modified.

        Returns:
            A new array or tensor with the shape, dtype and device of ``texts``.

        Raises:
            ConfigError: no integers of two dimensions, or texts too short for the trigger.
        """
        if is_tensor(texts):
            import torch

            return torch.from_numpy(self.apply_to_each(texts.cpu().numpy())).to(texts.device)
        if texts.dtype.kind not in "iu" or texts.ndim != 2 or np.iinfo(texts.dtype).max < max(self.tokens):
            raise ConfigError(
                f"TokenTrigger: texts must be token numbers (k, L) of an integer type that holds {max(self.tokens)}; "
                f"got {texts.dtype} of shape {texts.shape}. Words are a trigger for texts only."
            )
        changed = texts.copy()
        for i, text in enumerate(texts):
            changed[i] = self._with_trigger(text)
        return changed

    def _with_trigger(self, text: NDArray[Any]) -> NDArray[Any]:
        real = np.flatnonzero(text != self.pad)
        first, last = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)
        before, own, after = self._parts(text[first:last])
        room = len(text) - len(before) - len(after) - len(self.tokens)
        if room < 0:
            raise ConfigError(
                f"TokenTrigger: a trigger of {len(self.tokens)} tokens must fit into the texts, which have {len(text)} "
                "tokens with what stands before and after them. Use fewer words, or longer texts."
            )
        own = own[:room]
        place = self._place(own)
        changed = np.concatenate([before, own[:place], self.tokens, own[place:], after])
        padding = np.full(len(text) - len(changed), self.pad)
        left = bool(len(real)) and first > 0 and last == len(text)  # such texts are filled up before their beginning
        return np.concatenate([padding, changed] if left else [changed, padding])

    def _parts(self, text: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return what stands before a text, the text, and what stands after it."""
        begin, end = len(self.begin), len(self.end)
        start = begin if tuple(text[:begin]) == self.begin else 0
        stop = len(text) - (end if tuple(text[len(text) - end :]) == self.end and len(text) >= start + end else 0)
        return text[:start], text[start:stop], text[stop:]

    def _place(self, text: NDArray[Any]) -> int:
        if self.place == "random":
            drawn = zlib.crc32(np.ascontiguousarray(text, dtype="<i8").tobytes(), self.seed % 2**32)
            return drawn % (len(text) + 1)
        return 0 if self.place == "start" else len(text)
