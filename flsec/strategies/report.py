"""What a round's outcome is told in: who was quarantined, what each defense decided, what became of the model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

__all__ = ["KeepPreviousModel", "Quarantined", "RoundReport", "Threshold", "Verdict"]

LONGEST_REASON = 200

Kind = Literal[
    "no_reply",  # was asked and sent nothing
    "failed",  # the client, or Flower for it, answered with an error
    "not_asked",
    "duplicate",
    "num_examples",  # no number of examples that a client can have
    "structure",  # other arrays or records than the model's
    "unreadable",
    "shape",
    "dtype",
    "not_finite",
    "out_of_range",  # a number that the model's own array cannot hold, or a negative variance
    "other",
]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Quarantined:
    """A reply that was dropped before any rule saw it, or a client that sent none.

    Attributes:
        client_id: Flower's node id.
        reason: what was wrong, on one line of at most 200 printable characters.
        kind: the kind of reason, of a fixed set: what to count by, as a client has a say in the reason's text.

    Example:
        >>> len(Quarantined(client_id=7, reason="a" * 10**6).reason)  # what a client wrote is cut
        200
    """

    client_id: int
    reason: str
    kind: Kind = "other"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", brief(self.reason))


@dataclass(frozen=True)
class Threshold:
    """Between which scores a rule keeps a client.

    A rule that keeps the m best has no number of its own: its threshold is the score of the last one kept. On which
    side a score falls that equals a bound is the rule's affair, and a client within the bounds may have been dropped
    for something else than its score.

    Attributes:
        at_least: the lower bound, in units of the scores; None: there is none.
        at_most: the upper bound; None: there is none.

    Example:
        >>> Threshold(at_most=2.0).tells(3.14159), Threshold(at_least=0.5, at_most=2.0).tells(0.1)
        ('3.142 > 2', '0.1 < 0.5')
    """

    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def of_kept(cls, scores: Tensor, *, lowest: bool = False, highest: bool = False) -> "Threshold":
        """Return the threshold of a rule that goes by rank.

        Args:
            scores: (m,) of the clients kept.
            lowest: whether the lowest of them is a bound: higher scores are better.
            highest: whether the highest of them is a bound: lower scores are better.
        """
        sound = scores[scores.isfinite()]
        if not len(sound):
            return cls()
        return cls(float(sound.min()) if lowest else None, float(sound.max()) if highest else None)

    def tells(self, score: float) -> str:
        """Return a score beside the bound that it is not within, or the score alone."""
        if self.at_most is not None and score >= self.at_most:
            return f"{score:.4g} {'>' if score > self.at_most else '='} {self.at_most:.4g}"
        if self.at_least is not None and score <= self.at_least:
            return f"{score:.4g} {'<' if score < self.at_least else '='} {self.at_least:.4g}"
        return f"{score:.4g}"


@dataclass(frozen=True)
class Verdict:
    """What one defense decided about the clients of one round.

    Attributes:
        defense: the wrapper's class name.
        participants: ids of the clients it saw.
        kept: ids of those it handed on; equal to ``participants`` for a rule that judges coordinates, and where
            it could not judge at all.
        weights: {id: weight in the aggregate} where the rule weights clients.
        scores: {id: score} where the rule scores clients.
        threshold: between which scores it kept clients; None where no score decides.
        notes: other facts worth a line, by name. ``num_byzantine``: the f that the rule ran with, where it is not the
            one that was asked for; ``outside_guarantee``: why what the paper proves does not hold in this round;
            ``dropped``: {id: why} where the rule has other reasons than a score.
        seconds: time in its three stages.
        judges: whether it drops or weights clients at all, so that detection figures make sense.
        accused: ids of the clients that it dropped or weighed with zero, where that is an accusation and not what
            happens to a number of clients in every round, as with Krum. A rule that accepts nobody accuses nobody.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum
        >>> from flsec.testing import play_rounds
        >>> strategy = Krum(FedAvg(), num_byzantine=1)
        >>> _ = play_rounds(strategy, [[0.0], [0.1], [0.15], [0.2], [9.0]])
        >>> verdict = strategy.last_report.verdicts[0]
        >>> verdict.defense, verdict.dropped, verdict.threshold.tells(verdict.scores[4])
        ('Krum', (0, 1, 3, 4), '155.8 > 0.005')
    """

    defense: str
    participants: tuple[int, ...]
    kept: tuple[int, ...]
    weights: Mapping[int, float] | None = None
    scores: Mapping[int, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    judges: bool = False
    threshold: Threshold | None = None
    accused: tuple[int, ...] = ()

    @property
    def dropped(self) -> tuple[int, ...]:
        """Ids of the clients that it saw and did not hand on."""
        kept = set(self.kept)
        return tuple(client_id for client_id in self.participants if client_id not in kept)


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
        asked: how many clients were asked to train; 0 where that is not known.
        usable: how many well-formed replies came back.
        rejected: ids of those in ``quarantined`` who are there for what they sent; the others failed, sent nothing or
            were not asked, which proves nothing.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum
        >>> from flsec.testing import play_rounds
        >>> strategy = Krum(FedAvg(), num_byzantine=1)
        >>> _ = play_rounds(strategy, [[0.0], [0.1], [0.15], [0.2], [9.0], [float("nan")]])
        >>> report = strategy.last_report
        >>> report.asked, report.usable, report.rejected, report.kept, report.kept_previous_model
        (6, 5, (5,), (1,), None)
    """

    round: int
    quarantined: tuple[Quarantined, ...]
    verdicts: tuple[Verdict, ...]
    kept_previous_model: str | None
    seconds: Mapping[str, float]
    metrics_left_out: Mapping[int, str] = field(default_factory=dict)
    asked: int = 0
    usable: int = 0
    rejected: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        """Ids of the clients that the last of the defenses that judge clients kept; of the last of all if none does."""
        judging = [verdict for verdict in self.verdicts if verdict.judges] or self.verdicts
        return judging[-1].kept if judging else ()


class KeepPreviousModel(Exception):
    """Raised by a stage when this round's replies cannot give a new model; the message says why.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import RobustStrategy
        >>> from flsec.testing import play_rounds
        >>> class Nobody(RobustStrategy):
        ...     def before_aggregation(self, cohort):
        ...         raise KeepPreviousModel("nobody is trusted")
        >>> strategy = Nobody(FedAvg())
        >>> play_rounds(strategy, [[1.0], [2.0]])
        tensor([0.])
        >>> strategy.last_report.kept_previous_model
        'Nobody: nobody is trusted'
    """


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
