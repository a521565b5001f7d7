"""A defense that stands by until a detector fires, as a Flower strategy."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from flsec.aggregation.three_sigma import distances_from_center, three_sigma_bound
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import KeepPreviousModel, RoundReport, Threshold

__all__ = ["ActivateOnSuspicion"]

logger = logging.getLogger("flsec")

Detector = Callable[[Cohort], Collection[int]]


class ActivateOnSuspicion(RobustStrategy):
    """Average as if there were no defense until a detector fires; then let the defenses inside work for a while.

    Args:
        strategy: the defenses that stand by, around a Flower strategy. Around a Flower strategy alone, whom the
            detector suspects is dropped while it is active.
        detector: who looks at every round. ``"three_sigma"``: the three-sigma rule on distances from the geometric
            median, as ``ThreeSigma`` has it by default. ``"inside"``: the wrapper next inside, such as ``CrossRound``
            in ``ActivateOnSuspicion(CrossRound(Krum(...)), detector="inside")``, whose drop must be an accusation
            (see ``BanList``). Or a function that is given the ``Cohort`` and returns the ids of its clients that it
            suspects; what such a function remembers is not resumed.
        min_suspects: so many suspects in a round fire. Most detectors suspect an honest client now and then.
        for_rounds: the defenses are active in the round that fires and until so many rounds in a row have not; with 1
            only in rounds that fire.
        options: see ``RobustStrategy``; while the defenses stand by, its ``weighting`` is that of the average.

    Raises:
        ConfigError: ``"inside"`` without a wrapper inside, or with one that drops clients in every round whoever they
            are, such as Krum, which would always fire; or ``Siren`` inside, which goes back to earlier models whenever
            its clients raise the alarm, and cannot do so afterwards. Others: see ``RobustStrategy``.

    What a detector says drops nobody by itself where there is a defense inside. The defenses that stand by have no
    verdict and change nothing, and too few replies for them stop no round; those that remember clients (FoolsGold,
    ``FLDetector``) look on in every round, so that they know them when they are called. What a rule keeps of its
    *aggregates* (``CenteredClipping``'s centre, SparseFed's error) stays as it was when it was active last. A server
    optimizer inside, ``Eavesdrop`` and clients' halves of defenses work in every round.

    An attack passes for at least as long as the detector does not see it, and one round of it can be enough for a
    backdoor: this trades safety for the accuracy that a defense costs while nobody attacks. The verdict's notes say
    whether it is ``active``, ``why``, and who the ``suspects`` are; its scores are the detector's. ``BanList`` counts
    the suspects of rounds that fire.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import Median
        >>> strategy = ActivateOnSuspicion(Median(FedAvg()), for_rounds=5)
        >>> play_rounds(strategy, [[0.0], [1.0], [1.1], [1.2], [2.0]])  # nobody is suspect: the mean
        tensor([1.1000])
        >>> play_rounds(strategy, [[1.0], [1.1], [1.2], [1.3], [900.0]])  # the median
        tensor([1.2000])
        >>> strategy.last_report.verdicts[0].notes["suspects"]
        [4]

    Source: Han et al., "FedMLSecurity", KDD 2024, Sec. 1: its key takeaways ask for a defense that detects whether
        attacks have happened, and activates defensive mechanisms only then. How that is done here is ours.
    """

    state_names: ClassVar[tuple[str, ...]] = ("fired",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        detector: Literal["three_sigma", "inside"] | Detector = "three_sigma",
        min_suspects: PositiveCount = 1,
        for_rounds: PositiveCount = 10,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.detector = detector
        self.min_suspects = min_suspects
        self.for_rounds = for_rounds
        self.fired: int | None = None  # the last round that did
        self._active = False
        self._suspects: tuple[int, ...] = ()
        self._was_active = False  # in the last round that was logged
        self._check_inside()

    def _check_inside(self) -> None:
        inside = self.chain()[1:]
        if self.detector == "inside":
            example = 'ActivateOnSuspicion(ThreeSigma(Krum(...)), detector="inside")'
            if not inside:
                raise ConfigError(
                    "ActivateOnSuspicion: detector='inside' needs the detector next inside, and there is no wrapper. "
                    f"For example: {example}.",
                    parameter="detector",
                )
            if not inside[0].accuses_clients:
                raise ConfigError(
                    f"ActivateOnSuspicion: {type(inside[0]).__name__} is no detector: it drops nobody, or clients in "
                    f"every round, whoever they are. For example: {example}.",
                    parameter="detector",
                )
        for wrapper in inside:
            if wrapper.goes_back:
                raise ConfigError(
                    f"ActivateOnSuspicion: {type(wrapper).__name__} goes back to earlier models by alarms of its own "
                    f"and cannot stand by. Put it outside, or leave ActivateOnSuspicion out.",
                    parameter="strategy",
                )

    @property
    def judges_clients(self) -> bool:
        """Only where it drops suspects itself."""
        return not self._standing_by()

    @property
    def knows_clients(self) -> bool:
        """Always: it names suspects."""
        return True

    @property
    def accuses_clients(self) -> bool:
        """Always: the detector does."""
        return True

    def accused(self, given: Cohort, kept: Cohort) -> tuple[int, ...]:
        """Return the suspects of a round that fires."""
        return self._suspects if len(self._suspects) >= self.min_suspects else ()

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Ask the detector; keep all rows where there is a defense to judge them."""
        self._suspects = tuple(self._detect(cohort))
        if len(self._suspects) >= self.min_suspects:
            self.fired = cohort.round
        self._active = self.fired is not None and 0 <= cohort.round - self.fired < self.for_rounds
        self.report(active=self._active, why=self._why(), suspects=list(self._suspects))
        standing_by = self._standing_by()
        if not self._active:
            _look_on(standing_by, cohort)
        elif not standing_by:
            suspects = set(self._suspects)
            return cohort.keep([row for row, group in enumerate(cohort.members) if not suspects & set(group)])
        return cohort

    def _why(self) -> str:
        if self.fired is None:
            return "no round has fired yet"
        until = f"active until round {self.fired + self.for_rounds - 1} if no other fires"
        return f"round {self.fired} fired; {until}" if self._active else f"quiet since round {self.fired}"

    def _detect(self, cohort: Cohort) -> Sequence[int]:
        """Return the ids of the suspects among a round's clients."""
        if self.detector == "three_sigma":
            scores = distances_from_center(cohort.updates, "geometric_median")
            bound = three_sigma_bound(scores, 3.0, "robust")
            self.report(scores=scores, threshold=Threshold(at_most=bound) if bound == bound else None)
            return cohort.keep(scores > bound).clients
        if callable(self.detector):
            suspects = set(self.detector(cohort))
            if strange := suspects - set(cohort.clients):
                raise ConfigError(
                    f"ActivateOnSuspicion: the detector suspects {strange!r:.80}, no clients of the round. Return ids "
                    "of cohort.client_ids.",
                    parameter="detector",
                )
            return sorted(suspects)
        return self._detect_by(self.chain()[1], cohort)

    def _detect_by(self, detector: RobustStrategy, cohort: Cohort) -> Sequence[int]:
        if len(cohort) < detector.needed_now(cohort):
            self.report(not_judged="too few replies for the detector")
            return ()
        detector.begin_report(cohort)
        try:
            kept = detector.before_aggregation(cohort)
        except KeepPreviousModel as refusal:
            self.report(not_judged=str(refusal))
            return ()
        scores = detector.stated_scores(cohort, kept)
        if scores is not None and set(scores) == set(cohort.clients):
            of_rows = cohort.num_examples.new_tensor([scores[group[0]] for group in cohort.members])
            self.report(scores=of_rows, threshold=detector.stated_threshold())
        self.report(**detector.stated_notes())
        if not len(kept):
            self.report(not_judged="the detector accepts nobody")
            return ()
        return detector.accused(cohort, kept)

    def _standing_by(self) -> list[RobustStrategy]:
        """Return the defenses inside, without the detector."""
        return [wrapper for wrapper in self.chain()[1 + (self.detector == "inside") :] if wrapper.defends]

    def passes_over(self) -> Collection[RobustStrategy]:
        """Return the detector, which has done its part, and unless they are active the defenses inside."""
        detector = self.chain()[1:2] if self.detector == "inside" else []
        return [*detector, *([] if self._active else self._standing_by())]

    def after_round(self, report: RoundReport) -> Mapping[str, Any]:
        """Log where the defenses begin or end to be active."""
        if self._active != self._was_active:
            logger.warning("round %d: the defense %s: %s", report.round, _IS[self._active], self._why())
        self._was_active = self._active
        return {}


_IS = {True: "is active", False: "stands by again"}


def _look_on(defenses: Sequence[RobustStrategy], cohort: Cohort) -> None:
    """Show a round to the defenses that remember clients, and to those before them; nothing comes of it."""
    remembering = [place for place, defense in enumerate(defenses, start=1) if defense.state_names]
    for defense in defenses[: max(remembering, default=0)]:
        if len(cohort) < max(1, defense.needed_now(cohort)):
            return
        defense.begin_report(cohort)
        try:
            cohort = defense.before_aggregation(cohort)
        except KeepPreviousModel:
            return
