from collections.abc import Collection, Hashable
from dataclasses import dataclass

from flsec._calls import explained
from flsec.errors import ConfigError

__all__ = ["Detection", "detection"]


@dataclass(frozen=True)
class Detection:
    """How well a defense told hostile clients from honest ones: four counts, and the rates that follow from them.

    Add the detections of several rounds to get the detection of a run; averaging rates of rounds would give a
    round with one attacker the weight of a round with ten.

    Args:
        true_positives: hostile clients that were rejected.
        false_positives: honest clients that were rejected.
        false_negatives: hostile clients that were let through.
        true_negatives: honest clients that were let through.

    Example:
        >>> two_rounds = Detection(2, 1, 0, 7) + Detection(1, 0, 1, 8)
        >>> two_rounds.true_positives, two_rounds.precision, two_rounds.recall
        (3, 0.75, 0.75)
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float | None:
        """The share of the rejected that were hostile; None if nobody was rejected."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """The share of the hostile that were rejected; None if nobody was hostile."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float | None:
        """The share of the honest that were rejected; None if nobody was honest."""
        return _ratio(self.false_positives, self.false_positives + self.true_negatives)

    def __add__(self, other: "Detection") -> "Detection":
        return Detection(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.true_negatives + other.true_negatives,
        )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@explained
def detection(
    rejected: Collection[Hashable], adversaries: Collection[Hashable], participants: Collection[Hashable]
) -> Detection:
    """Compare what a defense rejected with the truth, among the clients of one round.

    The truth is an argument: this is for reports about simulations, and no defense may call it.

    Args:
        rejected: ids of the clients that the defense left out.
        adversaries: ids of the hostile clients; those that did not take part do not count.
        participants: ids of all clients that took part in the round.

    Returns:
        The four counts, with precision, recall and false positive rate.

    Raises:
        ConfigError: somebody was rejected who did not take part.

    Example:
        >>> detection(rejected={1, 2}, adversaries={2, 3, 99}, participants=range(5)).recall
        0.5
    """
    out, hostile, everyone = set(rejected), set(adversaries), set(participants)
    if not out <= everyone:
        strangers = sorted(map(repr, out - everyone))[:5]
        raise ConfigError(
            f"only participants can be rejected; {', '.join(strangers)} took no part. "
            "Do rejected and participants use the same kind of id?"
        )
    hostile &= everyone
    return Detection(
        true_positives=len(out & hostile),
        false_positives=len(out - hostile),
        false_negatives=len(hostile - out),
        true_negatives=len(everyone - hostile - out),
    )
