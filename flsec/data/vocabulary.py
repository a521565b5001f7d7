"""How text becomes tokens, and tokens text."""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Vocabulary"]


class Vocabulary(Protocol):
    """Numbers for the pieces of a text: characters, words, or what a pretrained tokenizer has."""

    @property
    def size(self) -> int:
        """How many tokens there are; they are 0 .. size - 1."""

    @property
    def pad(self) -> int:
        """The token that fills short sequences up."""

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, without padding."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without padding."""
