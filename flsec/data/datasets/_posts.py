"""What a Usenet post says itself, without what others said before and what stands in all posts of its author."""

import re

__all__ = ["body_of", "own_words"]

_SIGNATURE = re.compile(r"^--[ \t]*$", re.MULTILINE)
_INTRODUCTION = re.compile(r"^In article <|\b(writes|wrote|says|said) ?(:|\.\.\.)$")


def body_of(message: str) -> tuple[dict[str, str], str]:
    r"""Return a message's headers by lower-case name, and what stands below its first empty line.

    Example:
        >>> body_of("From: a@b.c\nSubject: hi\n\nSome\n\nwords")
        ({'from': 'a@b.c', 'subject': 'hi'}, 'Some\n\nwords')
    """
    head, _, body = message.partition("\n\n")
    fields = (line.partition(":") for line in head.split("\n"))
    return {name.lower(): value.strip() for name, _, value in fields}, body


def own_words(body: str) -> str:
    r"""Return a post without signature, quotes and the lines that introduce quotes.

    The signature is all from the last line ``--`` on, if there is one below the first line. A quote is a line that
    starts with ``>``, ``|`` or ``:``; an introduction is one that starts with ``In article <`` or ends in ``writes:``,
    ``wrote:``, ``says:`` or ``said:`` (or three dots instead).

    Example:
        >>> own_words("Al writes:\n>old\nnew\n--\nBo, Unix Inc.")
        'new'
    """
    marks = [mark.start() for mark in _SIGNATURE.finditer(body) if mark.start()]
    lines = (body[: marks[-1]] if marks else body).split("\n")
    return "\n".join(line for line in lines if not _is_quoted(line.strip())).strip()


def _is_quoted(line: str) -> bool:
    return line.startswith((">", "|", ":")) or _INTRODUCTION.search(line) is not None
