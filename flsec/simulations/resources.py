"""What an experiment's configuration means as objects: each is built when it is first asked for, and then kept."""

import copy
import functools
import importlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps.base import Attack
from flsec.client_apps.client_half import ClientHalf
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.parameters import parameters_of
from flsec.simulations.any_strategy import build_server_strategy
from flsec.simulations.data_resources import DataResources, Examples
from flsec.simulations.problems import Problem, Unread, blame_parameter
from flsec.simulations.schema import AttackEntry, Config, DefenseEntry, StrategyEntry
from flsec.simulations.start_model import load_start
from flsec.simulations.supplies import (
    SUPPLIED_TO_ATTACKS,
    SUPPLIED_TO_DEFENSES,
    SUPPLIED_TO_STRATEGIES,
    SuppliedToAttacks,
    SuppliedToDefenses,
    SuppliedToStrategies,
)
from flsec.strategies import Adversary, RobustStrategy
from flsec.strategies.base import FlowerStrategy, Weighting
from flsec.strategies.server_optimizer import defended
from flsec.tasks import CLASSIFICATION
from flsec.training import Training, pick_device

__all__ = ["Partial", "Resources", "StandIns", "resources_of", "resources_of_text", "wrap"]


class Resources(DataResources, SuppliedToDefenses, SuppliedToAttacks, SuppliedToStrategies):
    """The parts of one experiment that clients and server share.

    What attacks and defenses ask for by name are attributes. All but ``new_model`` and ``new_strategy`` return the same
    object each time, so nothing is read or drawn twice in a process; none of it changes in a run.

    Args:
        config: the experiment's configuration.

    Example:
        >>> from flsec.simulations.config import load_config, resolve_experiment
        >>> resources = Resources(load_config(resolve_experiment("quickstart")))
        >>> resources.num_classes, resources.input_shape
        (10, (1, 8, 8))
    """

    # --- model and training -----------------------------------------------------------------------------------

    @functools.cached_property
    def _initial_model(self) -> torch.nn.Module:
        return self._build_model()  # never handed out, so that it stays as it is

    def _build_model(self) -> torch.nn.Module:
        entry = self.config.model
        model: torch.nn.Module = blame_parameter(
            ("model",),
            entry.writable,
            build_model,
            entry.name,
            self.input_shape,
            self.num_classes,
            self.seed,
            vocabulary=self.vocabulary,
            **entry.params,
        )
        if entry.start is not None:
            blame_parameter(("model", "from"), (), load_start, model, Path(entry.start))
        return model

    def new_model(self) -> torch.nn.Module:
        """Return a model with the initial weights: by the seed alone, or trained ones; it is the caller's own."""
        try:
            return copy.deepcopy(self._initial_model)
        except (RuntimeError, TypeError):  # holds what cannot be copied, such as weights that are computed
            return self._build_model()

    @property
    def model_factory(self) -> Callable[[], torch.nn.Module]:
        """Makes the clients' model with its initial weights."""
        return self.new_model

    @functools.cached_property
    def client_model(self) -> torch.nn.Module:
        """The model of the clients at work in this process: each overwrites its weights."""
        return self.new_model()

    @property
    def training(self) -> Training:
        """How a client trains."""
        return self.config.training

    @functools.cached_property
    def device(self) -> torch.device:
        """Where clients train."""
        return blame_parameter(("simulation", "device"), (), pick_device, self.config.simulation.device)

    # --- attackers --------------------------------------------------------------------------------------------

    @functools.cached_property
    def adversaries(self) -> Adversaries | None:
        """Who attacks and when; None if nobody does."""
        return self._adversaries(self._candidates)

    def _adversaries(self, candidates: Sequence[int] | None) -> Adversaries | None:
        if self.config.adversaries is None:
            return None
        settings = {**self.config.adversaries, "candidates": candidates}
        supplied = {"num_clients": self.config.simulation.num_clients, "num_rounds": self.num_rounds, "seed": self.seed}
        return blame_parameter(("adversaries",), settings, Adversaries, **settings, **supplied)

    @property
    def _candidates(self) -> Sequence[int] | None:
        """Who may attack: as the file says, or the clients that hold samples of the class that it names."""
        said: Sequence[int] | Mapping[str, int] | None = (self.config.adversaries or {}).get("candidates")
        if not isinstance(said, Mapping):
            return said
        label, labels = said["holders_of"], self.dataset.train.labels
        holders = [client for client in range(self.num_clients) if (labels[self.partition[client]] == label).any()]
        if not holders:
            raise Problem(
                ("adversaries", "candidates"),
                f"no client holds a sample of class {label}; there are classes 0 to {self.num_classes - 1}. For "
                f"example: candidates: {{holders_of: {int(labels[0])}}}",
            )
        return holders

    @functools.cached_property
    def attacks(self) -> list[Attack]:
        """The attacks in the order of the file, carried out by ``adversaries``."""
        return [self.attack(index) for index in range(len(self.config.attacks))]

    @functools.cached_property
    def _attacks_made(self) -> dict[int, Attack]:
        return {}

    def attack(self, index: int) -> Attack:
        """Return the attack at a place in the file, always the same one."""
        if index not in self._attacks_made:
            self._attacks_made[index] = self._attack(index, self.config.attacks[index])
        return self._attacks_made[index]

    def _attack(self, index: int, entry: AttackEntry) -> Attack:
        asked = _asked(entry.member, SUPPLIED_TO_ATTACKS)
        if "adversaries" not in asked:
            raise Problem(
                ("attacks", index, "name"),
                f"{entry.name} cannot be told who attacks, so everybody would. Have its constructor take **options and "
                "pass them on to Attack.",
            )
        supplied = {name: self.supplied(name) for name in asked}
        attack: Attack = blame_parameter(("attacks", index), entry.writable, entry.member, **supplied, **entry.params)
        return attack

    def supplied(self, name: str) -> Any:
        """Return what an attack asks for by name."""
        return getattr(self, name)

    # --- clients and server -----------------------------------------------------------------------------------

    @functools.cached_property
    def halves(self) -> list[ClientHalf]:
        """What the server's optimizer and then the defenses have their clients do, the innermost defense's first."""
        halves = []
        for entry in (self.config.strategy, *reversed(self.config.defenses)):
            path = getattr(entry.member, "client_half", None)
            if path is not None:
                module, _, name = path.partition(":")
                half = getattr(importlib.import_module(module), name)
                halves.append(half(**({"seed": self.seed} if "seed" in parameters_of(half) else {})))
        return halves

    def new_strategy(self) -> FlowerStrategy:
        """Return Flower's strategy inside the defenses, and those inside an ``Adversary`` where an attack needs one.

        Every client that it is shown takes part. It remembers its rounds, so every run needs one of its own.
        """
        strategy = defended(self.server_strategy(), self._with_defenses)
        if any(attack.poisons_cohort for attack in self.attacks):
            counts: Weighting = "uniform" if self.config.defenses else "examples"
            strategy = Adversary(strategy, attacks=self.attacks, weighting=counts)
        return strategy

    def server_strategy(self) -> FlowerStrategy:
        """Return Flower's strategy without any defense."""
        return self._server_strategy(self.config.strategy, self.clients_per_round)

    def plain_strategy(self) -> FlowerStrategy:
        """Return one that averages, whatever the file has, to try a defense around it."""
        return self._server_strategy(StrategyEntry(), 1)

    def _server_strategy(self, entry: StrategyEntry, clients_per_round: int) -> FlowerStrategy:
        supplied = {name: getattr(self, name) for name in _asked(entry.member, SUPPLIED_TO_STRATEGIES)}
        server: FlowerStrategy = blame_parameter(
            ("strategy",),
            entry.writable,
            build_server_strategy,
            entry.name,
            entry.member,
            {**entry.params, **supplied},
            clients_per_round,
        )
        return server

    def _with_defenses(self, strategy: FlowerStrategy) -> FlowerStrategy:
        for index, defense in reversed(list(enumerate(self.config.defenses))):
            strategy = wrap(strategy, index, defense, self)
        return strategy

    # --- numbers ----------------------------------------------------------------------------------------------

    @property
    def num_rounds(self) -> int:
        """How many rounds the run has."""
        return self.config.simulation.num_rounds

    @property
    def num_clients(self) -> int:
        """How many clients there are."""
        return self.config.simulation.num_clients

    @property
    def clients_per_round(self) -> int:
        """How many clients a round asks."""
        return self.config.simulation.cohort_size


class Partial(Resources):
    """The same of settings of which some are wrong, to find what else is: attacks are tried out by any adversaries."""

    def supplied(self, name: str) -> Any:
        """Return what an attack asks for by name."""
        try:
            return super().supplied(name)
        except (ConfigError, Unread):
            if name != "adversaries":
                raise
            return Adversaries(num_clients=1, ids=[0])


class _AnyText:
    """A vocabulary in which every text is one token of its own: what words an attack can use, only the data tell."""

    size, pad, unknown = 2**31, 0, 1
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Return the text's token."""
        return [2 + zlib.crc32(text.encode()) % (self.size - 2)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return numbers."""
        return " ".join(map(str, tokens))


class StandIns(Resources):
    """The same before any data are read, for checking settings: small data of no meaning in place of the real.

    Args:
        real: what is taken from there where it does not depend on the data.
    """

    root_data = (torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    client_samples: Mapping[int, Examples] = {}  # type: ignore[assignment]
    auxiliary_data = (torch.zeros(2, 1), torch.arange(2))
    input_shape = (1, 8, 8)
    num_classes = 10
    task = CLASSIFICATION
    vocabulary = _AnyText()
    device = torch.device("cpu")

    def __init__(self, real: Resources):
        super().__init__(real.config)
        self._real = real

    @property
    def model_factory(self) -> Callable[[], torch.nn.Module]:
        """Makes a small model for samples of the shape above."""
        return lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, self.num_classes))

    @functools.cached_property
    def adversaries(self) -> Adversaries | None:
        """The real ones, or others where who holds what must be known first."""
        return self._adversaries(None) if self._attackers_depend_on_data else self._real.adversaries

    @property
    def _attackers_depend_on_data(self) -> bool:
        try:
            return isinstance((self.config.adversaries or {}).get("candidates"), Mapping)
        except Unread:
            return False

    def attack(self, index: int) -> Attack:
        """Return the real attack, unless it asks for what depends on the data."""
        depends = _DATA_DEPENDENT & {*_asked(self.config.attacks[index].member, SUPPLIED_TO_ATTACKS)}
        return super().attack(index) if depends or self._attackers_depend_on_data else self._real.attack(index)

    def supplied(self, name: str) -> Any:
        """Return what an attack asks for by name."""
        of_the_real = name == "adversaries" and not self._attackers_depend_on_data
        return self._real.supplied(name) if of_the_real else super().supplied(name)


_DATA_DEPENDENT = frozenset(vars(StandIns)) - {"adversaries", "attack", "supplied", "_attackers_depend_on_data"}


def wrap(strategy: FlowerStrategy, index: int, entry: DefenseEntry, resources: Resources) -> RobustStrategy:
    """Return a defense around a strategy, with what it asks for.

    Args:
        strategy: what is inside.
        index: the defense's place in the file.
        entry: its name and parameters.
        resources: what is supplied.
    """
    asked = _asked(entry.member, SUPPLIED_TO_DEFENSES)
    if "adversaries" in asked and resources.adversaries is None:
        raise Problem(
            ("defenses", index),
            f"{entry.name} needs to know the adversaries, and there are none. For example: "
            "adversaries: {fraction: 0.2}",
        )
    supplied = {"strategy": strategy, **{name: getattr(resources, name) for name in asked}}
    wrapper: RobustStrategy = blame_parameter(
        ("defenses", index), entry.writable, entry.member, **supplied, **entry.params
    )
    return wrapper


def _asked(member: Any, offered: tuple[str, ...]) -> list[str]:
    return [name for name in offered if name in parameters_of(member)]


# --- one for each experiment and process ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Experiment:
    """A configuration that is equal to another if all settings are, also where they were read elsewhere."""

    text: str
    config: Config = field(compare=False)


@functools.lru_cache(maxsize=2)
def _resources_of(experiment: _Experiment) -> Resources:
    return Resources(experiment.config)


def resources_of(config: Config) -> Resources:
    """Return this process's resources of an experiment; its check, its run and its clients share them.

    Example:
        >>> from flsec.simulations.config import load_config, resolve_experiment
        >>> config = load_config(resolve_experiment("quickstart"))
        >>> resources_of(config) is resources_of(config)  # a process reads the data once
        True
    """
    return _resources_of(_Experiment(json.dumps(config.to_dict()), config))


@functools.lru_cache(maxsize=2)
def resources_of_text(config_json: str) -> Resources:
    """Return the same for a configuration's text; a worker process builds them for its first client."""
    return resources_of(Config.model_validate(json.loads(config_json)))
