"""Whom a round asks: as many as the rules need, and nobody whom a wrapper excludes."""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import Message

from flsec.strategies._classic import node_id
from flsec.strategies._server_state import with_inner
from flsec.strategies._without import without

if TYPE_CHECKING:
    from flsec.strategies.base import RobustStrategy

__all__ = ["Others", "asked_client", "excluded_among", "others_to_evaluate", "others_to_train", "too_few"]

logger = logging.getLogger("flsec")

Chain = Sequence["RobustStrategy"]

_FEWEST_TO_TRAIN = ("min_train_nodes", "min_fit_clients")  # what Flower's strategies call it, in both APIs
_FEWEST_THERE = ("min_available_nodes", "min_available_clients")
_SHARES_TO_TRAIN = ("fraction_train", "fraction_fit")
_PAUSE = 1.0  # seconds between two looks for clients, as Flower's own


def too_few(chain: Chain, num_clients: int) -> str | None:
    """Return which wrapper needs more clients than so many; None if all have enough, or nobody is asked."""
    left = num_clients
    for wrapper in chain if num_clients else ():
        needed = wrapper.needed_of(left)
        if left < needed:
            hands = "" if left == num_clients else f" and is handed at most {left}"
            return f"{type(wrapper).__name__} needs at least {needed} replies{hands}"
        left = wrapper.most_kept(left)
    return None


def asked_client(instruction: Any) -> int:
    """Return whom one of a strategy's instructions is for, in either API."""
    if isinstance(instruction, Message):
        return int(instruction.metadata.dst_node_id)
    return node_id(instruction[0])


@dataclass(frozen=True)
class Others:
    """The clients that a round may ask: all but those that a wrapper excludes.

    Attributes:
        source: the client manager or the grid, without those.
        excluded: their ids.
        number: how many others are there; not counted where nobody is excluded.
        least: how many of these the strategy is to choose at least.
    """

    source: Any
    excluded: frozenset[int] = frozenset()
    number: int = 0
    least: int = 0

    def instructions(self, base: Any, choose: Callable[[], Iterable[Any] | None]) -> list[Any]:
        """Return what the wrapped strategy ``base`` chooses, and nothing for a client that is excluded."""
        if not self.excluded:
            return list(choose() or [])
        with _fewer_wanted(base, self.number, self.least):
            chosen = list(choose() or [])
        return [entry for entry in chosen if asked_client(entry) not in self.excluded]

    def in_words(self) -> str:
        """Return what a message adds about those excluded."""
        return f", where {len(self.excluded)} clients are banned" if self.excluded else ""


def others_to_train(chain: Chain, server_round: int, source: Any) -> Others:
    """Return who may be asked to train in a round, as soon as the wrapped strategy has the clients that it waits for.

    Args:
        chain: the wrappers.
        server_round: the server's round.
        source: Flower's client manager, or its grid.
    """
    if not _excluded(chain, server_round):
        return Others(source)
    clients = _wait_for_clients(chain[-1].base, source)
    excluded = excluded_among(chain, server_round, clients)
    again = [i for i in _excluded(chain, server_round) if i in clients and i not in excluded]
    if again:
        logger.warning("round %d: too few others, so these are asked in spite of their ban: %s", server_round, again)
    number, fewest = len(clients - excluded), _fewest(chain, len(clients))
    least = fewest if fewest <= number else 0
    return Others(without(source, excluded, least), excluded, number, least)


def others_to_evaluate(chain: Chain, server_round: int, source: Any) -> Others:
    """Return who may be asked to evaluate in a round; no rule needs any."""
    excluded = frozenset(_excluded(chain, server_round))
    number = len(_there(source) - excluded) if excluded else 0
    return Others(without(source, excluded), excluded, number)


def excluded_among(chain: Chain, server_round: int, clients: Collection[int]) -> frozenset[int]:
    """Return the ids of the clients that are not to be asked to train in a round.

    Where the others are fewer than the rules need, those that were excluded first are asked all the same, but no more
    of them than may be hostile by what the rules tolerate.

    Args:
        chain: the wrappers.
        server_round: the server's round.
        clients: those that are there.
    """
    excluded, there = _excluded(chain, server_round), set(clients)
    if not excluded:
        return frozenset()
    missing = _fewest(chain, len(there)) - len(there - set(excluded))
    tolerated = [f for wrapper in chain if (f := wrapper.num_tolerated(len(there))) is not None]
    again = [i for i in excluded if i in there][:missing] if 0 < missing <= min(tolerated, default=0) else []
    return frozenset(excluded) - set(again)


def _excluded(chain: Chain, server_round: int) -> list[int]:
    return list(dict.fromkeys(i for wrapper in chain for i in wrapper.excluded(server_round)))


def _fewest(chain: Chain, most: int) -> int:
    """Return the fewest clients with which the rules can ever work; 0 if not even so many are enough."""
    return next((n for n in range(1, most + 1) if too_few(chain, n) is None), 0)


def _there(source: Any) -> set[int]:
    """Return the ids of Flower's clients."""
    if hasattr(source, "get_node_ids"):
        return set(source.get_node_ids())
    return {node_id(proxy) for proxy in source.all().values()}


def _wait_for_clients(base: Any, source: Any) -> set[int]:
    """Return who is there, as soon as there are as many as a strategy waits for before it trains, banned or not."""
    wanted = max(_settings(base, (*_FEWEST_TO_TRAIN, *_FEWEST_THERE)).values(), default=0)
    if any(share == 0 for share in _settings(base, _SHARES_TO_TRAIN).values()):  # it asks nobody, and does not wait
        wanted = 0
    while len(clients := _there(source)) < wanted:
        logger.info("waiting for clients: %d of %d are there", len(clients), wanted)
        time.sleep(_PAUSE)
    return clients


def _settings(base: Any, names: Collection[str]) -> Mapping[tuple[int, str], Any]:
    """Return {(which of the strategies inside each other, name): value} of the settings that they have."""
    owners = enumerate(with_inner(base))
    found = {(i, name): vars(owner).get(name) for i, owner in owners for name in names}
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


@contextlib.contextmanager
def _fewer_wanted(base: Any, number: int, least: int) -> Iterator[None]:
    """Have a strategy of the Message API not wait for clients that it is not shown.

    Args:
        base: the strategy, whose settings are lowered meanwhile, if they are called as Flower's.
        number: how many clients it is shown.
        least: how many it is to choose at least.
    """
    owners = list(with_inner(base))
    before = _settings(base, ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"))
    for (i, name), value in before.items():
        setattr(owners[i], name, min(max(value, least if name == "min_train_nodes" else 0), number))
    try:
        yield
    finally:
        for (i, name), value in before.items():
            setattr(owners[i], name, value)
