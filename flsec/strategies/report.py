"""What a round's outcome is told in: who was quarantined, what each defense decided, what became of the model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KeepPreviousModel", "Quarantined", "RoundReport", "Verdict"]

LONGEST_REASON = 200
MOST_LINES = 20  # of the log, about the clients of one round


@dataclass(frozen=True)
class Quarantined:
    """A reply that was dropped before any rule saw it, or a client that sent none.

    Attributes:
        client_id: Flower's node id.
        reason: what was wrong, on one line of at most 200 printable characters.
    """

    client_id: int
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", brief(self.reason))


@dataclass(frozen=True)
class Verdict:
    """What one defense decided about the clients of one round.

    Attributes:
        defense: the wrapper's class name.
        participants: ids of the clients it saw.
        kept: ids of those it handed on; equal to ``participants`` for a rule that judges coordinates.
        weights: {id: weight in the aggregate} where the rule weights clients.
        scores: {id: score} where the rule scores clients.
        notes: other facts worth a line, by name. ``num_byzantine``: the f that the rule ran with, where it is not the
            one that was asked for; ``outside_guarantee``: why what the paper proves does not hold in this round.
        seconds: time in its three stages.
        judges: whether it drops or weights clients at all, so that detection figures make sense.
        accused: ids of the clients that it dropped or weighed with zero, where that is an accusation and not what
            happens to a number of clients in every round, as with Krum. A rule that accepts nobody accuses nobody.
    """

    defense: str
    participants: tuple[int, ...]
    kept: tuple[int, ...]
    weights: Mapping[int, float] | None = None
    scores: Mapping[int, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    judges: bool = False
    accused: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoundReport:
    """All that happened to the replies of one round.

    Attributes:
        round: the server's round.
        quarantined: replies dropped before any rule, and clients that sent none, with the reason.
        verdicts: one a wrapper, outermost first.
        kept_previous_model: why the global model was not changed; None if it was.
        seconds: {stage: seconds} for parsing, each wrapper, the wrapped strategy and serialising.
        metrics_left_out: {id: reason} of clients some of whose metrics could not be averaged with the others'; their
            updates count all the same.
        rejected: ids of those in ``quarantined`` who are there for what they sent; the others failed, sent nothing or
            were not asked, which proves nothing.
    """

    round: int
    quarantined: tuple[Quarantined, ...]
    verdicts: tuple[Verdict, ...]
    kept_previous_model: str | None
    seconds: Mapping[str, float]
    metrics_left_out: Mapping[int, str] = field(default_factory=dict)
    rejected: tuple[int, ...] = ()


class KeepPreviousModel(Exception):
    """Raised by a stage when this round's replies cannot give a new model; the message says why."""


def brief(reason: object) -> str:
    """Return the end of a text that a client may have written, on one line, printable and of bounded length.

    A stack trace ends with what went wrong. Only the end is looked at, so that a text of 100 MB costs nothing.
    """
    text = text_of(reason)
    cut = len(text) > 4 * LONGEST_REASON
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[-4 * LONGEST_REASON :])
    spaced = "".join(c if c.isprintable() else " " for c in plain.replace("\\n", " "))
    words = " ".join(spaced.split())
    return f"... {words[4 - LONGEST_REASON :]}" if cut or len(words) > LONGEST_REASON else words


def text_of(value: object) -> str:
    """Return the text of anything; of what has none, its type."""
    try:
        return str(value)
    except Exception:  # an object of a client's own making
        return f"a {type(value).__name__}"


def name_in_message(name: object) -> str:
    """Return the beginning of a name that a client chose, printable and short, as it may stand in a message."""
    text = "".join(c if c.isprintable() else "?" for c in text_of(name)[:41])
    return repr(text[:40] + ("..." if len(text) > 40 else ""))
