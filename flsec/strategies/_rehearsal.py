"""Trying a defense out on a round without its noticing."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from flsec.strategies._round import HandedOn, run_round
from flsec.strategies.base import RobustStrategy, copied
from flsec.strategies.cohort import Cohort

__all__ = ["rehearse"]


def rehearse(chain: Sequence[RobustStrategy], cohort: Cohort) -> tuple[Tensor, frozenset[int]]:
    """Return what a chain of defenses would make of a round, and leave the chain and what it wraps as they were.

    The wrapped Flower strategy is taken to average; FedAdam's step, say, is not rehearsed.

    Args:
        chain: the defenses, outermost first; at least one.
        cohort: the round's replies.

    Returns:
        (d,) float32, the change of the global model, zero if the previous one would be kept; and the ids of the
        clients that no defense drops or weighs with zero.
    """
    with contextlib.ExitStack() as stack:
        for wrapper in chain:
            stack.enter_context(_left_unchanged(wrapper))
        outcome = run_round(chain, cohort, _Averaging())
    if outcome.model is None:
        return torch.zeros_like(cohort.global_parameters), frozenset()
    return outcome.model - cohort.global_parameters, outcome.accepted


class _Averaging:
    """A server that averages, and remembers nothing."""

    deployed = False

    def go_back(self, cohort: Cohort) -> None:
        """The cohort's own global parameters are what the mean is added to."""

    def step(self, handed_on: HandedOn) -> Tensor:
        cohort = handed_on.cohort
        shares = torch.tensor(handed_on.weights, dtype=torch.float64)
        return cohort.global_parameters + (shares / shares.sum()).to(cohort.updates.dtype) @ cohort.updates

    def changed(self, model: Tensor, wrapper: RobustStrategy, cohort: Cohort) -> Tensor:
        return wrapper.after_aggregation(model, cohort)


@contextlib.contextmanager
def _left_unchanged(wrapper: RobustStrategy) -> Iterator[None]:
    attributes = dict(vars(wrapper))
    state = {name: copied(attributes[name]) for name in wrapper.state_names}
    try:
        yield
    finally:
        vars(wrapper).clear()
        vars(wrapper).update({**attributes, **state})
