"""One HTML file that opens from disk: tables that sort and filter, charts, pictures, text; no network, no server.

A page is a list of sections, a section a list of parts. Whoever has rows and curves builds a page in a few lines:

    rows = [{"defense": "Krum", "accuracy": 0.91}, {"defense": "none", "accuracy": 0.42}]
    table = Table(
        caption="Defenses under sign flipping",
        columns=[Column("defense", "Defense", choose=True), Column("accuracy", "Accuracy", digits=3)],
        rows=rows,
        sort="-accuracy",
    )
    points = Data("points", [{"round": 1, "accuracy": 0.4, "defense": "Krum"}])
    chart = Chart(
        caption="Accuracy over rounds",
        description="One line a defense: test accuracy, from 0 to 1, over the rounds.",
        spec=alt.Chart(points.named).mark_line().encode(x="round:Q", y="accuracy:Q", color="defense:N"),
        data=[points],
        columns=[Column("defense", "Defense"), Column("round", "Round", digits=0), Column("accuracy", "Accuracy", 3)],
    )
    write_page(Path("leaderboard.html"), "Leaderboard", [Section("Results", [table, chart])])

The parts are ``Table``, ``Chart``, ``Picture``, ``Text``, ``Code`` and ``Fold`` (parts that open on a click). What is
in them may come from an untrusted client: texts are escaped, data travel as JSON in which no markup can stand, and the
page's content policy runs no script but its own and loads nothing. Two rules are left to who writes a chart: untrusted
texts belong into the rows of ``Data``, never into a specification, and a row's keys are the writer's own.
"""

import base64
import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from flsec._files import replacing
from flsec.errors import ConfigError

__all__ = ["Chart", "Code", "Column", "Data", "Fold", "Part", "Picture", "Section", "Table", "Text", "write_page"]

Row = Mapping[str, Any]
_FOLDER = Path(__file__).parent
_INSTALL = 'pip install "flsec[report]"'
_FEW_DISTINCT = 0.3  # a column is packed where at most this share of its values is distinct


class Part(Protocol):
    """What a section is made of; ``kind`` names its macro in ``page.html.j2``."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of the rows.
        title: at its head; with the unit, where it has one.
        digits: behind the point, of numbers; None: the column holds text, or numbers shown as they are.
        choose: whether the reader can choose one of the column's values above the table.
        help: a sentence on what it means, shown at its head.
    """

    key: str
    title: str
    digits: int | None = None
    choose: bool = False
    help: str = ""

    def shown(self, row: Row) -> str:
        """Return a row's cell as text; nothing where there is no value."""
        value = row.get(self.key)
        if value is None or value == "":
            return ""
        if self.digits is not None and isinstance(value, int | float):
            return f"{value:,.{self.digits}f}" if math.isfinite(value) else str(value)
        return str(value)

    def sorted_by(self, row: Row) -> str:
        """Return what the script sorts a cell by, where that is not its text: a number."""
        value = row.get(self.key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return repr(value) if number else ""


@dataclass(frozen=True)
class Table:
    """A table that sorts by a click on a column's head, or Enter, and is filtered by text and by chosen values.

    Attributes:
        caption: what it shows.
        columns: in order.
        rows: {key: value}; what no column names is not shown.
        sort: the key of the column that it is sorted by at first, with ``-`` before it for the largest first; None:
            as the rows come.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    sort: str | None = None

    @property
    def ordered(self) -> Sequence[Row]:
        """The rows in their first order; those without a value last."""
        if self.sort is None:
            return self.rows
        key, down = self.sort.lstrip("-"), self.sort.startswith("-")
        there = [row for row in self.rows if row.get(key) is not None]
        ordered = sorted(there, key=lambda row: (isinstance(row[key], str), row[key]), reverse=down)
        return [*ordered, *(row for row in self.rows if row.get(key) is None)]

    def choices(self, column: Column) -> list[str]:
        """Return the values of a column that can be chosen."""
        return sorted({column.shown(row) for row in self.rows} - {""})


@dataclass(frozen=True, eq=False)
class Data:
    """Rows that charts draw; charts that share it have it in the page once.

    Attributes:
        name: by which charts refer to it; its own in a page.
        rows: {key: number, text, boolean or None}, all with the same keys.
    """

    name: str
    rows: Sequence[Row]

    @property
    def named(self) -> Any:
        """What a chart of Altair takes for its data."""
        return altair().NamedData(self.name)

    def packed(self) -> dict[str, Any]:
        """Return the rows by columns; values that repeat stand in it once."""
        return {str(key): _packed([row[key] for row in self.rows]) for key in (self.rows[0] if self.rows else ())}


def _packed(values: list[Any]) -> Any:
    values = [str(value) if isinstance(value, float) and not math.isfinite(value) else value for value in values]
    places: dict[tuple[type, Any], int] = {}  # by type as well: 1, 1.0 and True are equal
    at = [places.setdefault((type(value), value), len(places)) for value in values]
    if len(places) > _FEW_DISTINCT * len(values):
        return values
    return {"values": [value for _, value in places], "at": at}


@dataclass(frozen=True)
class Chart:
    """A chart of Vega-Lite, with its numbers as a table below it for who cannot see it.

    Attributes:
        caption: what it shows; below it.
        description: the same for a screen reader, with the axes.
        spec: a chart of Altair, or a specification of Vega-Lite; ``{"name": data.name}`` is its data. One view, or
            layers, as wide as the page.
        data: what it draws; or {what the specification calls it: data}, for charts that share a specification.
        columns: of the table below it, which shows the first of ``data``.
    """

    kind: ClassVar[str] = "chart"
    caption: str
    description: str
    spec: Any
    data: Sequence[Data] | Mapping[str, Data]
    columns: Sequence[Column] = ()

    @property
    def named(self) -> Mapping[str, Data]:
        """The data by what the specification calls them."""
        return self.data if isinstance(self.data, Mapping) else {data.name: data for data in self.data}

    def as_json(self, specs: dict[str, int]) -> dict[str, Any]:
        """Return what the script draws it from; its specification joins ``specs`` unless it is there already."""
        spec = self.spec if isinstance(self.spec, Mapping) else self.spec.to_dict(validate=False)
        return {
            "spec": specs.setdefault(json.dumps(spec, allow_nan=False), len(specs)),
            "data": {name: data.name for name, data in self.named.items()},
            "columns": [[column.key, column.title, column.digits] for column in self.columns],
            "caption": self.caption,
        }


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        caption: below it.
        description: for a screen reader.
        png: the file's bytes.
    """

    kind: ClassVar[str] = "picture"
    caption: str
    description: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain.
        tone: ``"plain"``, ``"note"`` (what was left out, say) or ``"warning"``.
    """

    kind: ClassVar[str] = "text"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Code:
    """A file's text or a command, to be read and copied.

    Attributes:
        caption: what it is.
        text: as it is.
    """

    kind: ClassVar[str] = "code"
    caption: str
    text: str


@dataclass(frozen=True)
class Fold:
    """Parts under a line that opens on a click.

    Attributes:
        title: the line.
        parts: under it.
        opened: whether it is open at first.
    """

    kind: ClassVar[str] = "fold"
    title: str
    parts: Sequence[Part]
    opened: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading, which the page's navigation leads to.

    Attributes:
        title: its heading.
        parts: in order.
    """

    title: str
    parts: Sequence[Part]


def write_page(path: Path, title: str, sections: Sequence[Section], lead: str = "") -> None:
    """Write a page to one file.

    Args:
        path: the file; it is replaced as a whole.
        title: of the page.
        sections: in order.
        lead: a sentence below the title.

    Raises:
        ConfigError: what draws the page is not installed; the message says how to install it.
        SaveError: the file cannot be written.
        ValueError: two data of the page have one name.
    """
    text = _rendered(title, sections, lead)
    with replacing(path) as file:
        file.write(text.encode())


def _rendered(title: str, sections: Sequence[Section], lead: str) -> str:
    scripts = [*_libraries(_charts(section.parts for section in sections)), (_FOLDER / "page.js").read_text()]
    charts = _charts(section.parts for section in sections)
    pool = _pool(data for chart in charts for data in chart.named.values())
    specs: dict[str, int] = {}
    drawn = [chart.as_json(specs) for chart in charts]
    numbers = {id(chart): number for number, chart in enumerate(charts)}
    return str(
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            lead=lead,
            sections=sections,
            content={
                "data": {name: data.packed() for name, data in pool.items()},
                "charts": drawn,
                "specs": [json.loads(spec) for spec in specs],
            },
            number_of=lambda chart: numbers[id(chart)],
            style=(_FOLDER / "page.css").read_text(),
            scripts=scripts,
            policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        )
    )


def _pool(found: Iterable[Data]) -> dict[str, Data]:
    pool: dict[str, Data] = {}
    for data in found:
        if pool.setdefault(data.name, data) is not data:
            raise ValueError(f"two data of this page are called {data.name!r}; rename one")
    return pool


def _charts(parts: Iterable[Iterable[Part]]) -> list[Chart]:
    found: list[Chart] = []
    for part in itertools.chain.from_iterable(parts):
        if isinstance(part, Chart):
            found.append(part)
        elif isinstance(part, Fold):
            found += _charts([part.parts])
    return found


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _environment() -> Any:
    try:
        import jinja2
        from jinja2.utils import htmlsafe_json_dumps
    except ImportError:
        raise _not_installed("jinja2") from None
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    compact = functools.partial(json.dumps, separators=(",", ":"), allow_nan=False)
    environment.filters["safe_json"] = lambda value: htmlsafe_json_dumps(value, dumps=compact)
    return environment


def altair() -> Any:
    """Return the library that charts are described with.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import altair
    except ImportError:
        raise _not_installed("altair") from None
    return altair


def _libraries(charts: Sequence[Chart]) -> list[str]:
    """Return the scripts that draw charts; none for a page without any."""
    return [_vega()] if charts else []


@functools.cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, of the version that Altair writes for."""
    version = ".".join(re.findall(r"\d+", altair().SCHEMA_VERSION)[:2])
    try:
        import vl_convert
    except ImportError:
        raise _not_installed("vl_convert") from None
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)  # inside a page that would end it


def _not_installed(package: str) -> ConfigError:
    return ConfigError(f"a page needs the package {package}, which is not installed. Install it with: {_INSTALL}")
