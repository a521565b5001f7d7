"""A leaderboard as a file: which defenses meet which attacks, with which settings, and so which runs there are."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.parameters import Count, OpenFraction, parameters_of
from flsec.registry import yaml_name
from flsec.simulations.config import apply_override, make_config
from flsec.simulations.problems import Findings, Origin, Problem, blame_parameter, nearest, say_where
from flsec.simulations.schema import Config, DefenseEntry
from flsec.simulations.signatures import validate
from flsec.simulations.studies.claims import settings_hash_of
from flsec.simulations.yaml_lines import dump, read
from flsec.strategies import DEFENSES

__all__ = [
    "NO_ATTACK",
    "UNDEFENDED",
    "Board",
    "Cell",
    "Place",
    "load_board",
    "packaged_boards",
    "resolve_board",
    "row_label",
]

UNDEFENDED = "undefended"
NO_ATTACK = "none"

Entries = list[dict[str, Any]]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class BoardFile(_Section):
    """What the file of a board may say; what it does not say, it takes from the board that ``base`` names.

    Attributes:
        title: in a few words.
        experiment: what all runs share: data, model, training and simulation.
        seeds: one run of each cell for each.
        attackers: shares of the clients that attack; f is this share of the clients of a round, rounded.
        partitions: {label: how the training samples are dealt out}.
        attacks: {label: entries of ``attacks``}; runs in which nobody attacks are always there.
        portfolio: labels of those attacks of which the strongest, over whole runs, is a defense's worst case.
        backdoors: labels of those attacks whose success counts.
        settings: {parameter: value} for every defense that has this parameter; ``"f"``, ``"n"``, ``"n - f"`` and
            ``"f + 1"`` are numbers of the run. All other parameters have their defaults.
        defenses: {defense: {parameter: value}} beyond that.
        stacks: {label: entries of ``defenses``, outermost first}: rows in which one defense wraps another.
        rows: labels of the only rows; empty: all.
        left_out: {defense: why it has no row}.
        attacks_left_out: {attack: why it has no column}, on a board that is to have all.
        tuning: {defense: {parameter: values}}: what the second board chooses from, by ``validation_seed``.
        validation_seed: of the runs that choose; it is no seed of the board.
    """

    title: str = Field(min_length=1)
    experiment: dict[str, Any]
    seeds: tuple[Count, ...] = Field(strict=False, min_length=1, examples=[[1, 2, 3]])
    attackers: tuple[OpenFraction, ...] = Field(strict=False, min_length=1, examples=[[0.2]])
    partitions: dict[str, dict[str, Any]] = Field(min_length=1, examples=[{"iid": {"name": "iid"}}])
    attacks: dict[str, Entries] = Field(min_length=1, examples=[{"alie": [{"name": "alie"}]}])
    portfolio: Names = ()
    backdoors: Names = ()
    settings: dict[str, Any] = Field(default={}, examples=[{"num_byzantine": "f"}])
    defenses: dict[str, dict[str, Any]] = Field(default={}, examples=[{"slsgd": {"alpha": 1.0}}])
    stacks: dict[str, Entries] = Field(default={}, examples=[{"clipped": [{"name": "median_norm_clipping"}]}])
    rows: Names = ()
    attacks_left_out: dict[str, str] = Field(default={}, examples=[{"false_alarm": "works on SIREN alone"}])
    left_out: dict[str, str] = Field(default={}, examples=[{"eavesdrop": "defends against nothing"}])
    tuning: dict[str, dict[str, list[Any]]] = Field(default={}, examples=[{"norm_clipping": {"max_norm": [1.0, 2.0]}}])
    validation_seed: Count = 1000

    _origin: Origin = PrivateAttr(default=Origin("<board>"))


@dataclass(frozen=True, order=True)
class Place:
    """Where a cell is on the board.

    Attributes:
        partition: its label.
        attackers: share of the clients that attack in the attacked runs of this part of the board.
        defense: the row's label.
        attack: the column's label.
        seed: of the run.
    """

    partition: str
    attackers: float
    defense: str
    attack: str
    seed: int

    @property
    def any_seed(self) -> tuple[str, float, str, str]:
        """The same with any seed."""
        return self.partition, self.attackers, self.defense, self.attack


@dataclass(frozen=True)
class Cell:
    """One run of a board.

    Attributes:
        place: where.
        config: the run; None where a defense refuses these numbers of clients.
        settings: a hash of all that its numbers may depend on.
        refused: why there is no run.
    """

    place: Place
    config: Config | None
    settings: str
    refused: str | None = None


@dataclass(frozen=True)
class Board:
    """A leaderboard, checked as far as it can be without data.

    Attributes:
        name: the file's.
        file: what the file says.
        rows: {label: entries of ``defenses``, with ``"f"`` and ``"n"`` still as written}.
    """

    name: str
    file: BoardFile
    rows: Mapping[str, Entries]

    def chosen(self, *, defenses: Sequence[str] = (), attacks: Sequence[str] = ()) -> "Board":
        """Return the part of the board with these rows and columns; none named: all of them.

        Raises:
            ConfigError: there is no such row or column.
        """
        columns = {NO_ATTACK: [], **self.file.attacks}
        for kind, asked, known in (("row", defenses, self.rows), ("attack", attacks, columns)):
            for name in asked:
                if name not in known:
                    raise ConfigError(f"the board {self.name} has no {kind} {name!r}.{nearest(name, known)}")
        rows = {name: entries for name, entries in self.rows.items() if not defenses or name in defenses}
        kept = {name: entries for name, entries in self.file.attacks.items() if not attacks or name in attacks}
        return Board(self.name, self.file.model_copy(update={"attacks": kept}), rows)

    def with_row(self, written: str) -> "Board":
        """Return the board with one row more, a defense of somebody else's.

        Args:
            written: ``package.module:Name``; settings that have no default come from ``settings``, or from
                ``--set defenses.NAME``.

        Raises:
            ConfigError: there is no such defense, or a setting is missing.
        """
        member = DEFENSES.get(written)
        label = row_label(written)
        entry = {"name": written, **_settings_for(member, self.file, label)}
        _check_complete(label, member, entry)
        return Board(self.name, self.file, {**self.rows, label: [entry]})

    def with_rows(self, rows: Mapping[str, Entries]) -> "Board":
        """Return the board with these rows alone."""
        return Board(self.name, self.file, rows)

    def cells(self, seeds: Sequence[int] | None = None) -> Iterator[Cell]:
        """Yield all runs of the board.

        Args:
            seeds: None: the file's.

        Raises:
            ConfigError: something in the file cannot work, whoever defends.
        """
        for partition, dealt in self.file.partitions.items():
            for share in self.file.attackers:
                for row in self.rows:
                    for attack in (NO_ATTACK, *self.file.attacks):
                        for seed in seeds or self.file.seeds:
                            yield self._cell(Place(partition, share, row, attack, seed), dealt)

    def numbers(self, share: float) -> dict[str, int]:
        """Return n and f of a round in which this share of the clients attacks."""
        simulation = self.file.experiment.get("simulation") or {}
        n = simulation.get("clients_per_round") or simulation.get("num_clients", 20)
        return {"n": n, "f": round(share * n)}

    def row(self, label: str, share: float) -> Entries:
        """Return the settings of a row as its runs have them."""
        numbers = self.numbers(share)
        return [{key: _number(value, numbers) for key, value in entry.items()} for entry in self.rows[label]]

    def _cell(self, place: Place, dealt: Mapping[str, Any]) -> Cell:
        data = dict(self.file.experiment)
        data["data"] = {**data.get("data", {}), "partition": dict(dealt)}
        data["simulation"] = {**data.get("simulation", {}), "engine": "inprocess"}
        data |= {"name": "cell", "seed": place.seed, "defenses": self.row(place.defense, place.attackers)}
        if place.attack == NO_ATTACK:
            # An oracle, which knows who attacks, is the plain mean where nobody does.
            data["defenses"] = [entry for entry in data["defenses"] if not _knows_who(entry)]
        else:
            data |= {"attacks": self.file.attacks[place.attack], "adversaries": {"fraction": place.attackers}}
        rounds = data["simulation"].get("num_rounds", 20)
        data["output"] = {"checkpoint_every": rounds, "keep_checkpoints": 1, "plots": False}
        try:
            config = make_config(data, Origin(self.name))
        except ConfigError as error:
            if place.defense == UNDEFENDED:
                raise
            return Cell(place, None, "", str(error))
        return Cell(place, config, settings_hash_of(config))


def _knows_who(entry: Mapping[str, Any]) -> bool:
    return "adversaries" in parameters_of(DEFENSES.get(entry["name"]))


_TERM = re.compile(r"(?P<first>[nf])(?: (?P<sign>[+-]) (?P<second>[nf]|\d+))?")


def _number(value: Any, numbers: Mapping[str, int]) -> Any:
    """Return ``"n - f"`` and the like as the number that it is in a run, and anything else as it is."""
    match = _TERM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    first, second = numbers[match["first"]], match["second"] or "0"
    other = numbers[second] if second in numbers else int(second)
    return first - other if match["sign"] == "-" else first + other


def _settings_for(member: Any, file: BoardFile, label: str) -> dict[str, Any]:
    known = parameters_of(member)
    return {
        **{name: value for name, value in file.settings.items() if name in known},
        **file.defenses.get(label, {}),
    }


def row_label(written: str) -> str:
    """Return the label of a row by the name of its defense.

    Example:
        >>> row_label("flsec.strategies:MultiKrum")
        'multi_krum'
    """
    return yaml_name(DEFENSES.get(written)) if ":" in written else written


def packaged_boards() -> dict[str, Path]:
    """Return {name: file} of the boards that come with flsec."""
    folder = Path(__file__).parents[1] / "boards"
    return {file.name.removesuffix(".board.yaml"): file for file in sorted(folder.glob("*.board.yaml"))}


def resolve_board(written: str | Path) -> Path:
    """Return the file of a board by its name or path.

    Raises:
        ConfigError: there is none.
    """
    boards = packaged_boards()
    if str(written) in boards:
        return boards[str(written)]
    if Path(written).is_file():
        return Path(written)
    raise ConfigError(
        f"{written}: no board has this name, and there is no such file.{nearest(str(written), boards)} "
        f"Packaged: {', '.join(boards)}."
    )


def load_board(written: str | Path, overrides: Sequence[str] = ()) -> Board:
    """Read a board.

    Args:
        written: the name of a packaged board, or a path.
        overrides: ``key.sub=value`` each, such as ``seeds=[1]`` or ``experiment.simulation.num_rounds=5``.

    Raises:
        ConfigError: something in the file cannot work.
    """
    path = resolve_board(written)
    data, lines = read(path)
    origin = Origin(str(path), lines)
    data = _on_base(data, origin)
    for text in overrides:
        apply_override(data, text, origin)
    with say_where(origin):
        file: BoardFile = validate(BoardFile, data)
        file._origin = origin
        _check_labels(file)
        rows = _rows(file)
    name = path.name.removesuffix(".yaml").removesuffix(".board")
    return Board(name, file, rows)


def _on_base(data: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """Return a file's data with the keys that it leaves to another board's."""
    if "base" not in data:
        return dict(data)
    with say_where(origin):
        blame_parameter(("base",), (), resolve_board, str(data["base"]))
    base, lines = read(resolve_board(str(data["base"])))
    rest = {key: value for key, value in data.items() if key != "base"}
    return {**_on_base(base, Origin(str(data["base"]), lines)), **rest}


def _check_labels(file: BoardFile) -> None:
    for key in ("portfolio", "backdoors"):
        for label in getattr(file, key):
            if label not in file.attacks:
                raise Problem((key,), f"no attack {label!r}.{nearest(label, file.attacks)}")
    if NO_ATTACK in file.attacks:
        raise Problem(("attacks",), f"{NO_ATTACK!r} is the name of the runs in which nobody attacks. Rename it.")
    for key in ("attackers", "seeds"):
        if len(set(getattr(file, key))) < len(getattr(file, key)):
            raise Problem((key,), f"has a value twice; got {dump(list(getattr(file, key)), flow=True).strip()}.")
    for key, registry in (("left_out", DEFENSES), ("tuning", DEFENSES), ("attacks_left_out", ATTACKS)):
        for name in getattr(file, key):
            if name not in registry.names():
                raise Problem((key,), f"no {registry.kind} {name!r}.{nearest(name, registry.names())}")
    if file.validation_seed in file.seeds:
        raise Problem(("validation_seed",), "chooses settings, so it must be none of the board's seeds.")


def _rows(file: BoardFile) -> dict[str, Entries]:
    """Return the undefended row, one for each registered defense, and the stacks."""
    rows: dict[str, Entries] = {UNDEFENDED: []}
    findings = Findings()
    for name, member in DEFENSES.items():
        if name not in file.left_out:
            rows[name] = [{"name": name, **_settings_for(member, file, name)}]
            with findings:
                _check_complete(name, member, rows[name][0])
    findings.raise_all()
    for label, entries in file.stacks.items():
        if label in rows:
            raise Problem(("stacks",), f"{label!r} is the name of a defense already. Rename it.")
        rows[label] = [_filled(entry, file, label) for entry in entries]
    for label in file.rows:
        if label not in rows:
            raise Problem(("rows",), f"no row {label!r}.{nearest(label, rows)}")
    return {label: rows[label] for label in file.rows or rows}


def _check_complete(name: str, member: Any, entry: Mapping[str, Any]) -> None:
    """Refuse a row for which the board states no setting where its defense has no default."""
    for key, (_, parameter) in parameters_of(member).items():
        supplied = key in DefenseEntry.supplied or parameter.default is not parameter.empty
        if not supplied and key not in entry:
            raise Problem(
                ("defenses", name),
                f"{key} has no default. Give it under settings, or under defenses: {{{name}: {{{key}: ...}}}}; or say "
                f"under left_out why {name} has no row.",
            )


def _filled(entry: Mapping[str, Any], file: BoardFile, label: str) -> dict[str, Any]:
    if not isinstance(entry.get("name"), str):
        raise Problem(("stacks", label), "each entry needs a name. For example: [{name: bucketing}, {name: krum}]")
    return {**_settings_for(DEFENSES.get(entry["name"]), file, entry["name"]), **entry}
