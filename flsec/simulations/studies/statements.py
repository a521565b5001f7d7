"""What a claim states about curves, so that runs can decide it: a language of five sentences.

A *term* is the name of a curve, or the difference of two, ``"attack_free - attacked"``, taken seed by seed. A *view*
makes one number of a curve over the rounds: ``last``, ``last 5`` (mean of the last five measured rounds), ``mean``,
``lowest`` and ``highest`` (after round 0, or ``lowest from 5``), ``rounds to 0.85`` (the first measured round that
reaches it; where none does, the one after the last).
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from flsec.errors import ConfigError
from flsec.parameters import NonNegative
from flsec.simulations.problems import nearest

__all__ = ["Curve", "Finding", "Measured", "Outcome", "Statement", "interval", "value_of", "view_of"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One measure of one curve of a claim, of all its seeds.

    Attributes:
        rounds: (r,) at which it was measured, ascending.
        seeds: {seed: (r,) values}; nan where there is none.

    Example:
        >>> curve = Curve((0, 5, 10), {1: (0.1, 0.9, 0.7), 2: (0.1, 0.8, 0.9)})
        >>> view_of(curve, "last").tolist()
        [0.7, 0.9]
    """

    rounds: tuple[int, ...]
    seeds: Mapping[int, tuple[float, ...]]

    def values(self) -> Values:
        """Return (seeds, r)."""
        return np.array(list(self.seeds.values()), dtype=np.float64)


Measured = Mapping[str, Mapping[str, Curve]]  # {curve: {measure: Curve}}


@dataclass(frozen=True)
class Finding:
    """What one comparison within a statement came to.

    Attributes:
        text: what was compared.
        mean: over the seeds.
        interval: 95 %, by Student's t over the seeds; None of one seed.
        holds: whether it is as stated, by the mean.
    """

    text: str
    mean: float
    interval: tuple[float, float] | None
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """What a statement came to.

    Attributes:
        text: the statement, in one line.
        findings: its comparisons.
    """

    text: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether each comparison is as stated."""
        return all(finding.holds for finding in self.findings)


def interval(values: Sequence[float] | Values) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean by Student's t; None of fewer than two values.

    Args:
        values: (n,) one for each seed.

    Example:
        >>> low, high = interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    half = float(_student(len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return float(array.mean()) - half, float(array.mean()) + half


@functools.cache
def _student(freedom: int) -> float:
    """Return the 0.975 quantile of Student's t."""
    from scipy.stats import t  # takes a while, and most commands need none

    return float(t.ppf(0.975, freedom))


# --- views ------------------------------------------------------------------------------------------------------

_VIEW = re.compile(
    r"(?P<last>last)(?: (?P<count>[1-9][0-9]*))?|mean|(?P<end>lowest|highest)(?: from (?P<start>[0-9]+))?"
    r"|rounds to (?P<level>[0-9]*\.?[0-9]+)"
)


def check_view(view: str) -> None:
    """Refuse what is no view.

    Raises:
        ConfigError: it is none.
    """
    if _VIEW.fullmatch(view) is None:
        legal = "last, last 5, mean, lowest, highest, lowest from 5 or rounds to 0.85"
        raise ConfigError(f"must be {legal}; got {view!r}.", parameter="of")


def view_of(curve: Curve, view: str) -> Values:
    """Return (seeds,) what a view makes of a curve.

    Args:
        curve: r measured rounds of each seed.
        view: as the module says.

    Example:
        >>> curve = Curve((0, 5, 10), {1: (0.1, 0.9, 0.7)})
        >>> [float(view_of(curve, view)[0]) for view in ("last", "last 2", "lowest from 5", "rounds to 0.85")]
        [0.7, 0.8, 0.7, 5.0]
    """
    check_view(view)
    match = _VIEW.fullmatch(view)
    assert match is not None
    values, rounds = curve.values(), np.array(curve.rounds)
    if match["last"]:
        return _array(values[:, -int(match["count"] or 1) :].mean(axis=1))
    if match["level"]:
        reached = [rounds[row >= float(match["level"])] for row in values]
        return _array([found[0] if len(found) else rounds[-1] + 1 for found in reached])
    trained = values[:, rounds >= int(match["start"] or 1)]
    if trained.shape[1] == 0:
        raise ConfigError(f"{view!r}: nothing was measured so late; the last round is {rounds[-1]}.", parameter="of")
    if match["end"]:
        return _array(trained.min(axis=1) if match["end"] == "lowest" else trained.max(axis=1))
    return _array(trained.mean(axis=1))


def _array(values: Any) -> Values:
    return np.asarray(values, dtype=np.float64)


# --- terms ------------------------------------------------------------------------------------------------------


def curves_of(term: str) -> list[str]:
    """Return the names of the curves in a term, one or two."""
    return term.split(" - ", 1)


def value_of(term: str, measured: Measured, measure: str, view: str) -> Values:
    """Return (seeds,) the value of a term.

    Args:
        term: a curve, or ``"a - b"``.
        measured: all curves.
        measure: which measure of them.
        view: what is made of each curve.

    Raises:
        ConfigError: a curve without this measure.

    Example:
        >>> import numpy as np
        >>> measured = {"krum": {"accuracy": Curve((5,), {1: (0.75,)})}, "mean": {"accuracy": Curve((5,), {1: (0.5,)})}}
        >>> value_of("krum - mean", measured, "accuracy", "last").tolist()
        [0.25]
    """
    parts = []
    for name in curves_of(term):
        if measure not in measured[name]:
            raise ConfigError(
                f"{name}: its runs did not measure {measure!r}.{nearest(measure, measured[name])} Measured: "
                f"{', '.join(measured[name])}.",
                parameter="measure",
            )
        parts.append(view_of(measured[name][measure], view))
    return parts[0] if len(parts) == 1 else parts[0] - parts[1]


# --- statements -------------------------------------------------------------------------------------------------


class Statement(BaseModel):
    """One sentence about curves; it holds if each of its comparisons does, by the mean over the seeds.

    Exactly one of the first five is given.

    Attributes:
        order: terms, ascending: each is above the one before it by more than ``by``. The paired difference decides, and
            its interval is reported.
        close: terms that lie within ``by`` of the first.
        within: curves that lie within ``by`` of what the paper reports of them.
        at_least: {term: value} that it reaches.
        at_most: {term: value} that it does not exceed.
        by: how far, in units of the measure.
        measure: what is compared; null: the claim's.
        of: the view of the curves; null: the claim's.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    order: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2, examples=[["attacked", "free"]])
    close: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2, examples=[["krum", "free"]])
    within: tuple[str, ...] | None = Field(default=None, strict=False, min_length=1, examples=[["krum"]])
    at_least: dict[str, float] | None = Field(default=None, strict=False, examples=[{"krum": 0.8}])
    at_most: dict[str, float] | None = Field(default=None, strict=False, examples=[{"attacked": 0.2}])
    by: NonNegative = 0.0
    measure: str | None = None
    of: str | None = None

    @property
    def kind(self) -> str:
        """Which sentence it is."""
        return next(kind for kind in _SENTENCES if getattr(self, kind) is not None)

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms in it."""
        return tuple(getattr(self, self.kind))

    def check(self, curves: Sequence[str], paper: Mapping[str, float]) -> None:
        """Refuse a sentence that cannot be decided.

        Args:
            curves: the claim's.
            paper: {curve: what the paper reports} of this statement's measure.

        Raises:
            ConfigError: no sentence or several, an unknown curve or view, or a number that the paper does not report.
        """
        given = [kind for kind in _SENTENCES if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ConfigError(f"must have exactly one of {', '.join(_SENTENCES)}; got {', '.join(given) or 'none'}.")
        if self.of is not None:
            check_view(self.of)
        for term in self.terms:
            for name in curves_of(term):
                if name not in curves:
                    hint = f"{nearest(name, curves)} The curves are {', '.join(curves)}."
                    raise ConfigError(f"no curve {name!r}.{hint}", parameter=self.kind)
            if self.kind == "within" and term not in paper:
                raise ConfigError(f"paper: has no number of {term!r} to be within of.", parameter=self.kind)
        if self.kind in ("close", "within") and not self.by:
            raise ConfigError("needs by: how far apart they may be. For example: by: 0.02", parameter=self.kind)

    def decide(self, measured: Measured, paper: Mapping[str, float], measure: str, view: str) -> Outcome:
        """Return what measured curves make of it.

        Args:
            measured: the curves.
            paper: {curve: what the paper reports} of this statement's measure.
            measure: the claim's, where the statement has none.
            view: likewise.

        Raises:
            ConfigError: a curve whose runs did not measure this.
        """
        measure, view = self.measure or measure, self.of or view
        values = {term: value_of(term, measured, measure, view) for term in self.terms}
        findings = tuple(_SENTENCES[self.kind](self, values, paper))
        return Outcome(f"{self.text()} ({measure.replace('_', ' ')}, {view})", findings)

    def text(self) -> str:
        """Return the sentence in one line.

        Example:
            >>> Statement(order=("krum", "none"), by=0.1).text()
            'krum < none by 0.1'
        """
        by = f" by {self.by:g}" if self.by else ""
        if self.kind == "order":
            return " < ".join(self.terms) + by
        if self.kind == "close":
            return f"{' = '.join(self.terms)}, within {self.by:g}"
        if self.kind == "within":
            return f"{', '.join(self.terms)} as in the paper, within {self.by:g}"
        sign = "≥" if self.kind == "at_least" else "≤"
        return ", ".join(f"{term} {sign} {limit:g}" for term, limit in getattr(self, self.kind).items())


def _finding(text: str, values: Values, low: float, high: float = math.inf, *, strictly: bool = False) -> Finding:
    """Return whether the mean lies within [low, high], or strictly above ``low``."""
    mean = float(values.mean())
    holds = low < mean if strictly else low - 1e-12 <= mean <= high + 1e-12  # decimals of a file are no exact floats
    return Finding(text, mean, interval(values), holds)


def _order(statement: Statement, values: Mapping[str, Values], paper: Mapping[str, float]) -> Iterator[Finding]:
    for lower, upper in zip(statement.terms, statement.terms[1:], strict=False):
        yield _finding(f"{upper} over {lower}", values[upper] - values[lower], statement.by, strictly=True)


def _close(statement: Statement, values: Mapping[str, Values], paper: Mapping[str, float]) -> Iterator[Finding]:
    first = statement.terms[0]
    for term in statement.terms[1:]:
        yield _finding(f"{term} over {first}", values[term] - values[first], -statement.by, statement.by)


def _within(statement: Statement, values: Mapping[str, Values], paper: Mapping[str, float]) -> Iterator[Finding]:
    for term in statement.terms:
        text = f"{term}, {paper[term]:g} in the paper"
        yield _finding(text, values[term], paper[term] - statement.by, paper[term] + statement.by)


def _at_least(statement: Statement, values: Mapping[str, Values], paper: Mapping[str, float]) -> Iterator[Finding]:
    for term, limit in (statement.at_least or {}).items():
        yield _finding(term, values[term], limit)


def _at_most(statement: Statement, values: Mapping[str, Values], paper: Mapping[str, float]) -> Iterator[Finding]:
    for term, limit in (statement.at_most or {}).items():
        yield _finding(term, values[term], -math.inf, limit)


_SENTENCES = {"order": _order, "close": _close, "within": _within, "at_least": _at_least, "at_most": _at_most}
