"""The commands that look something up or check it, and run nothing: list, describe, init, schema, check, doctor."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from flsec.errors import ConfigError
from flsec.simulations.names import KINDS_OF_FILES, elsewhere, names_of, setting_names

__all__ = ["Overrides", "check", "describe", "doctor", "init", "list_", "names_or_files", "schema", "show"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]
_WIDE = 100_000  # columns: no line is that long


def show(renderable: RenderableType) -> None:
    """Print on a terminal as wide as it is; into a pipe or a file as plain text, whose lines are not wrapped."""
    if sys.stdout.isatty():
        Console(emoji=False, highlight=False).print(renderable)
        return
    text = io.StringIO()
    Console(emoji=False, highlight=False, file=text, width=_WIDE, color_system=None).print(renderable)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


# --- completion -------------------------------------------------------------------------------------------------


def names_or_files(*kinds: str, files: bool = True) -> Any:
    """Return what completes an argument: names of these kinds, and YAML files where a file would do, too.

    Example:
        >>> names_or_files("sweeps", files=False)("attack_t")
        ['attack_table', 'attack_targets']
    """

    def complete(incomplete: str) -> list[str]:
        names = [name for kind in kinds for name in names_of(kind)]
        found = [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
        return found + (_files(incomplete) if files else [])

    return complete


def _files(incomplete: str) -> list[str]:
    """Return the folders and YAML files that begin so."""
    folder, beginning = os.path.split(incomplete)
    try:
        found = [place for place in sorted(Path(folder or ".").iterdir()) if place.name.startswith(beginning)]
    except OSError:
        return []
    shown = [place for place in found if beginning or not place.name.startswith(".")]
    folders = [f"{os.path.join(folder, place.name)}/" for place in shown if place.is_dir()]
    return folders + [
        os.path.join(folder, place.name) for place in shown if place.suffix in (".yaml", ".yml") and place.is_file()
    ]


def _all_names(incomplete: str) -> list[str]:
    found: list[str] = names_or_files(*names_of("kinds"), files=False)(incomplete)
    return found


def _settings(incomplete: str) -> list[str]:
    """Return the settings that begin so, up to their values."""
    keys = ["name", "seed", *(f"{name}.{key}" for name, keys in setting_names().items() for key in keys)]
    return [f"{key}=" for key in keys if key.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, such as seed=3 or 'defenses[0].num_byzantine=3'. Repeatable.",
        autocompletion=_settings,
    ),
]


# --- commands ---------------------------------------------------------------------------------------------------


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="One kind alone, such as defenses, attacks, datasets, experiments, sweeps or reconstructions.",
            autocompletion=names_or_files("kinds", files=False),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what there is, one line each."""
    from flsec.simulations.describe import list_kinds, listed

    if as_json:
        _print_json(listed(kind))
    else:
        show(list_kinds(kind))


def describe(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `flsec list` shows, such as krum; or your own, such as package.module:MyDefense.",
            autocompletion=_all_names,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what something does, its parameters, what it needs, where it comes from, and how to name it."""
    from flsec.simulations.describe import describe as described
    from flsec.simulations.describe import description

    if as_json:
        _print_json(description(name))
    else:
        show(described(name))


def init(
    name: Annotated[
        str,
        typer.Argument(
            help="A packaged experiment, sweep or reconstruction, such as quickstart.",
            autocompletion=names_or_files(*KINDS_OF_FILES, files=False),
        ),
    ],
) -> None:
    """Print a packaged file with its comments, to edit and run: flsec init NAME > my.yaml."""
    from flsec.simulations.describe import description

    files = [facts for facts in description(name) if "file" in facts]
    if not files:
        raise ConfigError(f"{elsewhere(name, *KINDS_OF_FILES)}. What is asked for here is a packaged file.")
    kind, text = files[0]["kind"], files[0]["file"]
    option, place = _SCHEMAS[kind]
    print(f"# yaml-language-server: $schema={place}\n# Made by: flsec schema{option} > {place}\n{text}", end="")


_SCHEMAS = {  # the kind's argument of `flsec schema`, and the file that it is written to
    "experiments": ("", "flsec.schema.json"),
    "sweeps": (" sweeps", "flsec.sweep.schema.json"),
    "reconstructions": (" reconstructions", "flsec.reconstruct.schema.json"),
}


def schema(
    kind: Annotated[
        str,
        typer.Argument(
            help="Of which files: experiments, sweeps or reconstructions.",
            autocompletion=lambda incomplete: [name for name in KINDS_OF_FILES if name.startswith(incomplete)],
        ),
    ] = "experiments",
) -> None:
    """Print a JSON Schema of the YAML, with which editors complete and check it."""
    from flsec.simulations.json_schema import schema_of

    _print_json(schema_of(kind))


def check(
    file: Annotated[
        str,
        typer.Argument(
            help="A YAML file: an experiment, a sweep or a reconstruction, such as my.yaml; or a packaged name.",
            autocompletion=names_or_files(*KINDS_OF_FILES),
        ),
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say all that is wrong with a file at once, without running it."""
    from flsec.simulations.check import check_file

    try:
        size = check_file(file, overrides or [])
    except ConfigError as error:
        if not as_json:
            raise
        _print_json({"file": file, "fine": False, "problems": list(getattr(error, "messages", [str(error)]))})
        raise typer.Exit(2) from None
    if as_json:
        _print_json({"file": file, "fine": True, "problems": [], "size": size})
    else:
        print(f"fine: {size}")


def doctor(
    as_json: AsJson = False,
    start_ray: Annotated[bool, typer.Option("--start-ray", help="Also start Ray, which takes some seconds.")] = False,
) -> None:
    """Show what there is to run experiments on, and what would stop a run."""
    from flsec.simulations.doctor import as_table, examine, verdict

    facts = examine(start_ray=start_ray)
    stops = verdict(facts)
    if as_json:
        _print_json({"facts": [fact._asdict() for fact in facts], "stops": stops})
    else:
        show(as_table(facts))
        for line in stops or ["Nothing would stop a run."]:
            print(line)
    raise typer.Exit(1 if stops else 0)
