"""Who attacks, and when: a value that every virtual client, the server and the metrics evaluate alike."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction as Rational
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, PositiveCount, check_parameters
from flsec.randomness import numpy_generator

__all__ = ["Adversaries"]

_SELECTORS = ("ids", "count", "fraction", "probability")


@dataclass(frozen=True, kw_only=True)
class Adversaries:
    """The malicious clients of a run: a pure function of (seed, round, client id).

    Exactly one of ``ids``, ``count``, ``fraction`` and ``probability`` says who attacks. Client ids are partition
    ids, 0 to ``num_clients`` - 1; rounds count from 1.

    Args:
        num_clients: n, how many clients the run has; 2**64 where ``ids`` are Flower's node ids.
        ids: these clients.
        count: this many clients, drawn at random from ``candidates``. With one seed, a smaller count draws a
            subset of what a larger one draws.
        fraction: floor(fraction * n) clients, drawn like ``count``; 0.4 of 20 is 8. Always a share of all
            clients, also when ``candidates`` restricts who may be drawn.
        probability: p. In every round, each candidate in the normal state turns Byzantine with probability p and
            stays so for ``persistence`` rounds, this one included; then it is in the normal state again and may
            turn in the very next round. The state is Byzantine in a long-run share p k / (1 - p + p k) of the
            rounds. All candidates are in the normal state before ``first_round``.
        persistence: k, for ``probability`` only.
        redraw: with ``count`` or ``fraction``: draw once for the run, or afresh in every round.
        candidates: who may be drawn, such as the clients that hold class 4. Default: everyone. In the file of a
            simulation also ``{holders_of: 4}``: those clients, looked up in the partition.
        first_round: nobody attacks before this round.
        last_round: nobody attacks after this round. Default: to the end.
        every: k: attack in the first round, and then in every k-th; several shots.
        rounds: attack in these rounds and in no others: ``[20]`` is a single shot. It takes the place of
            ``first_round``, ``last_round`` and ``every``.
        last_round_only: attack in the last round of the run and in no other; needs ``num_rounds``.
        num_rounds: how many rounds the run has, where that is known.
        camps: {name: share}, shares summing to 1: splits the adversaries into named camps, at random, by exact
            counts (largest remainder; ties in the order of the names). A client keeps its camp for the whole run,
            unless adversaries are redrawn: then each round's set is split afresh. With ``probability`` it is the
            candidates that are split, so that nobody changes camp while it attacks.
        seed: the seed of the run.

    Raises:
        ConfigError: settings that contradict each other or that would leave a wanted attack without attackers.

    Example:
        DiverseFL's backdoor, by the clients that hold class 4:

        >>> holders = [8, 9, 12]
        >>> attackers = Adversaries(num_clients=20, probability=0.5, persistence=5, candidates=holders, seed=1)
        >>> attackers.pool() == {8, 9, 12}
        True
        >>> attackers.is_adversary(3, round=1)
        False

        FedInv's colluders, some of them sacrificed:

        >>> shares = {"gaussian": 0.25, "badnets": 0.75}
        >>> colluders = Adversaries(num_clients=20, fraction=0.4, camps=shares)
        >>> [colluders.camp(client, round=1) for client in sorted(colluders.active(1))].count("badnets")
        6

    Source: fixed sets as in most of the literature; single and several shots: Xie et al., "DBA", ICLR 2020; ``redraw``
    and ``probability`` as in Prakash and Avestimehr, "Mitigating Byzantine Attacks in Federated Learning" (DiverseFL),
    Sec. IV-A and IV-B; ``last_round_only`` and ``camps`` as in Zhao et al., FedInv, AAAI 2022, "Backdoor FL" and
    "Defense against Colluding Attacks".
    """

    # The long fields stay out of the hash, which every look-up in a cache computes; equality compares them.
    num_clients: PositiveCount
    ids: Sequence[int] | None = field(default=None, hash=False)
    count: Count | None = None
    fraction: Fraction | None = None
    probability: Fraction | None = None
    persistence: PositiveCount = 1
    redraw: Literal["never", "every_round"] = "never"
    candidates: Sequence[int] | None = field(default=None, hash=False)
    first_round: PositiveCount = 1
    last_round: PositiveCount | None = None
    every: PositiveCount = 1
    rounds: Sequence[PositiveCount] | None = field(default=None, hash=False)
    last_round_only: bool = False
    num_rounds: PositiveCount | None = None
    camps: Mapping[str, Fraction] | None = field(default=None, hash=False)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("ids", "candidates", "rounds"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        check_parameters(Adversaries, {f.name: getattr(self, f.name) for f in fields(self)}, name="Adversaries")
        for name in ("ids", "candidates"):
            _check_ids(name, getattr(self, name), self.num_clients)
        _check_selection(self)
        _check_count(self)
        _check_rounds(self)
        if self.camps is not None:
            _check_camps(self.camps)
        for name in ("ids", "candidates", "rounds"):  # one order, so that equal settings are equal objects
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(sorted(value)))
        if self.camps is not None:
            object.__setattr__(self, "camps", dict(sorted(self.camps.items())))

    def is_adversary(self, client_id: int, round: int) -> bool:
        """Return whether this client attacks in this round.

        Args:
            client_id: partition id, 0 to ``num_clients`` - 1.
            round: 1-based.

        Raises:
            ConfigError: there is no such client.
        """
        if not 0 <= client_id < self.num_clients:
            raise ConfigError(
                f"Adversaries: client_id must be a partition id, 0 to {self.num_clients - 1}; got {client_id}. "
                "A Flower node id is not one: map it to its partition first.",
                parameter="client_id",
            )
        return client_id in self.active(round)

    def active(self, round: int) -> frozenset[int]:
        """Return the ids of all adversaries that are active in this round (1-based)."""
        if not self._is_scheduled(round):
            return frozenset()
        if self.probability is not None:
            return _turned(self, round)
        return _drawn(self, round if self.redraw == "every_round" else 0)

    def _is_scheduled(self, round: int) -> bool:
        if self.rounds is not None:
            return round in self.rounds
        first, last = self.first_round, self.last_round
        if self.last_round_only:
            first = last = self.num_rounds or 0
        return first <= round and (last is None or round <= last) and (round - first) % self.every == 0

    def pool(self) -> frozenset[int]:
        """Return the ids of all clients that may attack in some round.

        The candidates, where adversaries are redrawn or turn Byzantine at random; else the fixed set.
        """
        if self.probability == 0 or self._count() == 0:
            return frozenset()
        if self.probability is not None or self.redraw == "every_round":
            return frozenset(self._candidates())
        return _drawn(self, 0)

    def camp(self, client_id: int, round: int) -> str | None:
        """Return the camp of an active adversary; None for the others, and where there are no camps.

        Args:
            client_id: partition id, 0 to ``num_clients`` - 1.
            round: 1-based.

        Raises:
            ConfigError: there is no such client.
        """
        if not self.is_adversary(client_id, round) or self.camps is None:
            return None
        return _camp_of(self, round if self.redraw == "every_round" else 0)[client_id]

    def _candidates(self) -> Sequence[int]:
        return range(self.num_clients) if self.candidates is None else self.candidates

    def _count(self) -> int | None:
        """How many attack at once; None where that is random."""
        if self.ids is not None:
            return len(self.ids)
        if self.fraction is not None:
            return int(self.fraction * self.num_clients + 1e-9)  # 0.29 * 100 is 28.999999999999996
        return self.count


# Caches live here rather than on the object, so that copies sent to the same worker share them. Bounded: a set of
# 35,000 ids takes 3 MB. They are shortcuts only: every entry is a function of its key.


@functools.lru_cache(maxsize=16)
def _drawn(adversaries: Adversaries, round: int) -> frozenset[int]:
    """The set drawn for one round; round 0 is the draw for the whole run."""
    if adversaries.ids is not None:
        return frozenset(adversaries.ids)
    rng = numpy_generator(adversaries.seed, round, purpose="adversaries")
    order = rng.permutation(np.asarray(adversaries._candidates(), dtype=np.int64))
    return frozenset(order[: adversaries._count()].tolist())


@functools.lru_cache(maxsize=16)
def _turned(adversaries: Adversaries, round: int) -> frozenset[int]:
    """The candidates in the Byzantine state."""
    candidates = np.asarray(adversaries._candidates(), dtype=np.int64)
    return frozenset(candidates[_rounds_left(adversaries, round) > 0].tolist())


@functools.lru_cache(maxsize=8)
def _latest(adversaries: Adversaries) -> list[tuple[int, NDArray[np.int64]]]:
    """One cell: the last round that was worked out, and its result. Read and replaced whole, for threads' sake."""
    return [(0, np.zeros(len(adversaries._candidates()), dtype=np.int64))]


def _rounds_left(adversaries: Adversaries, round: int) -> NDArray[np.int64]:
    """Byzantine rounds that each candidate has left in ``round``, this one included; 0 is the normal state."""
    assert adversaries.probability is not None
    cell = _latest(adversaries)
    start = adversaries.num_rounds if adversaries.last_round_only else adversaries.first_round
    assert start is not None
    known, left = cell[0]
    if not start <= known <= round:
        known, left = start - 1, np.zeros_like(left)
    candidates = np.asarray(adversaries._candidates(), dtype=np.int64)
    for r in range(known + 1, round + 1):
        draw = numpy_generator(adversaries.seed, r, purpose="turning Byzantine").random(adversaries.num_clients)
        left = np.maximum(left - 1, 0)
        left[(left == 0) & (draw[candidates] < adversaries.probability)] = adversaries.persistence
    cell[0] = (round, left)
    return left


@functools.lru_cache(maxsize=16)
def _camp_of(adversaries: Adversaries, round: int) -> dict[int, str]:
    """Camp by client id, for everyone who may attack in that round; round 0 stands for the whole run."""
    assert adversaries.camps is not None
    members = sorted(_drawn(adversaries, round) if round else adversaries.pool())
    order = numpy_generator(adversaries.seed, round, purpose="camps").permutation(members).tolist()
    sizes = _largest_remainder(adversaries.camps, len(order))
    names = [name for name, size in sizes.items() for _ in range(size)]
    return dict(zip(order, names, strict=True))


def _largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Split ``total`` into whole numbers that are each less than 1 away from their share of it."""
    exact = {name: Rational(share).limit_denominator(10**6) for name, share in shares.items()}
    quotas = {name: share / sum(exact.values()) * total for name, share in exact.items()}
    sizes = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: (sizes[name] - quotas[name], name))
    for name in by_remainder[: total - sum(sizes.values())]:
        sizes[name] += 1
    return sizes


def _plain(values: Any) -> Any:
    """Turn numpy's integers into Python's; leave the judgement of anything else to the check that follows."""
    if isinstance(values, np.ndarray):
        return values.tolist()
    if isinstance(values, Sequence) and not isinstance(values, str):
        return tuple(int(value) if isinstance(value, np.integer) else value for value in values)
    return values


def _check_ids(name: str, ids: Sequence[int] | None, num_clients: int) -> None:
    if ids is None:
        return
    outside = [i for i in ids if not 0 <= i < num_clients]
    if outside:
        raise ConfigError(
            f"Adversaries: {name} must lie in 0 to {num_clients - 1}, since num_clients={num_clients}; got "
            f"{outside[0]}. Client ids are partition ids and count from 0.",
            parameter=name,
        )
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ConfigError(
            f"Adversaries: {name} must not repeat a client; got {twice} twice. List it once.", parameter=name
        )


def _check_selection(adversaries: Adversaries) -> None:
    given = [name for name in _SELECTORS if getattr(adversaries, name) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"Adversaries needs exactly one of {', '.join(_SELECTORS)}; got {' and '.join(given) or 'none'}. "
            "Give one, such as fraction=0.2.",
            parameter=given[0] if given else None,
        )
    if adversaries.redraw == "every_round" and given[0] not in ("count", "fraction"):
        raise ConfigError(
            f"Adversaries: redraw='every_round' goes with count or fraction; got {given[0]}. "
            "Use redraw='never', or count=5 in place of " + given[0] + ".",
            parameter="redraw",
        )
    if adversaries.persistence != 1 and given[0] != "probability":
        raise ConfigError(
            f"Adversaries: persistence goes with probability; got persistence={adversaries.persistence} with "
            f"{given[0]}. Leave persistence out, or use probability=0.5.",
            parameter="persistence",
        )
    if adversaries.candidates is not None and given[0] == "ids":
        raise ConfigError(
            "Adversaries: candidates restricts who is drawn at random, and ids leaves nothing to draw; got both. "
            "Leave candidates out.",
            parameter="candidates",
        )


def _check_count(adversaries: Adversaries) -> None:
    if adversaries.ids is not None:
        return
    count, available = adversaries._count(), len(adversaries._candidates())
    kind = "clients" if adversaries.candidates is None else "candidates"
    if count is not None and count > available:
        got = f"count={count}" if adversaries.fraction is None else f"fraction={adversaries.fraction}, so {count}"
        raise ConfigError(
            f"Adversaries: cannot draw more adversaries than there are {kind}, {available}; got {got}. "
            f"Use count={available} or fewer.",
            parameter="count" if adversaries.fraction is None else "fraction",
        )
    if adversaries.fraction and count == 0:
        raise ConfigError(
            f"Adversaries: fraction={adversaries.fraction} of {adversaries.num_clients} clients is less than one "
            f"adversary. Use fraction={math.ceil(1e4 / adversaries.num_clients) / 1e4} or more, or 0 for none.",
            parameter="fraction",
        )
    if adversaries.probability and not available:
        raise ConfigError(
            "Adversaries: with probability, candidates must name at least one client; got []. "
            "List a client, or leave candidates out for everyone.",
            parameter="candidates",
        )


def _check_rounds(adversaries: Adversaries) -> None:
    first, last, num_rounds = adversaries.first_round, adversaries.last_round, adversaries.num_rounds
    if last is not None and last < first:
        raise ConfigError(
            f"Adversaries: last_round must not lie before first_round={first}; got {last}. "
            f"Use last_round={first} for that round alone.",
            parameter="last_round",
        )
    if num_rounds is not None and first > num_rounds:
        raise ConfigError(
            f"Adversaries: first_round must be one of the run's {num_rounds} rounds; got {first}. "
            f"Use first_round={num_rounds} or less, or run longer.",
            parameter="first_round",
        )
    if adversaries.last_round_only and num_rounds is None:
        raise ConfigError(
            "Adversaries: last_round_only needs to know which round is the last; got num_rounds=None. "
            "Add num_rounds=20, or whatever the run has.",
            parameter="last_round_only",
        )
    if adversaries.last_round_only and (first != 1 or last is not None or adversaries.every != 1):
        every = f", every={adversaries.every}" if adversaries.every != 1 else ""
        raise ConfigError(
            f"Adversaries: last_round_only sets the window itself; got first_round={first}, last_round={last}{every} "
            "too. Leave those out.",
            parameter="last_round_only",
        )
    if adversaries.rounds is not None:
        _check_listed_rounds(adversaries, adversaries.rounds)


def _check_listed_rounds(adversaries: Adversaries, rounds: Sequence[int]) -> None:
    others = {"first_round": 1, "last_round": None, "every": 1, "last_round_only": False}
    given = [name for name, default in others.items() if getattr(adversaries, name) != default]
    if given:
        raise ConfigError(
            f"Adversaries: rounds lists the rounds of the attack, which leaves nothing to {given[0]}; got both. "
            f"Leave {given[0]} out.",
            parameter="rounds",
        )
    beyond = [round for round in rounds if adversaries.num_rounds is not None and round > adversaries.num_rounds]
    if not rounds or beyond or len(set(rounds)) < len(rounds):
        limit = "" if adversaries.num_rounds is None else f" of the run's {adversaries.num_rounds}"
        raise ConfigError(
            f"Adversaries: rounds must name at least one round{limit}, each once; got {list(rounds)}. "
            f"For a single shot use rounds=[{adversaries.num_rounds or 1}].",
            parameter="rounds",
        )


def _check_camps(camps: Mapping[str, float]) -> None:
    total = sum(camps.values())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ConfigError(
            f"Adversaries: the shares in camps must sum to 1; got {dict(camps)}, which sums to {total:g}. "
            "Use shares such as {'gaussian': 0.25, 'badnets': 0.75}.",
            parameter="camps",
        )
