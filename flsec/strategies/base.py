"""What all defenses share: one wrapper for both Flower APIs, around a round that is a function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters, checked
from flsec.strategies._evaluation import Averaging
from flsec.strategies._flower import check_can_be_wrapped
from flsec.strategies._forwarding import FlowerStrategy as FlowerStrategy
from flsec.strategies._round import judges_updates
from flsec.strategies._rounds import Progress, Rounds
from flsec.strategies._server_state import put_back, take
from flsec.strategies._stages import Weighting as Weighting
from flsec.strategies._stages import WhenShort
from flsec.strategies._state_arrays import StateArrays
from flsec.strategies.report import KeepPreviousModel as KeepPreviousModel
from flsec.strategies.report import RoundReport as RoundReport
from flsec.strategies.report import Verdict as Verdict
from flsec.training import pick_device

__all__ = ["RobustStrategy"]

OnVerdict = Callable[[RoundReport], object]


class RobustStrategy(Rounds):
    """A defense around a Flower strategy of either API.

    A subclass overrides the stages it needs: ``before_aggregation`` (drop, clip or mix rows),
    ``on_aggregation`` (the robust aggregate) and ``after_aggregation`` (change the new global model). The wrapped
    strategy keeps its job: rows that a defense keeps reach it as the clients sent them, a robust aggregate reaches it
    as one reply, so that FedAdam, FedAvgM, FedProx and the rest still take their server step. Wrappers nest: the
    outermost parses the replies once, and the cohort passes from one to the next. What a wrapper does not define, such
    as the strategy's own methods, settings and ``start``, is the wrapped strategy's.

    Args:
        strategy: a strategy of ``flwr.server.strategy`` or ``flwr.serverapp.strategy``, or another defense.
        weighting: ``"uniform"`` counts every surviving client alike, because ``num_examples`` is a number that
            the attacker writes; ``"examples"`` trusts it. Evaluation replies are weighted in the same way.
        max_weight_ratio: with ``"examples"``, no client counts more than this many times the median client.
        max_num_examples: a reply that claims more examples is quarantined.
        when_short: where clients that sent nothing leave fewer replies than the rule needs for its f:
            ``"keep_previous"`` model, or run the rule with the ``"largest_f"`` that they allow, and say so in the
            verdict's notes.
        unsafe: run the rule also where there are too few replies for what its paper proves, in every round, and say so
            in the verdict's notes. Flower's own Krum does that.
        patience: so many rounds in a row without a new model end the run with a ``NoProgressError``; None: never.
        evaluation: how evaluation replies come to one: their ``"mean"``, or their ``"median"``, which a minority
            cannot move far.
        state_arrays: which floating arrays are state and no weights (BatchNorm's statistics): their positions, in the
            Message API also their names, or the torch module whose state dict is exchanged. They are combined by their
            median, outside the rule, and no noise or server optimizer touches them. None: ``running_mean``,
            ``running_var`` and their like by name; in the classic API, which has no names, as torch orders them.
        device: where matrices of updates are multiplied, summed and ranked, and networks on the server run: ``"cpu"``,
            ``"cuda"``, or ``"auto"``, the GPU where there is one. Replies stay in main memory; a copy is kept on the
            GPU if it fits, else blocks of columns go there one at a time, so that a cohort may have any size.
        on_verdict: a function, or several, called with the ``RoundReport`` at the end of each round's aggregation, also
            of a round that kept the previous model or asked nobody, and before a ``NoProgressError``. What it raises
            ends the run. An attacker's rehearsal does not call it, a file cannot name it, and it is no part of the
            state. None: nobody is told.

    Stages work on a round's (n, d) updates, one row a client, and on the (d,) new model. Of nested wrappers the
    outermost's ``patience``, ``evaluation``, ``max_num_examples`` and ``device`` count, and the first ``state_arrays``
    that is given. Each one's ``on_verdict`` is called with the one report of them all, the outermost's first.

    Attributes:
        partition_ids: {node id: partition}, by which the outermost wrapper's log names clients; of those that it does
            not know the node id. It may be set, and grow, at any time.
        last_report: what happened in the last round.

    Raises:
        ConfigError: ``"cuda"`` without a usable GPU, a parameter out of its range, a nesting that cannot work, or a
            strategy that cannot be defended (trees or raw bytes in the place of arrays); in the first rounds, before
            clients train: secure aggregation, fewer clients asked than the rule needs, or a model without floating
            parameters.
        NoProgressError: ``patience`` rounds in a row without a new model.

    Always on: a reply with a wrong shape, a wrong kind of number, NaN or infinity, or an impossible ``num_examples`` is
    quarantined, and counts as one of the f that the rule tolerates. If too few replies are left, the previous global
    model is kept. Metrics cost nobody its place; those that cannot be averaged with the others' are left out.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum
        >>> from flsec.testing import play_rounds
        >>> strategy = Krum(FedAvg(), num_byzantine=1, on_verdict=lambda report: print(report.round, report.kept))
        >>> play_rounds(strategy, [[0.0], [0.1], [0.15], [0.2], [float("nan")], [9.0]])
        1 (1,)
        tensor([0.1000])
        >>> [(reply.client_id, reply.reason) for reply in strategy.last_report.quarantined]
        [(4, 'NaN or infinity in the update')]
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        weighting: Weighting = "uniform",
        max_weight_ratio: PositiveCount | None = None,
        max_num_examples: PositiveCount = 10**9,
        when_short: WhenShort = "keep_previous",
        unsafe: bool = False,
        patience: PositiveCount | None = 10,
        evaluation: Averaging = "mean",
        state_arrays: StateArrays = None,
        device: Literal["auto", "cpu", "cuda"] = "cpu",
        on_verdict: OnVerdict | Sequence[OnVerdict] | None = None,
    ) -> None:
        super().__init__()
        options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        check_parameters(RobustStrategy, options, name=type(self).__name__)
        self.strategy = strategy
        self.weighting = weighting
        self.max_weight_ratio = max_weight_ratio
        self.max_num_examples = max_num_examples
        self.when_short = when_short
        self.unsafe = unsafe
        self.patience = patience
        self.evaluation = evaluation
        self.state_arrays = state_arrays
        self.device = pick_device(device)
        self.on_verdict = on_verdict
        self.partition_ids: Mapping[int, int] = {}
        self.last_report: RoundReport | None = None
        self._facts = {}
        self._own_methods = {}
        self._progress = Progress()
        if type(self).__init__ is RobustStrategy.__init__:
            self._finish_construction()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, after=RobustStrategy._finish_construction)

    def _finish_construction(self) -> None:
        """Refuse what cannot work, now that the rule's parameters are known; from now on attributes pass through."""
        one = self.most_kept(10**9) == 1
        check_can_be_wrapped(type(self).__name__, self.base, hands_on_one=one)
        inner = self.strategy
        if isinstance(inner, RobustStrategy) and inner.outermost > self.outermost:
            name = type(inner).__name__
            raise ConfigError(f"{name} stands around all defenses. Put it outside: {name}({type(self).__name__}(...)).")
        if one and isinstance(inner, RobustStrategy):
            needed = max(wrapper.minimum_clients for wrapper in inner.chain())
            if needed > 1:
                raise ConfigError(
                    f"{type(self).__name__} hands one aggregate to {type(inner).__name__}, which with its parameters "
                    f"needs at least {needed} clients. Put {type(self).__name__} inside instead."
                )
        for other in self.chain()[1:]:
            check_order(self, other)
        self._built = True

    def chain(self) -> list["RobustStrategy"]:
        """Return this wrapper and the wrappers inside it, outermost first."""
        inner = self.strategy
        return [self, *(inner.chain() if isinstance(inner, RobustStrategy) else [])]

    # --- state ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, of this wrapper and of what it wraps, as a copy.

        Raises:
            ConfigError: the wrapped strategy remembers something that cannot be copied; the message names it.
        """
        inner = self.strategy
        return {
            "defense": type(self).__name__,
            "state": {name: copied(getattr(self, name)) for name in self.state_names},
            "without_model": self._progress.without_model,
            "strategy": inner.state_dict() if isinstance(inner, RobustStrategy) else take(inner),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned.

        Raises:
            ConfigError: the state is another defense's, or another strategy's inside.
        """
        saved = state.get("defense", state.get("type", "something else"))
        if saved != type(self).__name__:
            raise ConfigError(f"this state is of {saved}; it cannot continue {type(self).__name__}.")
        for name in self.state_names:
            setattr(self, name, copied(state["state"][name]))
        self._progress.without_model = state.get("without_model", 0)
        if isinstance(self.strategy, RobustStrategy):
            self.strategy.load_state_dict(state["strategy"])
        else:
            put_back(self.strategy, state["strategy"])


def check_order(outer: RobustStrategy, inner: RobustStrategy) -> None:
    """Raise ``ConfigError`` if one of two wrappers stands on the wrong side of the other."""
    first, second = type(outer).__name__, type(inner).__name__
    if outer.merges_clients and inner.knows_clients:
        raise ConfigError(
            f"{second} goes by client id, and {first} hands on means of several clients. Put it outside: "
            f"{second}({first}(...))."
        )
    if inner.place == "outside" and outer.defends and judges_updates(outer):
        raise ConfigError(
            f"{second} says what the clients' updates mean, and {first} would judge them before. Put it outside: "
            f"{second}({first}(...))."
        )
    if outer.place == "inside" and inner.defends and judges_updates(inner):
        raise ConfigError(
            f"{first} would learn from updates that {second} has not judged yet. Put it inside: {second}({first}(...))."
        )


def copied(value: Any) -> Any:
    """Return a deep copy of a state."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value
