"""An experiment beside its twins, without the attack and without the defense: what one costs and the other saves."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flsec._files import replacing
from flsec._paths import leads_out
from flsec.errors import ConfigError
from flsec.metrics.paired import cost_of_defense, damage
from flsec.simulations import engine
from flsec.simulations.checks import has_needed_defense
from flsec.simulations.config import load_config, make_config
from flsec.simulations.numbers import dropped_in
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Config
from flsec.simulations.studies.comparison_plot import plot_comparison
from flsec.simulations.studies.missing_runs import finish_run

__all__ = ["PICTURE", "Comparison", "Twin"]

Row = dict[str, Any]
OnRound = Callable[[dict[str, Any]], None]

PICTURE = "comparison.png"
_TABLE = "comparison.json"
_SHORT = 60.0  # seconds of clients' training that a twin may take in this process, rather than start Ray again


@dataclass(frozen=True)
class Twin:
    """One line of a comparison.

    Attributes:
        label: what it is, such as ``"attacked, undefended"``.
        name: of its folder below ``twins`` in the experiment's; None: it is the experiment itself.
        config: its settings.
    """

    label: str
    name: str | None
    config: Config


@dataclass(frozen=True)
class Comparison:
    """An experiment and its twins, which have the same seed, data, model and clients.

    Attributes:
        config: the experiment.
        twins: what is compared, the experiment last.
    """

    config: Config
    twins: tuple[Twin, ...]

    @classmethod
    def of(cls, config: Config) -> "Comparison":
        """Return what an experiment is compared with, every twin checked.

        With an attack and a defense: attack-free and undefended, attacked and undefended, attacked and defended. With
        an attack alone: attack-free, attacked. With a defense alone: undefended, defended, both without attackers.

        Raises:
            ConfigError: it has neither, or its attack cannot be carried out without its defense.
        """
        attacked, defended = bool(config.attacks), bool(config.defenses)
        if not attacked and not defended:
            raise ConfigError(
                "--compare: the experiment has neither an attack nor a defense, so there is nothing to compare. Add "
                "one, such as --set 'defenses=[{name: median}]', or leave it out: --no-compare."
            )
        twins = []
        if attacked:
            twins.append(Twin("attack-free", "attack_free", _without(config, "attacks", "defenses")))
        if defended:
            label = "attacked, undefended" if attacked else "undefended"
            twins.append(Twin(label, "undefended", _without(config, "defenses")))
        label = ", ".join(["attacked"] * attacked + ["defended"] * defended)
        return cls(config, (*twins, Twin(label, None, config)))

    def finish(
        self,
        folder: RunFolder,
        *,
        on_twin: Callable[[int, Twin], OnRound] = lambda number, twin: lambda record: None,
        verbose: bool = False,
    ) -> list[Row]:
        """Run the twins that have not been run yet, each in a folder of its own, and compare them.

        Engines agree to the bit, so that a twin whose clients train for a minute at most runs in this process, where
        an experiment on Ray would start it anew.

        Args:
            folder: of the experiment, which is finished; the twins are below ``twins`` there, the table goes into
                ``comparison.json`` and the picture into ``comparison.png``.
            on_twin: called with a twin's number and the twin; returns what is called with each of its rounds.
            verbose: also show Flower's and Ray's messages on the terminal.

        Returns:
            A row for each twin, as in ``comparison.json``.

        Raises:
            Interrupted: the user stopped it; the same again goes on.
        """
        rounds: dict[str, list[Row]] = {}
        rows = []
        for number, twin in enumerate(self.twins):
            run = folder
            if twin.name is not None:
                run = _finish(_beside(twin.config, twin.name, folder), on_twin(number, twin), verbose)
            rounds[twin.label] = run.rounds()
            rows.append(_row(twin.label, run))
        said = self.title(rounds[self.twins[-1].label])
        with replacing(folder.path / _TABLE) as file:
            file.write((json.dumps({"title": said, "runs": rows}, indent=2) + "\n").encode())
        plot_comparison(rounds, folder.path / PICTURE, said)
        return rows

    def title(self, rounds: Sequence[Row]) -> str:
        """Return who attacks how, and what defends.

        Args:
            rounds: the experiment's records.
        """
        parts = []
        if self.config.attacks:
            parts.append(f"{_share(rounds)} attack by {_names(self.config.attacks)}")
        if self.config.defenses:
            parts.append(f"defended by {_names(self.config.defenses)}")
        return f"{self.config.name}: {', '.join(parts)}"

    def verdict(self, rows: Sequence[Row]) -> str:
        """Return in a sentence what the attack costs, and what the defense changes about that."""
        accuracy = [row["accuracy"] for row in rows]
        defense = _names(self.config.defenses)
        if not self.config.attacks:
            return f"Where nobody attacks, {defense} costs {cost_of_defense(accuracy[1], accuracy[0]):.3f} of accuracy."
        taken = [_taken(damage(attacked, accuracy[0])) for attacked in accuracy[1:]]
        said = f"The attack takes {taken[0]} of accuracy"
        return f"{said}, and {taken[1]} where {defense} defends." if self.config.defenses else f"{said}."


def _taken(cost: float) -> str:
    return f"{cost:.3f}" if cost >= 0 else f"nothing (it ends {-cost:.3f} above)"


def _names(entries: Iterable[Any]) -> str:
    return " and ".join(entry.name for entry in entries)


def _without(config: Config, *sections: str) -> Config:
    """Return the same experiment without its defenses, or without attacks and attackers."""
    settings = {**config.to_dict(), **{section: [] for section in sections}}
    if "attacks" not in sections:  # one that has no effect without the defense is not there either, if others are
        undefended = config.model_copy(update={"defenses": ()})
        left = [has_needed_defense(undefended, entry) for entry in config.attacks]
        if any(left):
            settings["attacks"] = list(itertools.compress(settings["attacks"], left))
    else:
        settings["adversaries"] = None
        settings["simulation"] = {**settings["simulation"], "adversaries_per_round": None}
    settings["output"] = {**settings["output"], "compare": False}
    try:
        return make_config(settings, config.origin)
    except ConfigError as error:
        raise ConfigError(
            f"--compare: without its {' and '.join(sections)} the experiment cannot run, so that there is nothing to "
            f"compare with; run it alone: --no-compare. {error}"
        ) from None


def _beside(config: Config, name: str, folder: RunFolder) -> Config:
    """Return a twin's settings: its place, and this process as its engine where its clients train for a short time."""
    place = folder.path / "twins"
    place = place.absolute() if leads_out(str(place)) else place
    simulation, output = config.simulation, config.output.model_copy(update={"folder": str(place)})
    if simulation.engine != "inprocess" and not simulation.num_gpus and simulation.ray_address is None:
        at_once = max(1.0, (os.cpu_count() or 1) / simulation.client_resources.num_cpus)
        if at_once * sum(record["seconds"]["clients"] for record in folder.rounds() if record["round"]) <= _SHORT:
            simulation = simulation.model_copy(update={"engine": "inprocess", "device": "cpu"})
    return config.model_copy(update={"name": name, "output": output, "simulation": simulation})


def _finish(config: Config, on_round: OnRound, verbose: bool) -> RunFolder:
    """Return the folder of a finished twin, which may have been run when the experiment had fewer rounds."""
    path = Path(config.output.folder) / config.name
    if (path / "config.yaml").is_file():
        earlier = load_config(path / "config.yaml")
        if earlier.simulation.num_rounds < (rounds := config.simulation.num_rounds):
            engine.resume(path, rounds=rounds, on_round=on_round, verbose=verbose)
    return finish_run(config, on_round=on_round, verbose=verbose)


def _row(label: str, run: RunFolder) -> Row:
    summary = json.loads((run.path / "summary.json").read_text())
    attack = {name: values["last"] for name, values in summary["attack"].items()}
    row = {"run": label, "accuracy": summary["accuracy"], "best_accuracy": summary["best_accuracy"], "attack": attack}
    return {**row, **decided(run.rounds()), "seconds": summary["seconds"], "folder": str(run.path)}


def decided(rounds: Iterable[Row]) -> dict[str, int | None]:
    """Return how many clients the defenses dropped, summed over all rounds, and of how many.

    Args:
        rounds: a run's records.

    Returns:
        ``dropped_attackers`` of ``attackers``, ``dropped_honest`` of ``honest``; the dropped are None where no defense
        judges clients.
    """
    trained = [record for record in rounds if record["round"] > 0]
    hostile = [len(record["adversaries"] or ()) for record in trained]
    dropped = [counts for record in trained if (counts := dropped_in(record)) is not None]
    return {
        "dropped_attackers": sum(counts[0] for counts in dropped) if dropped else None,
        "attackers": sum(hostile),
        "dropped_honest": sum(counts[1] for counts in dropped) if dropped else None,
        "honest": sum(len(record["sampled"]) for record in trained) - sum(hostile),
    }


def _share(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of a round's clients attack, such as "8 of 20 clients" or "3 of 12 clients in 2 of 4 rounds"."""
    trained = [record for record in rounds if record["round"] > 0]
    hostile = [len(record["adversaries"] or ()) for record in trained]
    hit = [count for count in hostile if count]
    said = f"{_range(hit or hostile)} of {_range([len(record['sampled']) for record in trained])} clients"
    return said if len(hit) in (0, len(trained)) else f"{said} in {len(hit)} of {len(trained)} rounds"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
