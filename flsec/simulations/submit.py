"""Starting a run on a SuperLink: checked here first, followed to its end, with an exit code that tells how it ended."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flsec.errors import ConfigError
from flsec.simulations.lookup import Overrides, names_or_files

__all__ = ["submit"]

_PAUSE = 2.0  # seconds between two looks at how a run ended
_APP = """\
[project]
name = "flsec-experiment"
version = "1.0.0"
description = "An experiment of flsec."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "flsec"

[tool.flwr.app.components]
serverapp = "flsec.simulations.engines.flower_app:server_app"
clientapp = "flsec.simulations.engines.flower_app:client_app"

[tool.flwr.app.config]
experiment = "quickstart"
set = ""
resume = ""
"""


def submit(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, or the name of a packaged experiment, such as quickstart.",
            autocompletion=names_or_files("experiments"),
        ),
    ] = None,
    overrides: Overrides = None,
    superlink: Annotated[
        str | None, typer.Option(help="Its name in Flower's config.toml; by default the one that is set there.")
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option(help="A folder with a pyproject.toml that names flsec's apps; by default one is made."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder; the server must find it at the same place.")
    ] = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Whether this machine has the data, to check the settings by them.")
    ] = True,
) -> None:
    """Start a run on a SuperLink with SuperNodes, show its log, and fail if it fails."""
    from flsec.simulations.checks import check_data
    from flsec.simulations.config import load_config, resolve_experiment
    from flsec.simulations.run_folder import RunFolder

    if (experiment is None) == (resume is None):
        raise ConfigError("flsec submit takes an experiment, such as quickstart, or --resume with a run's folder.")
    if resume is None:
        config = load_config(resolve_experiment(str(experiment)), overrides or [])
    elif overrides:
        raise ConfigError("--set cannot change a run that is resumed; start a new one instead.")
    else:
        folder = RunFolder.open(resume.absolute())
        folder.load_checkpoint()
        config = load_config(folder.path / "config.yaml")
    _refuse_collusion(config)
    if data:
        check_data(config)
    told = {"experiment": json.dumps(config.to_dict()), "set": "", "resume": str(resume.absolute()) if resume else ""}
    with _folder(app) as where, tempfile.TemporaryDirectory() as notes:
        settings = Path(notes, "run_config.toml")
        settings.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
        run_id = _start(where, superlink, settings)
    try:
        _follow(run_id, superlink)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on. See it with: flwr log {run_id}. End it with: flwr stop {run_id}", err=True)
        raise


def _refuse_collusion(config: Any) -> None:
    from flsec.simulations.resources import StandIns, resources_of

    attacks = zip(config.attacks, StandIns(resources_of(config)).attacks, strict=True)
    together = [entry.name for entry, attack in attacks if attack.poisons_cohort]
    if together:
        raise ConfigError(
            f"attacks: {', '.join(together)} needs several clients' updates, which only a simulation has. Take "
            "an attack that each client carries out alone, such as sign_flipping, or simulate it with `flsec run`."
        )


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """Yield the app to run: the given one, or one that is made of its description alone."""
    if given is not None:
        if not (given / "pyproject.toml").is_file():
            raise ConfigError(f"--app: {str(given)!r} has no pyproject.toml. Leave --app out to run flsec's own app.")
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        Path(made, "pyproject.toml").write_text(_APP)
        yield Path(made)


def _start(app: Path, superlink: str | None, settings: Path) -> int:
    answer = _flwr("run", str(app), *_named(superlink), "-c", str(settings), "--format", "json")
    if "run-id" not in answer:
        raise ConfigError(f"flwr run started nothing: {answer.get('error-message', answer)}")
    return int(answer["run-id"])


def _follow(run_id: int, superlink: str | None) -> None:
    """Show a run's log until it has ended; raise ``typer.Exit`` unless it was completed."""
    shown = False
    while True:
        (run,) = _flwr("ls", *_named(superlink), "--run-id", str(run_id), "--format", "json")["runs"]
        if run["status"].startswith("finished"):
            break
        if run["status"] == "running" and not shown:
            shown = True
            subprocess.run([_command(), "log", str(run_id), *_named(superlink), "--stream"], check=False)
            continue
        time.sleep(_PAUSE)
    if not shown:
        subprocess.run([_command(), "log", str(run_id), *_named(superlink), "--show"], check=False)
    if run["status"] != "finished:completed":
        typer.echo(f"error: run {run_id} is {run['status']}: {run.get('status-details', 'no reason given')}", err=True)
        raise typer.Exit(1)
    typer.echo(f"run {run_id} is completed")


def _named(superlink: str | None) -> list[str]:
    return [] if superlink is None else [superlink]


def _command() -> str:
    """Return Flower's command: the one that is installed beside this Python, or else the one on the path."""
    beside = Path(sys.executable).parent / "flwr"
    found = shutil.which("flwr") if not beside.is_file() else str(beside)
    if found is None:
        raise ConfigError("flsec submit: Flower's command flwr is not on the path. Install it with: pip install flwr")
    return found


def _flwr(*arguments: str) -> dict[str, Any]:
    """Return what a command of Flower's says as JSON.

    Raises:
        ConfigError: it failed; the message is Flower's.
    """
    done = subprocess.run([_command(), *arguments], capture_output=True, text=True, check=False)
    text = done.stdout[done.stdout.find("{") :]
    try:
        answer: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        answer = {}
    if done.returncode or not answer or answer.get("success") is False:
        said = answer.get("error-message") or done.stderr.strip() or done.stdout.strip() or "no reason given"
        raise ConfigError(f"flwr {arguments[0]} failed: {said}")
    return answer
