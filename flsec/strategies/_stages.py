"""What a defense is: three stages, how many hostile clients it tolerates, and what it reports."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from flwr.serverapp import Grid
from torch import Tensor

from flsec.strategies.cohort import Cohort
from flsec.strategies.report import RoundReport, Threshold

__all__ = ["Stages", "Weighting", "WhenShort"]

Weighting = Literal["uniform", "examples"]
WhenShort = Literal["keep_previous", "largest_f"]


class Stages:
    """The three stages of a defense and what they may use; ``RobustStrategy`` puts them around a Flower strategy."""

    state_names: ClassVar[tuple[str, ...]] = ()  # attributes that a resumed run needs
    client_half: ClassVar[str | None] = None  # "module:Class" of what the clients do; simulations put it around them
    compares_clients: ClassVar[bool] = True  # whether it judges updates by one another, not by what the server has
    defends: ClassVar[bool] = True  # whether it is a defense, and not the attackers' or the experimenter's part
    goes_back: ClassVar[bool] = False  # whether it may have the new model made from an earlier one
    merges_clients: ClassVar[bool] = False  # whether it hands on rows that are means of several clients'
    outermost: ClassVar[int] = 0  # a wrapper with a larger number must stand around those with a smaller
    place: ClassVar[Literal["outside", "inside"] | None] = None  # of a server optimizer: on which side of the defenses

    weighting: Weighting
    max_weight_ratio: int | None
    when_short: WhenShort
    unsafe: bool
    _facts: dict[str, Any]

    # --- the three stages -----------------------------------------------------------------------------------

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop, clip or mix rows; by default return the cohort as it is.

        A cohort with other ``global_parameters`` than the one given says that the new model is to be made from those:
        if there can be no new one, they take its place.
        """
        return cohort

    def on_aggregation(self, cohort: Cohort) -> Tensor | None:
        """Return the (d,) robust aggregate of the updates, or None to leave it to the wrapped strategy."""
        return None

    def after_aggregation(self, parameters: Tensor, cohort: Cohort) -> Tensor:
        """Return the new global model after clipping, noise, ...; by default as it is.

        Args:
            parameters: (d,) float32, the model that the wrapped strategy returned.
            cohort: the rows that this wrapper kept.
        """
        return parameters

    def observe(self, cohort: Cohort) -> None:
        """Look at a round's cohort before the stages; by default do nothing.

        Called in real rounds only, and not where an attacker tries the defense out.
        """

    def passes_over(self) -> "Collection[Stages]":
        """Return the wrappers inside that have no part in this round, by default none; asked after its own stages."""
        return ()

    # --- before and after a round ---------------------------------------------------------------------------

    def excluded(self, server_round: int) -> Sequence[int]:
        """Return the ids of the clients that are not to be asked in a round, by default none.

        Where too few others are left for the rules, the first of them are asked all the same.
        """
        return ()

    def check_clients(self, client_ids: Collection[int], grid: Grid | None) -> None:
        """Raise ``ConfigError`` for clients that this wrapper cannot work with; called before they train.

        ``grid`` is how the server reaches them, None where that is not known. By default nobody is refused.
        """

    def after_round(self, report: RoundReport) -> Mapping[str, Any]:
        """Look at what became of a round, whatever that is; return more notes for this wrapper's verdict.

        Called once a round, and not where an attacker tries the defense out.
        """
        return {}

    def overrides(self, stage: str) -> bool:
        """Return whether this defense does something in a stage."""
        return getattr(type(self), stage) is not getattr(Stages, stage)

    # --- how many hostile clients it tolerates --------------------------------------------------------------

    def num_tolerated(self, num_clients: int) -> int | None:
        """Return f, how many of a round's clients may be hostile; None where the rule is not told.

        Args:
            num_clients: n, for rules that are told a share. By default f is the attribute ``num_byzantine``.
        """
        declared: int | None = vars(self).get("num_byzantine")
        return declared

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the fewest replies that the rule can work with for this f: its precondition."""
        return 1

    def most_kept(self, num_clients: int) -> int:
        """Return how many replies at most this rule hands on of so many; 1 for one that makes an aggregate."""
        return 1 if self.overrides("on_aggregation") else num_clients

    @property
    def minimum_clients(self) -> int:
        """The fewest replies that the rule can work with when none is quarantined."""
        needed = 1
        while (more := self.clients_needed(self.num_tolerated(needed) or 0)) > needed:
            needed = more
        return needed

    def faults(self, cohort: Cohort) -> int:
        """Return this round's f: how many of the cohort's clients may be hostile.

        Each client that was quarantined for what it sent is one of the f that were declared. More of them than f say
        that f was too small; then the largest f that the precondition allows is taken, as ``when_short="largest_f"``
        takes it where replies are missing.
        """
        declared = self._declared(cohort)
        if declared is None:
            return 0
        too_many = cohort.num_rejected > declared
        left = declared if too_many else declared - cohort.num_rejected
        if self.unsafe or not (too_many or self.when_short == "largest_f"):
            return left
        return next((f for f in range(left, 0, -1) if self.clients_needed(f) <= len(cohort)), 0)

    def needed_of(self, num_clients: int) -> int:
        """Return the fewest replies with which the rule can ever work where so many are asked."""
        if self.unsafe:
            return 1
        faults = 0 if self.when_short == "largest_f" else self.num_tolerated(num_clients) or 0
        return self.clients_needed(faults)

    def needed_now(self, cohort: Cohort) -> int:
        """Return the fewest replies that the rule can work with in this round."""
        return 1 if self.unsafe else self.clients_needed(self.faults(cohort))

    def _declared(self, cohort: Cohort) -> int | None:
        return self.num_tolerated(len(cohort) + cohort.num_rejected)

    # --- what a subclass can use or state -------------------------------------------------------------------

    @property
    def judges_clients(self) -> bool:
        """Whether dropping a client is this rule's verdict on it; by default, if it drops rows at all."""
        return self.overrides("before_aggregation")

    @property
    def accuses_clients(self) -> bool:
        """Whether being dropped, or weighed with zero, says that a client does not behave as honest ones do.

        Not so where a number of clients is dropped in every round, whoever they are; by default, where the rule is told
        f.
        """
        return self.judges_clients and self.num_tolerated(1) is None

    @property
    def knows_clients(self) -> bool:
        """Whether it goes by client id, so that a row must be one client's; by default, if it remembers clients."""
        return "max_clients" in vars(self)

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return settings that this defense's client half reads from the fit configuration."""
        return {}

    def weights(self, cohort: Cohort) -> Tensor | None:
        """Return (n,) float64 weights of the rows, or None where all count alike."""
        if self.weighting == "uniform":
            return None
        counts = cohort.num_examples
        if self.max_weight_ratio is not None and len(cohort):
            counts = counts.clamp(max=float(counts.quantile(0.5)) * self.max_weight_ratio)
        return counts

    def report(
        self,
        *,
        scores: Tensor | None = None,
        weights: Tensor | None = None,
        threshold: Threshold | None = None,
        **notes: Any,
    ) -> None:
        """State scores and weights (n,) of this stage's rows, and other facts, for the round's verdict.

        Args:
            scores: (n,), whatever the rule judges by.
            weights: (n,), in the aggregate.
            threshold: between which scores clients are kept.
            notes: other facts, by name.

        Raises:
            TypeError: a threshold that is a plain number, which does not tell which side of it is kept.
        """
        if threshold is not None and not isinstance(threshold, Threshold):
            raise TypeError(f"threshold must be Threshold(at_least=..., at_most=...); got {threshold!r}.")
        stated = {"scores": scores, "weights": weights, "threshold": threshold}
        self._facts.update({name: value for name, value in stated.items() if value is not None}, **notes)

    # --- what the round asks for ----------------------------------------------------------------------------

    def begin_report(self, cohort: Cohort) -> None:
        """Forget what was stated in an earlier round; state where this one is outside the rule's guarantee."""
        self._facts = {}
        declared = self._declared(cohort)
        if declared is None:
            return
        faults, needed = self.faults(cohort), self.clients_needed(self.faults(cohort))
        reasons = []
        if cohort.num_rejected > declared:
            reasons.append(f"{cohort.num_rejected} clients were quarantined, more than num_byzantine={declared}")
        if self.unsafe and len(cohort) < needed:
            reasons.append(f"{len(cohort)} replies for f={faults}, where the rule needs {needed} (unsafe=True)")
        if faults < declared - cohort.num_rejected:
            reasons.append(f"f={faults} is the largest that {len(cohort)} replies allow (when_short='largest_f')")
        if faults != declared:
            self.report(num_byzantine=faults)
        if reasons:
            self.report(outside_guarantee="; ".join(reasons))

    def stated_scores(self, given: Cohort, kept: Cohort) -> dict[int, float] | None:
        """Return {client: score} as the stages stated them."""
        return self._by_client("scores", given, kept)

    def stated_weights(self, given: Cohort, kept: Cohort) -> dict[int, float] | None:
        """Return {client: weight} as the stages stated them."""
        weights = self._by_client("weights", given, kept)
        if weights is None:
            return None
        return {i: weights[i] / len(group) for group in given.members for i in group if i in weights}

    def stated_threshold(self) -> Threshold | None:
        """Return the threshold as the stages stated it."""
        return self._facts.get("threshold")

    def accused(self, given: Cohort, kept: Cohort) -> tuple[int, ...]:
        """Return the ids of the clients that this round's verdict accuses: by default, of those dropped.

        A row that is the mean of several clients' says nothing about any of them.
        """
        if not self.accuses_clients:
            return ()
        weights, accepted = self.stated_weights(given, kept) or {}, set(kept.clients)
        single = [group[0] for group in given.members if len(group) == 1]
        return tuple(i for i in single if i not in accepted or weights.get(i, 1.0) == 0)

    def stated_notes(self) -> dict[str, Any]:
        """Return the other facts that the stages stated."""
        return {name: value for name, value in self._facts.items() if name not in ("scores", "weights", "threshold")}

    def _by_client(self, name: str, given: Cohort, kept: Cohort) -> dict[int, float] | None:
        values = self._facts.get(name)
        if values is None:
            return None
        rows = given if len(values) == len(given) else kept
        return {i: value for group, value in zip(rows.members, values.tolist(), strict=True) for i in group}
