"""What the cells of a board come to: scores with intervals over seeds, and ranks with ties."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from flsec.parameters import parameters_of
from flsec.registry import snake_case
from flsec.simulations.studies.board import NO_ATTACK, UNDEFENDED, Board, Place
from flsec.simulations.studies.board_runs import Line
from flsec.simulations.studies.statements import interval
from flsec.strategies import DEFENSES

__all__ = ["Part", "Row", "Score", "parts", "rank", "rows_of"]

Part = tuple[str, float]  # partition and share of attackers


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval over seeds.

    Attributes:
        mean: over the seeds.
        low: end of the interval by Student's t; the mean itself of one seed.
        high: likewise.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score":
        """Return the score of some seeds' numbers.

        Example:
            >>> Score.of([0.5]).low
            0.5
        """
        low, high = interval(values) or (values[0], values[0])
        return cls(mean(values), low, high)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {(self.high - self.low) / 2:.3f}"


@dataclass(frozen=True)
class Row:
    """What a defense comes to in one part of a board; None: not all of its runs are there, or it has no such number.

    Attributes:
        defense: the row's label.
        rank: 1 + how many rows have a worst case whose interval lies above this one's; ties where intervals overlap.
        clean: accuracy where nobody attacks.
        worst: accuracy under the strongest attack of the portfolio: over whole runs, by the mean over seeds.
        strongest: that attack.
        damage: ``clean - worst``, seed by seed.
        cost: accuracy where nobody attacks, undefended less defended, seed by seed.
        backdoor: success of the most successful backdoor.
        recall: share of the attackers' updates that are dropped, over all attacked runs, where the defense judges.
        false_positive_rate: likewise of honest updates.
        server_seconds: of the defense a round, median; depends on the machine.
        peak_mib: of the process, beyond that of the undefended runs; depends on the machine.
        needs: what the defense asks for beside updates.
        attacks: {attack: accuracy}.
        success: {attack: success}, of attacks with a goal beyond harm.
        missing: runs that are not there yet.
        refused: why a defense cannot be run in this part of the board.
        failed: what stopped runs, attack by attack.
    """

    defense: str
    rank: int | None
    clean: Score | None
    worst: Score | None
    strongest: str | None
    damage: Score | None
    cost: Score | None
    backdoor: Score | None
    recall: float | None
    false_positive_rate: float | None
    server_seconds: float | None
    peak_mib: float | None
    needs: tuple[str, ...]
    attacks: Mapping[str, Score] = field(default_factory=dict)
    success: Mapping[str, Score] = field(default_factory=dict)
    missing: int = 0
    refused: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)


def parts(board: Board) -> list[Part]:
    """Return the parts of a board: each has its own ranks."""
    return [(partition, share) for partition in board.file.partitions for share in board.file.attackers]


def rows_of(board: Board, part: Part, lines: Iterable[Line]) -> list[Row]:
    """Return the rows of one part of a board, best first; those whose worst case is not known come last.

    Args:
        board: says which rows and columns there are.
        part: which partition and share of attackers.
        lines: cells; those of other parts do not count.
    """
    table: dict[str, dict[str, dict[int, Line]]] = {}
    for line in lines:
        place = Place(*(line[key] for key in Place.__dataclass_fields__))
        if (place.partition, place.attackers) == part and place.seed in board.file.seeds:
            table.setdefault(place.defense, {}).setdefault(place.attack, {})[place.seed] = line
    plain = table.get(UNDEFENDED, {}).get(NO_ATTACK, {})
    rows = [_row(board, label, table.get(label, {}), plain) for label in board.rows]
    worst = [row.worst for row in rows]
    ranked = [_with_rank(row, place) for row, place in zip(rows, rank(worst), strict=True)]
    return sorted(ranked, key=lambda row: (row.worst is None, -(row.worst.mean if row.worst else 0.0), row.defense))


def rank(scores: Sequence[Score | None]) -> list[int | None]:
    """Return 1 + how many scores lie above each with their whole interval.

    Example:
        >>> rank([Score(0.9, 0.85, 0.95), Score(0.88, 0.83, 0.93), Score(0.5, 0.4, 0.6), None])
        [1, 1, 3, None]
    """
    known = [score for score in scores if score is not None]
    return [None if own is None else 1 + sum(other.low > own.high for other in known) for own in scores]


def _with_rank(row: Row, place: int | None) -> Row:
    return Row(**{**vars(row), "rank": place})


def _row(board: Board, label: str, cells: Mapping[str, Mapping[int, Line]], plain: Mapping[int, Line]) -> Row:
    seeds, columns = board.file.seeds, (NO_ATTACK, *board.file.attacks)
    whole = {
        attack: [cells[attack][seed] for seed in seeds]
        for attack in columns
        if all(cells.get(attack, {}).get(seed, {}).get("accuracy") is not None for seed in seeds)
    }
    accuracy = {attack: [line["accuracy"] for line in lines] for attack, lines in whole.items()}
    clean = accuracy.get(NO_ATTACK)
    attacks = {attack: Score.of(values) for attack, values in accuracy.items() if attack != NO_ATTACK}
    strongest = None
    if board.file.portfolio and all(attack in attacks for attack in board.file.portfolio):
        strongest = min(board.file.portfolio, key=lambda attack: attacks[attack].mean)
    twins = [plain[seed]["accuracy"] for seed in seeds if plain.get(seed, {}).get("accuracy") is not None]
    hostile = [line for attack, lines in whole.items() if attack != NO_ATTACK for line in lines]
    every = [line for found in cells.values() for line in found.values()]
    return Row(
        defense=label,
        rank=None,
        clean=Score.of(clean) if clean else None,
        worst=attacks[strongest] if strongest else None,
        strongest=strongest,
        damage=_difference(clean, accuracy[strongest]) if clean and strongest else None,
        cost=_difference(twins, clean) if clean and len(twins) == len(seeds) and label != UNDEFENDED else None,
        backdoor=_backdoor(board, _success(whole)),
        recall=_mean(hostile, "recall"),
        false_positive_rate=_mean(hostile, "false_positive_rate"),
        server_seconds=median(line["server_seconds"] for line in whole[NO_ATTACK]) if clean else None,
        peak_mib=_peak(whole.get(NO_ATTACK, []), plain),
        needs=needs_of(board.rows[label]),
        attacks=attacks,
        success=_success(whole),
        missing=len(columns) * len(seeds) - len(every),
        refused=next((line["refused"] for line in every if line["refused"]), None),
        failed={line["attack"]: line["failed"] for line in every if line["failed"]},
    )


def _difference(one: Sequence[float], other: Sequence[float]) -> Score:
    return Score.of([a - b for a, b in zip(one, other, strict=True)])


def _mean(lines: Sequence[Line], key: str) -> float | None:
    values = [line[key] for line in lines if line[key] is not None]
    return mean(values) if values else None


def _peak(lines: Sequence[Line], plain: Mapping[int, Line]) -> float | None:
    """Return how much more memory a process needs than undefended; the smallest of the seeds, none below zero."""
    pairs = [(line["peak_mib"], plain.get(line["seed"], {}).get("peak_mib")) for line in lines]
    beyond = [own - other for own, other in pairs if own is not None and other is not None]
    return max(0.0, min(beyond)) if beyond else None


def _success(whole: Mapping[str, Sequence[Line]]) -> dict[str, Score]:
    found = {attack: [line["success"] for line in lines] for attack, lines in whole.items()}
    return {attack: Score.of(values) for attack, values in found.items() if None not in values}


def _backdoor(board: Board, success: Mapping[str, Score]) -> Score | None:
    """Return that of the most successful backdoor; None unless all have been tried."""
    if not board.file.backdoors or any(attack not in success for attack in board.file.backdoors):
        return None
    return max((success[attack] for attack in board.file.backdoors), key=lambda score: score.mean)


_NEEDS = {
    "root_data": "a root set",
    "client_samples": "samples of each client",
    "adversaries": "to know who attacks: no real defense",
    "num_byzantine": "f",
    "num_trimmed": "f",
}


def needs_of(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what a row's defenses ask for beside updates."""
    needs: dict[str, None] = {}
    for entry in entries:
        member = DEFENSES.get(entry["name"])
        asked = {*entry, *_required(member)}
        needs |= dict.fromkeys(text for name, text in _NEEDS.items() if name in asked)
        if member.client_half:
            needs[f"{snake_case(member.client_half.partition(':')[2])} on the clients"] = None
    return tuple(needs)


def _required(member: Any) -> list[str]:
    return [name for name, (_, p) in parameters_of(member).items() if p.default is p.empty]
