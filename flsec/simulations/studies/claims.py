"""Claims of the papers as files: what a paper reports, the runs that decide it, and the statement to be decided."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from flsec.errors import ConfigError
from flsec.parameters import Count, parameters_of
from flsec.simulations.config import apply_override, make_config, resolve_experiment
from flsec.simulations.names import elsewhere, packaged_claims
from flsec.simulations.problems import Origin, Problem, as_yaml_data, blame_parameter, nearest, say_where
from flsec.simulations.run_names import check_folder_name
from flsec.simulations.schema import Config
from flsec.simulations.signatures import validate
from flsec.simulations.studies.statements import Statement, check_view, curves_of
from flsec.simulations.yaml_lines import dump, read

__all__ = [
    "Claim",
    "Form",
    "Size",
    "Verdict",
    "has_form",
    "load_claim",
    "packaged_claims",
    "read_again",
    "resolve_claims",
    "resolved_settings",
    "settings_hash",
    "settings_hash_of",
    "twin_of",
]

Size = Literal["small", "full", "quick"]
Verdict = Literal["comes out", "does not come out", "open"]

# Where a run goes and what drives it; engines give the same numbers.
_NO_SETTINGS = ("name", "seed", "output")
_OUTPUT = {"keep_checkpoints": 1, "checkpoint_every": 10, "plots": False}  # alike in claims that share a run
_SENTENCE = tuple(Statement.model_fields)
_MACHINERY = ("engine", "client_resources", "init_args", "ray_address", "client_timeout", "device")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Form(_Section):
    """One size of a claim: an experiment, the curves that change it, and seeds.

    Attributes:
        why: what is smaller than in the paper, and why the claim can be decided all the same.
        experiment: as for ``flsec run``, or the name of a packaged one; by default ``small``'s.
        changes: {setting: value} in all curves, such as ``simulation.num_rounds: 5``.
        curves: {name: {setting: value}}; by default ``small``'s. A list of names takes these from ``small``.
        seeds: one run of each curve for each; by default ``small``'s.
        statements: instead of the claim's.
    """

    why: str = Field(min_length=1, examples=["20 of 100 rounds: the order is that of the last 10"])
    experiment: str | dict[str, Any] | None = Field(default=None, examples=["quickstart"])
    changes: dict[str, Any] = Field(default={}, examples=[{"simulation.num_rounds": 5}])
    curves: dict[str, dict[str, Any]] | list[str] | None = Field(default=None, examples=[{"none": {"defenses": []}}])
    seeds: tuple[Count, ...] | None = Field(default=None, strict=False, min_length=1, examples=[[1, 2, 3]])
    statements: tuple[Statement, ...] | None = Field(
        default=None, strict=False, min_length=1, examples=[[{"order": ["attacked", "free"]}]]
    )


class ClaimFile(_Section):
    """What the file of a claim may say.

    Attributes:
        title: in a few words.
        place: in the paper: figure, table or section.
        says: what the paper says, in a sentence or two.
        paper: {measure: {curve: number}} as far as the paper prints numbers.
        measure: what is measured: ``accuracy``, ``loss``, a measure of the task, the success of an attack, or
            ``precision``, ``recall`` and ``false_positive_rate`` of the innermost defense's verdicts up to that round.
        also: measures that are kept beside it.
        of: what is made of a curve over the rounds; see ``flsec.simulations.studies.statements``.
        statements: all hold, or the claim does not come out.
        small: the size that two cores run in well under an hour.
        full: the paper's.
        quick: in seconds, for continuous integration, where it has to come out; on data that need no files.
        weighting: of every defense that does not say; undefended runs weight by examples.
        unequal_weighting: why curves may differ in their weighting; otherwise they may not.
        without_twins: why there are no attack-free runs of the defenses that are attacked; otherwise they are added.
        figure: how the claim is drawn: curves over rounds, bars, or a line over curves whose names are numbers.
        expected: the verdict that is known beforehand.
        reason: with ``expected``: why it does not come out, or is open.
    """

    title: str = Field(min_length=1)
    place: str = Field(min_length=1, examples=["Fig. 5"])
    says: str = Field(min_length=1)
    paper: dict[str, dict[str, float]] = Field(default={}, strict=False, examples=[{"accuracy": {"krum": 0.88}}])
    measure: str = "accuracy"
    also: tuple[str, ...] = Field(default=(), strict=False, examples=[["loss"]])
    of: str = "last"
    statements: tuple[Statement, ...] = Field(strict=False, min_length=1, examples=[[{"order": ["attacked", "free"]}]])
    small: Form = Field(examples=[{"why": "fewer rounds"}])
    full: Form | None = Field(default=None, examples=[{"why": "the paper's"}])
    quick: Form | None = Field(default=None, examples=[{"why": "digits"}])
    weighting: Literal["examples", "uniform"] = "examples"
    unequal_weighting: str | None = None
    without_twins: str | None = None
    figure: Literal["curves", "bars", "line"] = "curves"
    expected: Verdict | None = None
    reason: str | None = None

    _origin: Origin = PrivateAttr(default=Origin("<claim>"))


@dataclass(frozen=True)
class Claim:
    """A claim in one size, complete and checked.

    Attributes:
        name: ``paper/claim``.
        size: which form.
        file: what the file says.
        curves: {name: configuration with the first seed}; attack-free twins last.
        seeds: one run of each curve for each.
        statements: to be decided.
        why: what the form says about itself.
    """

    name: str
    size: Size
    file: ClaimFile
    curves: Mapping[str, Config]
    seeds: tuple[int, ...]
    statements: tuple[Statement, ...]
    why: str

    @property
    def expected(self) -> Verdict | None:
        """The verdict that is known beforehand."""
        return "comes out" if self.size == "quick" else self.file.expected

    @property
    def measures(self) -> tuple[str, ...]:
        """All that is kept: the claim's measure first, then those of statements, of the paper's numbers, and others."""
        others = (s.measure for s in self.statements if s.measure is not None)
        return tuple(dict.fromkeys([self.file.measure, *others, *self.file.paper, *self.file.also]))

    def runs(self, folder: Path, machinery: Mapping[str, Any] | None = None) -> dict[tuple[str, int], Config]:
        """Return the claim's runs.

        Args:
            folder: each goes into ``folder/SETTINGS-SEED``, so that claims share the runs that several ask for.
            machinery: changes of ``simulation`` that change no number, such as ``{"engine": "pooled"}``.

        Returns:
            {(curve, seed): configuration}.
        """
        runs = {}
        for curve, config in self.curves.items():
            output = config.output.model_copy(update={"folder": str(folder)})
            simulation = config.simulation.model_copy(update=dict(machinery or {}))
            for seed in self.seeds:
                name = f"{settings_hash_of(config)}-{seed}"
                changed = {"name": name, "seed": seed, "output": output, "simulation": simulation}
                runs[curve, seed] = config.model_copy(update=changed)
        return runs

    def needed(self, curve: str) -> tuple[str, ...]:
        """Return the measures that the statements ask of a curve."""
        about = [s for s in self.statements if any(curve in curves_of(term) for term in s.terms)]
        return tuple(dict.fromkeys(s.measure or self.file.measure for s in about))

    def paper_numbers(self, measure: str | None) -> Mapping[str, float]:
        """Return {curve: what the paper reports} of a measure; None: the claim's."""
        return self.file.paper.get(measure or self.file.measure, {})


def resolve_claims(name: str | None) -> list[str]:
    """Return the names of the claims that a user means: all, a paper's, or one.

    Raises:
        ConfigError: there is none.

    Example:
        >>> resolve_claims("siren") == [name for name in packaged_claims() if name.startswith("siren/")]
        True
    """
    claims = list(packaged_claims())
    chosen = [claim for claim in claims if name in (None, claim, claim.partition("/")[0])]
    if not chosen:
        if sentence := elsewhere(str(name), "claims", "papers"):
            raise ConfigError(sentence)
        known = [*dict.fromkeys(claim.partition("/")[0] for claim in claims), *claims]
        raise ConfigError(
            f"{name}: no claim has this name.{nearest(str(name), known)} `flsec reproduce --list` shows them all."
        )
    return chosen


def has_form(name: str, size: Size) -> bool:
    """Return whether the file of a packaged claim has a form.

    Example:
        >>> name = next(iter(packaged_claims()))
        >>> has_form(name, "small")
        True
    """
    data, _ = read(packaged_claims()[name])
    return data.get(size) is not None


def load_claim(name: str, size: Size = "small", *, path: Path | None = None) -> Claim:
    """Read a claim and check all that can be checked without data.

    Args:
        name: ``paper/claim``.
        size: which form.
        path: its file; None: the packaged one.

    Raises:
        ConfigError: something in the file cannot work, the claim has no such form, curves differ in their weighting
            and the file does not say why, or a statement cannot be decided.

    Example:
        >>> name = next(iter(packaged_claims()))
        >>> claim = load_claim(name)
        >>> claim.name == name, claim.size, len(claim.curves) > 1
        (True, 'small', True)
    """
    path = path or packaged_claims()[resolve_claims(name)[0]]
    data, lines = read(path)
    origin = Origin(str(path), lines)
    with say_where(origin):
        file: ClaimFile = validate(ClaimFile, {key: value for key, value in data.items() if value is not None})
        blame_parameter(("of",), (), check_view, file.of)
        if (file.reason is not None) != (file.expected in ("does not come out", "open")):
            raise Problem(("reason",), "goes with expected: does not come out, or expected: open; and these need it.")
        form = getattr(file, size)
        if form is None:
            raise Problem((), f"has no {size} form. Leave out --{size}, or write {size}: in the file.")
        form = _complete(form, file.small, size)
    curves = _with_twins({curve: _config(name, curve, form, file, origin) for curve in form.curves}, file)
    statements = form.statements or file.statements
    claim = Claim(name, size, file, curves, form.seeds, statements, form.why)
    with say_where(origin):
        _check_curves(claim)
        _check_weighting(claim)
    return claim


def _complete(form: Form, small: Form, size: Size) -> Any:
    """Return a form with what it leaves to ``small``."""
    missing = [key for key in ("experiment", "curves", "seeds") if getattr(small, key) is None]
    if missing:
        raise Problem(("small",), f"{missing[0]} is missing; the other forms take it from here.")
    if not isinstance(small.curves, dict) or not small.curves:
        raise Problem(("small", "curves"), "must map names to settings. For example: none: {defenses: []}")
    seeds = form.seeds or small.seeds
    if len(set(seeds or ())) < len(seeds or ()):
        raise Problem((size, "seeds"), f"has a seed twice; got {list(seeds or ())}. For example: [1, 2, 3]")
    curves = form.curves
    if not isinstance(curves, dict):
        unknown = [curve for curve in curves or () if curve not in small.curves]
        if unknown:
            raise Problem((size, "curves"), f"no curve {unknown[0]!r} in small.{nearest(unknown[0], small.curves)}")
        curves = {curve: small.curves[curve] for curve in curves or small.curves}
    inherited = {} if form.experiment is not None else {"experiment": small.experiment}
    changes = form.changes if form.experiment is not None else {**small.changes, **form.changes}
    return form.model_copy(update={**inherited, "changes": changes, "curves": curves, "seeds": seeds})


def _config(claim: str, curve: str, form: Any, file: ClaimFile, origin: Origin) -> Config:
    """Return a curve's configuration with the first seed; an error in it names the curve."""
    with say_where(origin):
        blame_parameter((curve,), (), check_folder_name, curve)
    try:
        if isinstance(form.experiment, str):
            data, _ = read(resolve_experiment(form.experiment))
        else:
            data = as_yaml_data(form.experiment)
        place = Origin(origin.file)
        for key, value in {**form.changes, **form.curves[curve]}.items():
            apply_override(data, f"{key}={dump(as_yaml_data(value), flow=True)}", place)
        _fix(data, file.weighting)
        return make_config({**data, "name": curve, "seed": form.seeds[0]}, place)
    except ConfigError as error:
        raise ConfigError(f"{origin.file}: the curve {curve} of {claim}: {error}") from None


def _fix(data: dict[str, Any], weighting: str) -> None:
    """Set what is alike in all runs of claims; what is no list or section is left for ``make_config`` to refuse."""
    for key in ("output", "simulation"):
        if data.get(key) is None:
            data[key] = {}
    if isinstance(data["output"], dict):
        data["output"] = {"evaluate_every": data["output"].get("evaluate_every", 1), **_OUTPUT}
    if isinstance(data["simulation"], dict):
        data["simulation"]["engine"] = "inprocess"
    defenses = data.get("defenses")
    for entry in defenses if isinstance(defenses, list) else []:
        if isinstance(entry, dict):
            entry.setdefault("weighting", weighting)


def _with_twins(curves: Mapping[str, Config], file: ClaimFile) -> dict[str, Config]:
    """Return the curves, and the attack-free twin of each attacked defense that is not among them."""
    complete = dict(curves)
    if file.without_twins is not None:
        return complete
    for name, config in curves.items():
        # An oracle, which knows who attacks, is the plain mean where nobody does.
        knows_who = any("adversaries" in parameters_of(entry.member) for entry in config.defenses)
        if config.defenses and config.attacks and not knows_who and twin_of(name, complete) is None:
            twin = f"{name}_attack_free"
            if twin in complete:
                raise ConfigError(f"{twin} is the name of the attack-free run of {name}, which it is not. Rename it.")
            complete[twin] = attack_free(config).model_copy(update={"name": twin})
    return complete


def attack_free(config: Config) -> Config:
    """Return the same run without those who attack."""
    simulation = config.simulation.model_copy(update={"adversaries_per_round": None})
    return config.model_copy(update={"attacks": (), "adversaries": None, "simulation": simulation})


def twin_of(curve: str, curves: Mapping[str, Config]) -> str | None:
    """Return the name of a curve's attack-free twin, if it is there."""
    wanted = attack_free(curves[curve]).model_copy(update={"name": ""})
    others = (name for name in curves if name != curve)
    return next((name for name in others if curves[name].model_copy(update={"name": ""}) == wanted), None)


def _check_curves(claim: Claim) -> None:
    for measure, reported in claim.file.paper.items():
        for curve in reported:
            if curve not in claim.curves and claim.size != "quick":
                raise Problem(("paper", measure), f"no curve {curve!r}.{nearest(curve, claim.curves)}")
    for index, statement in enumerate(claim.statements):
        numbers = claim.paper_numbers(statement.measure)
        place = (
            ("statements", index) if getattr(claim.file, claim.size).statements is None else (claim.size, "statements")
        )
        blame_parameter(place, _SENTENCE, statement.check, list(claim.curves), numbers)
    settings = {name: json.dumps(_settings(config), sort_keys=True) for name, config in claim.curves.items()}
    for name, text in settings.items():
        same = [other for other, their in settings.items() if other != name and their == text]
        if same:
            raise Problem((claim.size, "curves"), f"{name} and {same[0]} have the same settings. Keep one of them.")


def _check_weighting(claim: Claim) -> None:
    """Refuse curves whose clients count differently: what is compared would be the weighting as well."""
    found = {name: _weighting(config) for name, config in claim.curves.items()}
    kinds = {kind: name for name, kind in reversed(found.items())}
    if len(kinds) > 1 and claim.file.unequal_weighting is None:
        (a, curve_a), (b, curve_b) = list(kinds.items())[:2]
        raise Problem(
            (claim.size, "curves"),
            f"{curve_a} counts clients by {a}, {curve_b} by {b}, so the curves would differ in two things. Let all "
            "have the same weighting, or say why not in unequal_weighting: ...",
        )


def _weighting(config: Config) -> str:
    """Return how clients count: of an undefended run, by examples, as in FedAvg."""
    kinds = dict.fromkeys(str(entry.params.get("weighting", "examples")) for entry in config.defenses)
    return " and ".join(kinds) or "examples"


# --- what was measured, as data ----------------------------------------------------------------------------------


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that a number may depend on, all but the seed."""
    data = {key: value for key, value in config.to_dict().items() if key not in _NO_SETTINGS}
    data["simulation"] = {key: value for key, value in data["simulation"].items() if key not in _MACHINERY}
    data["evaluate_every"] = config.output.evaluate_every
    return data


def resolved_settings(claim: Claim) -> dict[str, Any]:
    """Return all settings of a claim: those that all curves share, and the rest of each curve."""
    return _grouped({name: _settings(config) for name, config in claim.curves.items()})


def read_again(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that were resolved earlier as they are resolved now: what came later has its default.

    Args:
        settings: as ``resolved_settings`` returned them.
    """
    every = {}
    for name, own in settings["curves"].items():
        whole = {**settings["common"], **own}
        output = {"evaluate_every": whole.pop("evaluate_every")}
        every[name] = _settings(Config.model_validate({"name": "recorded", **whole, "output": output}))
    return _grouped(every)


def _grouped(every: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    first = next(iter(every.values()))
    common = {key: value for key, value in first.items() if all(one[key] == value for one in every.values())}
    rest = {name: {k: v for k, v in one.items() if k not in common} for name, one in every.items()}
    return {"common": common, "curves": rest}


def settings_hash(claim: Claim) -> str:
    """Return what changes with any setting of any curve: 16 hexadecimal digits."""
    return _hash(resolved_settings(claim))


def settings_hash_of(config: Config) -> str:
    """Return what changes with any setting of a run that its numbers may depend on, but the seed."""
    return _hash(_settings(config))


def _hash(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
