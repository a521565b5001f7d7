"""``flsec list`` and ``flsec describe``: what can be named, and what each does and takes, shown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from flsec.errors import ConfigError
from flsec.registry import find_spelling
from flsec.simulations.catalogue import INDEXED
from flsec.simulations.index import members
from flsec.simulations.names import KINDS_OF_FILES, elsewhere, names_of, packaged_experiments
from flsec.simulations.problems import nearest
from flsec.simulations.yaml_lines import dump

__all__ = ["describe", "description", "list_kinds", "listed"]


def listed(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Return {kind: {name: what it is, in a sentence}} of what an experiment, or a command, can name.

    Args:
        kind: the one that is asked for; None: all.

    Raises:
        ConfigError: no such kind.
    """
    kinds = names_of("kinds")
    if kind is not None and kind not in kinds:
        if not (hint := nearest(kind, kinds)) and (sentence := elsewhere(kind, "kinds")):
            raise ConfigError(f"{kind} is no kind of names. {sentence}")
        raise ConfigError(f"no kind {kind!r}.{hint} Known: {', '.join(kinds)}.")
    return {found: dict(_summaries(found)) for found in (kinds if kind is None else [kind])}


def _summaries(kind: str) -> Iterator[tuple[str, str]]:
    if kind in INDEXED:
        yield from ((name, facts["summary"]) for name, facts in members(kind).items())
        return
    for name, file in packaged_experiments(KINDS_OF_FILES[kind]).items():
        yield name, _first_comment(file.read_text(encoding="utf-8"))


def _first_comment(text: str) -> str:
    """Return what a file's first comment says, to the first line that ends a sentence."""
    said: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said.append(line.removeprefix("#").strip())
        if line.endswith("."):
            break
    return " ".join(said)


def list_kinds(kind: str | None = None) -> RenderableType:
    """Return tables of what an experiment, or a command, can name, one line each.

    Args:
        kind: the one that is asked for; None: all.

    Raises:
        ConfigError: no such kind.
    """
    tables: list[RenderableType] = []
    for title, names in listed(kind).items():
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, summary in names.items():
            table.add_row(Text(name), _code(summary))
        tables += [table, Text()]
    return Group(*tables[:-1])


def description(name: str) -> list[dict[str, Any]]:
    """Return what is to be said about all that has this name, as plain data; see ``facts.facts_of``.

    Args:
        name: as ``list_kinds`` shows it; upper case and underscores do not matter. Or ``package.module:Name``, which
            is imported.

    Raises:
        ConfigError: nothing has this name.

    Example:
        >>> [facts["parameters"][0]["name"] for facts in description("Krum")]
        ['num_byzantine']
    """
    if ":" in name:
        from flsec.simulations.facts import facts_of, imported

        kind, member = imported(name)
        return [facts_of(kind, name, member)]
    found: list[dict[str, Any]] = []
    for kind in INDEXED:
        every = members(kind)
        found += [every[usual]] if (usual := find_spelling(name, every)) else []
    for kind, ending in KINDS_OF_FILES.items():
        files = packaged_experiments(ending)
        found += [_of_file(kind, usual, files[usual])] if (usual := find_spelling(name, files)) else []
    if not found:
        if sentence := elsewhere(name, *INDEXED, *KINDS_OF_FILES):
            raise ConfigError(sentence)
        names = [title for kind in names_of("kinds") for title in names_of(kind)]
        raise ConfigError(f"nothing is called {name!r}.{nearest(name.lower(), names)} `flsec list` shows all names.")
    return found


def _of_file(kind: str, name: str, file: Path) -> dict[str, Any]:
    return {"name": name, "kind": kind, "file": file.read_text(encoding="utf-8")}


def describe(name: str) -> RenderableType:
    """Return what something does, its parameters, what it needs, where it comes from, and how to name it.

    Args:
        name: as for ``description``.

    Raises:
        ConfigError: nothing has this name.
    """
    return Group(*map(_shown, description(name)))


def _shown(facts: Mapping[str, Any]) -> RenderableType:
    title = Text.assemble((facts["name"], "bold"), f"  ({facts['kind']})\n")
    if "file" in facts:
        return Group(title, Text(facts["file"]))
    parts: list[RenderableType] = [title, Markdown(facts["text"])]
    if facts["parameters"]:
        parts += [Text(), _table(facts["parameters"])]
    for key in ("knows", "forms", "wrapping", "needs", "fits", "serves"):
        if key in ("knows", "wrapping", "serves") and key in facts:
            parts.append(Text())
        if key in facts:
            parts.append(Text(_in_lines(key, facts[key])))
    if facts["source"]:
        parts += [Text(), _code(" ".join(line.strip() for line in facts["source"].splitlines()))]
    if facts["python"]:
        parts += [Text("\nIn Python:\n"), Text(indent("\n".join(facts["python"]), "  "))]
    if "docs" in facts:
        parts.append(Text(f"\nIn the documentation: {facts['docs']}"))
    return Group(*parts, Text("\nIn YAML:\n"), Text(indent(dump(facts["yaml"]), "  ")))


def _in_lines(key: str, said: Any) -> str:
    return "\n".join(["Goes on clients", *(f"- {sentence}" for sentence in said)]) if key == "forms" else str(said)


def _table(parameters: list[dict[str, str]]) -> Table:
    table = Table("parameter", "allowed", "default", "meaning", box=None, padding=(0, 2, 0, 0))
    for parameter in parameters:
        name, allowed, default, meaning = (parameter[key] for key in ("name", "allowed", "default", "meaning"))
        table.add_row(Text(name), Text(allowed), Text(default), _code(meaning))
    return table


def _code(text: str) -> Text:
    """Return text with its ``code`` in another style."""
    shown = Text()
    for index, part in enumerate(text.split("``")):
        shown.append(part, style="cyan" if index % 2 else "")
    return shown
