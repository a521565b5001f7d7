"""Shakespeare's plays by speaker: the next character."""

import functools
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.data.vocabulary import CharacterVocabulary
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters
from flsec.tasks import NextToken

__all__ = ["shakespeare"]

_FILE = "shakespeare/tinyshakespeare.txt"
_WINDOW = 80
_SUPPLY = (
    "the file {root}/" + _FILE + ", speeches parted by empty lines, each headed by a line NAME: (input.txt of "
    "github.com/karpathy/char-rnn, data/tinyshakespeare)."
)


def shakespeare(
    root: str | None = None,
    *,
    positions: Literal["last", "all"] = "last",
    stride: PositiveCount | None = None,
    min_characters: PositiveCount = 1000,
) -> DataSource:
    """Return Shakespeare's plays as windows of 80 characters and what follows; the speakers are natural clients.

    A speaker's text is its speeches in the order of the file, one newline between two. The last tenth of each speaker's
    text is the test set, the rest is for training; no window reaches across the cut, nor from one speaker to another.
    Tokens are those of ``CharacterVocabulary()``: LEAF's 80 characters, padding (never used here) and unknown.

    Text and windows are not copied: a window is a number, read where it is used.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        positions: ``"last"``: the label is the one character after the window, as in LEAF; ``"all"``: at every position
            the label is the character that follows.
        stride: characters from one window to the next; default 1 for ``"last"`` (every window, as in LEAF) and 80 for
            ``"all"`` (every character is a label once).
        min_characters: a speaker with fewer takes no part. 1,000 leaves 141 of 309 names.

    Returns:
        Tokens (n, 80) int64 and labels (n,) int64, or (n, 80) for ``"all"``, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or no text of that form.

    Example:
        >>> source = shakespeare(positions="all")  # doctest: +SKIP
        >>> source.vocabulary.decode(source.train.tensors([0])[0][0].tolist())  # doctest: +SKIP

    Source: Caldas et al., "LEAF", 2018 (task, window, one client a speaker); the text is Karpathy's excerpt of 40,000
    lines, not LEAF's complete works.
    """
    given = {"positions": positions, "stride": stride, "min_characters": min_characters}
    check_parameters(shakespeare, given, name="data set 'shakespeare'")
    folder, _ = find_root("shakespeare", root, [[_FILE]], _SUPPLY)
    return _load(str(folder / _FILE), positions, stride or (1 if positions == "last" else _WINDOW), min_characters)


@functools.cache
def _load(path: str, positions: Literal["last", "all"], stride: int, min_characters: int) -> DataSource:
    train, test = (_part(path, positions, stride, min_characters, part) for part in (0, 1))
    vocabulary = CharacterVocabulary()
    return DataSource(
        "shakespeare",
        train,
        test,
        num_classes=vocabulary.size,
        input_shape=(_WINDOW,),
        groups={"speaker": _starts(path, stride, min_characters, 0)[1]},
        task=NextToken(positions=positions),
        vocabulary=vocabulary,
    )


def _part(path: str, positions: str, stride: int, min_characters: int, part: int) -> ArrayDataset:
    windows = _Windows(path, stride, min_characters, part)
    if not len(windows.starts):
        raise ConfigError(
            f"{path}: no speaker with {min_characters} characters or more has a window of {_WINDOW} characters in "
            f"{('its first nine tenths', 'its last tenth')[part]}. Lower min_characters, or take a longer text."
        )
    after = windows.starts + _WINDOW
    labels = windows.text[after] if positions == "last" else windows.text[1:][_places(windows.starts)]
    data = LazyArray(_Windows, path, stride, min_characters, part, shape=(len(windows.starts), _WINDOW), dtype=np.uint8)
    return ArrayDataset(data, labels, tokens=True)


class _Windows:
    """The windows of a text, indexed by arrays of row numbers."""

    def __init__(self, path: str, stride: int, min_characters: int, part: int):
        self.text = _speakers(path, min_characters)[0]
        self.starts = _starts(path, stride, min_characters, part)[0]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self.text[_places(self.starts[rows])]


def _places(starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return starts[:, None] + np.arange(_WINDOW)


@functools.cache
def _starts(
    path: str, stride: int, min_characters: int, part: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the windows of the training (0) or test part (1) start, and the speaker of each."""
    _, offsets = _speakers(path, min_characters)
    sizes = np.diff(offsets)
    cuts = offsets[:-1] + sizes - sizes // 10
    begins, ends = ((offsets[:-1], cuts), (cuts, offsets[1:]))[part]
    starts = [np.arange(begin, end - _WINDOW, stride) for begin, end in zip(begins, ends, strict=True)]
    speaker = np.repeat(np.arange(len(starts)), [len(own) for own in starts])
    return np.concatenate([np.zeros(0, np.int64), *starts]), speaker


@functools.cache
def _speakers(path: str, min_characters: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the tokens of all speakers one after the other, in the order of their names, and (G + 1,) offsets."""
    speeches = _speeches(path)
    texts = [text for _, text in sorted(speeches.items()) if len(text) >= min_characters]
    vocabulary = CharacterVocabulary()
    tokens = np.array([token for text in texts for token in vocabulary.encode(text)], dtype=np.uint8)
    return tokens, np.cumsum([0, *map(len, texts)])


def _speeches(path: str) -> dict[str, str]:
    """Return each speaker's text."""
    try:
        blocks = Path(path).read_text(encoding="utf-8").split("\n\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is broken: it is no text in UTF-8 ({error}). Fetch it again.") from error
    spoken: dict[str, list[str]] = defaultdict(list)
    for block in filter(None, (block.strip("\n") for block in blocks)):
        head, _, words = block.partition("\n")
        if not head.endswith(":"):
            raise ConfigError(
                f"{path} is broken: after an empty line must come a line NAME: and then the speech; got {head[:60]!r}."
            )
        if words:
            spoken[head.removesuffix(":")].append(words)
    return {name: "\n".join(parts) for name, parts in spoken.items()}
