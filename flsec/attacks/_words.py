"""Words of an attacker's as the tokens of a vocabulary."""

from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError


def tokens_of(text: str, vocabulary: Vocabulary | None, *, attack: str, parameter: str) -> list[int]:
    """Return the tokens of an attacker's words.

    Args:
        text: the words.
        vocabulary: of the data; None where there is none.
        attack: who asks, for messages.
        parameter: where the words were given, for messages.

    Raises:
        ConfigError: there is no vocabulary, the text has no token, or the vocabulary does not know all of it.
    """
    if vocabulary is None:
        raise ConfigError(
            f"{attack}: {parameter}={text!r} is text, and takes a vocabulary to become tokens. A simulation on data of "
            "text supplies it; elsewhere give vocabulary=, such as flsec.data.WordVocabulary(...).",
            parameter=parameter,
        )
    tokens = vocabulary.encode(text)
    if not tokens or vocabulary.unknown in tokens:
        raise ConfigError(
            f"{attack}: {parameter} must be text that the vocabulary knows, or it would be any unknown word; got "
            f"{text!r}, which is {seen(tokens, vocabulary)}. Use words that are in the training texts.",
            parameter=parameter,
        )
    return tokens


def token_of(word: str, vocabulary: Vocabulary | None, *, attack: str, parameter: str) -> int:
    """Return the one token of a word or a character; arguments and errors as ``tokens_of``.

    Raises:
        ConfigError: it is not one token.
    """
    tokens = tokens_of(word, vocabulary, attack=attack, parameter=parameter)
    if len(tokens) != 1:
        assert vocabulary is not None  # else tokens_of has refused
        raise ConfigError(
            f"{attack}: {parameter} must be one token; {word!r} is {seen(tokens, vocabulary)}. Use a shorter piece; to "
            "many pretrained models a word begins with the space before it.",
            parameter=parameter,
        )
    return tokens[0]


def seen(tokens: list[int], vocabulary: Vocabulary) -> str:
    """Return tokens in words for a message, such as ``3 ('to'), 7 (unknown)``; the first few of many."""
    shown = [f"{t} ({'unknown' if t == vocabulary.unknown else repr(vocabulary.decode([t]))})" for t in tokens[:6]]
    return ", ".join([*shown, *(["..."] if len(tokens) > len(shown) else [])]) or "no token at all"
