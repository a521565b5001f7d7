"""Pages made from the code: one for each defense, attack, data set, model, task, ...; one for each package's names.

Nothing is listed here: registries name the members, docstrings say what they are, packaged experiments where they are
used, ``results/`` what they came to and ``benchmarks/README.md`` what they cost.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flwr.serverapp.strategy import FedAvg

from docs.coverage import public_items
from flsec.errors import ConfigError
from flsec.simulations.attack_forms import forms_in_words
from flsec.simulations.config import packaged_experiments
from flsec.simulations.facts import KINDS, _knowledge, _needs, _serves, snippet
from flsec.simulations.pages.board_page import write_board_page
from flsec.simulations.studies.board import Board, load_board, packaged_boards
from flsec.simulations.studies.board_files import read_csv
from flsec.simulations.studies.board_scores import Row, parts, rows_of
from flsec.simulations.studies.claim_results import read_result
from flsec.simulations.studies.claims import packaged_claims
from flsec.simulations.yaml_lines import dump
from flsec.strategies import RobustStrategy
from flsec.tasks import fits_in_words
from flsec.testing import example

__all__ = ["Member", "members", "write_board_pages", "write_pages"]

ROOT = Path(__file__).parents[1]
ONE = {
    "defenses": "defense",
    "attacks": "attack",
    "strategies": "server optimizer",
    "datasets": "data set",
    "partitioners": "partitioner",
    "models": "model",
    "tasks": "task",
}
MOST_ROWS = 12
MATHEMATICS = {"defenses": "aggregation", "attacks": "attacks"}


@dataclass(frozen=True)
class Member:
    """Something that an experiment can name.

    Attributes:
        kind: a key of ``KINDS``.
        name: in YAML.
        item: the class or function.
    """

    kind: str
    name: str
    item: Any

    @property
    def path(self) -> str:
        """The dotted name of the class or function."""
        return f"{self.item.__module__}.{self.item.__name__}"

    @property
    def beside(self) -> list[str]:
        """Dotted names of what belongs on its page: its mathematics, and its half on the clients."""
        room = f"flsec.{MATHEMATICS.get(self.kind, '-')}.{self.name}."
        found = [path for path in _items() if path.startswith(room)]
        module, _, half = (getattr(self.item, "client_half", None) or "").partition(":")
        return [*found, *(path for path in _items() if half and path == f"{module}.{half}")]


def members() -> Iterator[Member]:
    """Yield all members of all kinds."""
    for kind, entry in KINDS.items():
        for name, item in entry.registry.items():
            yield Member(kind, name, item)


def write_pages(docs: Path) -> None:
    """Write all pages below a folder: ``KIND/NAME.md``, ``KIND/index.md``, ``api/PACKAGE.md``, ``experiments.md``."""
    everything, placed = list(members()), {}
    for member in everything:
        _write(docs / member.kind / f"{member.name}.md", _page(member))
        for path in (member.path, *member.beside):
            placed.setdefault(path, f"{member.kind}/{member.name}")
    for kind in ONE:
        _write(docs / kind / "index.md", _index(kind, [member for member in everything if member.kind == kind]))
    packages = sorted({path.split(".")[1] for path in _items()})
    for package in packages:
        inside = [path for path in _items() if path.split(".")[1] == package]
        _write(docs / "api" / f"{package}.md", _api(package, inside, placed))
    listed = "```{{toctree}}\n:titlesonly:\n\n{}\n```".format("\n".join(packages))
    _write(docs / "api" / "index.md", ["# Public names", "Every public class and function, by package.", listed])
    _write(docs / "experiments.md", _experiments())


def _write(page: Path, parts: Iterable[str]) -> None:
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n\n".join(part for part in parts if part) + "\n")


@cache
def _items() -> dict[str, Any]:
    return dict(public_items())


# --- a page of one member --------------------------------------------------------------------------------------


def _page(member: Member) -> list[str]:
    beside = [path for path in member.beside if path != member.path]
    return [
        f"# {member.item.__name__}",
        "[All of its kind](index.md)",
        _facts(member),
        _autodoc(member.path),
        "## Its parts" if beside else "",
        *(_autodoc(path) for path in beside),
        _measured(member),
        _on_the_board(member),
        _cost(member),
        _limits(member),
        _used(member),
    ]


def _facts(member: Member) -> str:
    written = dump(snippet(member.kind, member.name)).strip()
    lines = [f"A {ONE[member.kind]}" if ONE[member.kind] != "attack" else "An attack"]
    lines[0] += (
        f", in an experiment's file `{member.name}`. `flsec describe {member.name}` says the same in a terminal."
    )
    package = ".".join(member.item.__module__.split(".")[:2])
    if member.kind in ("defenses", "attacks", "models"):
        package = {"defenses": "flsec.strategies", "attacks": "flsec.client_apps"}.get(member.kind, package)
        lines.append(f"```python\nfrom {package} import {member.item.__name__}\n```")
    lines.append(f"```yaml\n{written}\n```")
    said = []
    if member.kind == "attacks":
        said += [_knowledge(member.item), *(f"Goes on clients: {sentence}" for sentence in forms_in_words(member.item))]
    if hasattr(member.item, "client_half"):
        said += _needs(member.item).splitlines()
    if member.kind in ("attacks", "defenses"):
        said.append(f"Fits {fits_in_words(member.item)}.")
    if member.kind == "models":
        said.append(_serves(member.item))
    return "\n\n".join([*lines, "\n".join(f"- {_escaped(sentence)}" for sentence in said)])


def _escaped(sentence: str) -> str:
    """Return a sentence in which what looks like code is code: ``Name(...)``, ``@name``, dotted names."""
    code = r"(?<![\w`])@?[\w.]*\w\((?:[^()]|\([^()]*\))*\)(?:\(\w+\))?|flsec(?:\.\w+)+|flwr(?:\.\w+)+"
    return re.sub(code, lambda found: f"`{found[0]}`", sentence)


def _autodoc(path: str) -> str:
    directive = "autoclass" if inspect.isclass(_items().get(path)) else "autofunction"
    return f"```{{eval-rst}}\n.. {directive}:: {path}\n```"


def _limits(member: Member) -> str:
    """Say what is refused, and what a verdict of a defense means."""
    if member.kind != "defenses":
        return ""
    defense = member.item
    said = []
    if defense.on_aggregation is not RobustStrategy.on_aggregation:
        said.append(
            "It hands one aggregate on. Strategies that judge or clip single replies are refused inside it: see "
            "[which Flower strategy works inside what](../compatibility.md)."
        )
    built = _built(defense)
    if needed := _clients_needed(built):
        said.append(f"Least usable replies in a round: {needed}. With fewer, `when_short` decides.")
    if built is not None and defense.before_aggregation is not RobustStrategy.before_aggregation:
        said.append(
            "Being dropped by it counts as an accusation, for which [`BanList`](ban_list.md) bans."
            if built.accuses_clients
            else "Being dropped by it is no accusation: [`BanList`](ban_list.md) does not ban for it."
        )
    said.append("What no defense here can do: [limits](../limits.md).")
    return "## Limits\n\n" + "\n".join(f"- {sentence}" for sentence in said)


def _built(defense: Any) -> Any:
    """Return a defense around FedAvg, or None where there is no example of what it takes."""
    with suppress(ConfigError, LookupError):
        return defense(FedAvg(), **example(defense, FedAvg()))
    return None


def _clients_needed(built: Any) -> str:
    """Return how many replies a defense needs for f = 1, 2 and 3, where that depends on f."""
    if built is None or not hasattr(built, "num_byzantine"):
        return ""
    needed = [built.clients_needed(f) for f in (1, 2, 3)]
    return ", ".join(f"{count} for f = {f}" for f, count in zip((1, 2, 3), needed, strict=True))


def _measured(member: Member) -> str:
    rows = [row for claim, record in _records().items() for row in _curves(member, claim, record)]
    if member.kind not in ("defenses", "attacks"):  # which are in many claims
        rows = rows[:MOST_ROWS]
    if not rows:
        return ""
    shown = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        "## Measured\n\nFrom the recorded claims, in the small size; the mean over seeds and its 95 % interval. "
        "[All of them, and what they mean](../fidelity.md).\n\n"
        f"| claim | curve | measure | here | 95 % | paper |\n|---|---|---|---|---|---|\n{shown}"
    )


def _on_the_board(member: Member) -> str:
    """Return what the recorded leaderboards say of a defense: under no attack, and under each."""
    text = []
    for board, rows in _boards():
        row = next((row for row in rows if row.defense == member.name), None) if member.kind == "defenses" else None
        if row is None or row.clean is None:
            continue
        lines = [("no attack", str(row.clean)), *((f"`{attack}`", str(score)) for attack, score in row.attacks.items())]
        place = "" if row.rank is None else f" Rank {row.rank} of {sum(other.rank is not None for other in rows)} rows."
        table = "\n".join(f"| {attack} | {score} |" for attack, score in lines)
        text.append(f"{board.file.title}.{place}\n\n| under | accuracy |\n|---|---|\n{table}")
    head = "## On the leaderboard\n\nMean over seeds and half the 95 % interval; [what it means](../leaderboard.md)."
    return "\n\n".join([head, *text]) if text else ""


def write_board_pages(docs: Path) -> None:
    """Write the page of every recorded leaderboard, ``board-NAME.html``, into the site's folder of pages."""
    for file in _board_files():
        write_board_page(load_board(file.stem), read_csv(file), docs / f"board-{file.stem}.html")


def _board_files() -> list[Path]:
    return [file for file in sorted((ROOT / "results" / "leaderboard").glob("*.csv")) if file.stem in packaged_boards()]


@cache
def _boards() -> list[tuple[Board, list[Row]]]:
    """Return the recorded boards that rank defenses, with the rows of their first part."""
    files = [
        file for file in sorted((ROOT / "results" / "leaderboard").glob("*.csv")) if file.stem in packaged_boards()
    ]
    boards = [(load_board(file.stem), read_csv(file)) for file in files]
    return [(board, rows_of(board, parts(board)[0], lines)) for board, lines in boards]


@cache
def _records() -> dict[str, dict[str, Any]]:
    """Return {claim: its record} of the claims that are recorded."""
    found = {claim: read_result(claim, ROOT / "results") for claim in packaged_claims()}
    return {claim: record for claim, record in found.items() if record and "ours" in record}


def _curves(member: Member, claim: str, record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each measure of each recorded curve of a claim in which a member takes part."""
    for curve, measures in record["ours"].items():
        if not _takes_part(member, {**record["settings"]["common"], **record["settings"]["curves"][curve]}):
            continue
        for measure, found in measures.items():
            if found["mean"] is None:
                continue
            spread = "" if found["interval"] is None else "{:.3f} to {:.3f}".format(*found["interval"])
            paper = record["paper"].get(measure, {}).get(curve)
            said = "" if paper is None else f"{paper:.3f}"
            yield f"`{claim}`", f"`{curve}`", measure.replace("_", " "), f"{found['mean']:.3f}", spread, said


def _takes_part(member: Member, settings: dict[str, Any]) -> bool:
    if member.kind in ("defenses", "attacks"):
        return any(entry["name"] == member.name for entry in settings.get(member.kind) or [])
    key = {"datasets": "data", "strategies": "strategy", "tasks": "task", "models": "model"}.get(member.kind)
    entry = settings["data"].get("partition") if key is None else settings.get(key)
    return bool(entry) and entry["name"] == member.name


def _cost(member: Member) -> str:
    """Return the rows of the benchmarks that are about a member."""
    found = []
    for title, heads, rows in _benchmarks():
        if heads[0] not in ("rule", "network"):
            continue
        if mine := [row for row in rows if _plain(row[0]) in (member.name, member.name.replace("_", ""))]:
            lines = [heads, ["---"] * len(heads), *mine]
            found.append(f"{title}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    where = "## Cost\n\nMeasured; on what, says [the page of benchmarks](../../benchmarks/README.md)."
    return "\n\n".join([where, *found]) if found else ""


@cache
def _benchmarks() -> list[tuple[str, list[str], list[list[str]]]]:
    """Return (title, heads, rows) of each table of the page of benchmarks."""
    found: list[tuple[str, list[str], list[list[str]]]] = []
    title, rows = "", []
    for line in [*(ROOT / "benchmarks" / "README.md").read_text().splitlines(), ""]:
        if line.startswith("## "):
            title = line[3:]
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append((title, rows[0], rows[2:]))
            rows = []
    return found


def _plain(cell: str) -> str:
    return re.sub(r"\W+", "_", cell.partition(",")[0].partition(" (")[0].strip().lower())


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _used(member: Member) -> str:
    """Name the packaged experiments, sweeps and claims that name a member."""
    wanted = re.compile(rf"name: {member.name}\b")
    commands = [
        (command, name)
        for command, files in (
            ("run", packaged_experiments()),
            ("sweep", packaged_experiments(".sweep")),
            ("reproduce", packaged_claims()),
        )
        for name, file in files.items()
        if wanted.search(_text(file))
    ]
    if not commands:
        return ""
    shown = "\n".join(f"- `flsec {command} {name}`" for command, name in commands[:8])
    rest = f"\n- and {len(commands) - 8} more" if len(commands) > 8 else ""
    return f"## At work in\n\n{shown}{rest}"


# --- pages of many ---------------------------------------------------------------------------------------------


def _summary(item: Any) -> str:
    text = (inspect.getdoc(item) or "").partition("\n\n")[0].replace("\n", " ")
    return text.replace("``", "`").replace("|", "\\|")


def _index(kind: str, inside: list[Member]) -> list[str]:
    rows = "\n".join(f"| [`{m.name}`]({m.name}.md) | {_summary(m.item)} |" for m in inside)
    title = {"datasets": "Data sets", "strategies": "Server optimizers"}.get(kind, kind.capitalize())
    return [f"# {title}", f"| {ONE[kind]} | |\n|---|---|\n{rows}"]


def _api(package: str, paths: list[str], placed: dict[str, str]) -> list[str]:
    elsewhere = [path for path in paths if path in placed]
    rows = "\n".join(
        f"| [`{path.rpartition('.')[2]}`](../{placed[path]}.md) | {_summary(_items()[path])} |" for path in elsewhere
    )
    table = f"On pages of their own:\n\n| name | |\n|---|---|\n{rows}" if elsewhere else ""
    return [f"# flsec.{package}", table, *(_autodoc(path) for path in paths if path not in placed)]


def _experiments() -> list[str]:
    rows = [
        f"| `flsec {command} {name}` | {_text(file).partition(chr(10))[0].lstrip('# ')} |"
        for command, files in (("run", packaged_experiments()), ("sweep", packaged_experiments(".sweep")))
        for name, file in files.items()
    ]
    return ["# Experiments that come with flsec", "| command | |\n|---|---|\n" + "\n".join(rows)]
