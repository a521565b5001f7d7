"""A tenth of the 20 newsgroups: which group is a post from?"""

import functools

import numpy as np

from flsec.data.datasets._jsonl import read_jsonl
from flsec.data.datasets._posts import own_words
from flsec.data.datasets._roots import find_root
from flsec.data.datasets._split import split_by_class
from flsec.data.source import DataSource
from flsec.data.text import Texts, text_source
from flsec.parameters import PositiveCount, check_parameters

__all__ = ["newsgroups_mini"]

_FILE = "newsgroups_mini/newsgroups_mini.jsonl.gz"
_COLUMNS: dict[str, tuple[type, ...]] = {"group": (str,), "author": (int,), "subject": (str,), "text": (str,)}
_SUPPLY = (
    "the file {root}/" + _FILE + ", one JSON object a line with group, author (a number), subject and text, made from "
    "mini_newsgroups of the UCI archive."
)


def newsgroups_mini(
    root: str | None = None,
    *,
    tokenizer: str = "words",
    vocab_size: PositiveCount = 10_000,
    length: PositiveCount = 128,
    subject: bool = False,
) -> DataSource:
    """Return 2,000 Usenet posts of 1993, 100 from each of 20 groups; the authors are natural clients.

    A fixed fifth of each group is the test set (20 posts), the same whatever the seed of the run. Signatures and quotes
    are taken out, as the authors of a thread would give its group away.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        tokenizer: ``"words"``, ``"characters"``, or where a pretrained tokenizer is.
        vocab_size: tokens of ``"words"``, counted in the training posts.
        length: tokens of a post; the first are kept.
        subject: put the subject in front of the text.

    Returns:
        Tokens (n, L) int64 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or broken, with what is wrong.

    Source: Lang, "NewsWeeder", ICML 1995.
    """
    given = {"tokenizer": tokenizer, "vocab_size": vocab_size, "length": length, "subject": subject}
    check_parameters(newsgroups_mini, given, name="data set 'newsgroups_mini'")
    folder, _ = find_root("newsgroups_mini", root, [[_FILE]], _SUPPLY)
    return _load(str(folder / _FILE), tokenizer, vocab_size, length, subject)


@functools.cache
def _load(path: str, tokenizer: str, vocab_size: int, length: int, subject: bool) -> DataSource:
    posts = read_jsonl(path, _COLUMNS)
    names = tuple(sorted({post["group"] for post in posts}))
    labels = np.array([names.index(post["group"]) for post in posts])
    parts = (
        Texts(
            [f"{posts[row]['subject']}\n" * subject + own_words(posts[row]["text"]) for row in rows],
            labels[rows].tolist(),
            {"author": [posts[row]["author"] for row in rows]},
        )
        for rows in split_by_class(labels, "newsgroups_mini")
    )
    return text_source(
        "newsgroups_mini", *parts, class_names=names, tokenizer=tokenizer, vocab_size=vocab_size, length=length
    )
