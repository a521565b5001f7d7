"""What clients report beside their updates: made fit to be averaged, and never a reason to lose an update.

A hostile client can report anything, and honest ones differ. A metric that most report takes part; whoever lacks it, or
sends something else under its name, is left out of the averages and said so, and its update counts as every other's.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from flsec import _numbers
from flsec.strategies.report import brief

__all__ = ["Averageable", "averageable", "cleaned", "middle_of", "with_metrics_of"]

logger = logging.getLogger("flsec")

LARGEST = 1e15  # more than any measure has; sums of so many stay finite and exact to 1e-1
MOST_KEYS = 1000
LONGEST_KEY = 200
LONGEST_VALUE = 10_000  # of a list or a text

Metrics = Mapping[str, Any]


def cleaned(metrics: Any) -> tuple[Metrics, str | None]:
    """Return a client's metrics without what no average can hold, and what was wrong; None if nothing was.

    The work is bounded: nothing is kept of a client that reports more than 1000 metrics.
    """
    if not isinstance(metrics, Mapping):
        return {}, f"reported {type(metrics).__name__} instead of metrics"
    if len(metrics) > MOST_KEYS:
        return {}, f"reported {len(metrics)} metrics; at most {MOST_KEYS} are read"
    bad = [key for key, value in metrics.items() if not _is_key(key) or not _is_sound(value)]
    if not bad:
        return metrics, None
    lost = set(bad)
    sound = {key: value for key, value in metrics.items() if key not in lost}
    return sound, f"{len(bad)} metrics are not finite, too large or no numbers"


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and len(key) <= LONGEST_KEY and key.isprintable()


def _is_sound(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= LONGEST_VALUE
    if isinstance(value, list | tuple):
        return len(value) <= LONGEST_VALUE and all(_is_number(entry) for entry in value)
    return _is_number(value)


def _is_number(value: Any) -> bool:
    number = float(value) if isinstance(value, bool) else _numbers.real(value)
    return number is not None and abs(number) <= LARGEST


def kind_of(value: Any) -> str:
    """Return what a value can be averaged with: numbers with numbers, lists with lists of the same length."""
    if isinstance(value, list | tuple):
        return f"list of {len(value)}"
    return "number" if isinstance(value, Real) else type(value).__name__


class Averageable:
    """The metrics of several clients, each under the keys that most of them report.

    Attributes:
        rows: one dict a client, all with the same keys and kinds; a value that a client lacks is the others' median.
        complete: for each client, whether it reported all of them itself.
        left_out: {position: why} of those that did not, and of those that reported more.
    """

    def __init__(self, metrics: Sequence[Metrics]):
        counts = Counter((key, kind_of(value)) for row in metrics for key, value in row.items())
        shared = {key: kind for (key, kind), count in counts.items() if 2 * count > len(metrics)}
        self.rows: list[dict[str, Any]] = []
        self.complete: list[bool] = []
        self.left_out: dict[int, str] = {}
        for position, row in enumerate(metrics):
            own = {key: row[key] for key, kind in shared.items() if key in row and kind_of(row[key]) == kind}
            self.complete.append(len(own) == len(shared))
            if len(own) < len(shared):
                self.left_out[position] = f"lacks {len(shared) - len(own)} metrics that most report"
            elif len(row) > len(own):
                self.left_out[position] = f"{len(row) - len(own)} metrics that most do not report"
            self.rows.append(own)
        for key in shared:
            if all(key in row for row in self.rows):
                continue
            filler = middle_of([row[key] for row in self.rows if key in row])
            for row in self.rows:
                row.setdefault(key, filler)


def averageable(metrics: Sequence[Metrics]) -> Averageable:
    """Return the metrics of several clients, made fit to be averaged."""
    return Averageable(metrics)


def middle_of(values: Sequence[Any]) -> Any:
    """Return the median of numbers, of lists position by position, and of texts the most frequent."""
    first = values[0]
    if isinstance(first, list | tuple):
        return [middle_of(column) for column in zip(*values, strict=True)]
    if not isinstance(first, Real):
        return Counter(values).most_common(1)[0][0]
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def with_metrics_of(pairs: Sequence[tuple[float, Metrics]], average: Callable[[Any], Any], as_sent: bool) -> Any:
    """Return what a user's function makes of the clients' metrics; None where it fails on them.

    Args:
        pairs: (weight, metrics) of each client, cleaned.
        average: the user's function of such pairs.
        as_sent: first give it the metrics as they came, because a function of the user's own may want them so; where
            it fails on these, and for functions that cannot stand differences, only what most clients report.
    """
    fit = averageable([metrics for _, metrics in pairs])
    alike = [
        (weight, row) for (weight, _), row, complete in zip(pairs, fit.rows, fit.complete, strict=True) if complete
    ]
    attempts = [list(pairs), alike] if as_sent and fit.left_out else [alike]
    for attempt in attempts:
        try:
            return average(attempt)
        except Exception as error:  # a user's code on values that clients chose
            failure = error
    logger.warning("the function that aggregates metrics failed, and this round has none: %s", brief(repr(failure)))
    return None
