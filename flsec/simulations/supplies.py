"""What a run supplies to those attacks and defenses whose constructors ask for it, by the name of a parameter."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from flsec.attacks.adversaries import Adversaries
from flsec.data import Vocabulary
from flsec.tasks import Task
from flsec.training import Training

__all__ = [
    "NOT_IN_FILES",
    "SUPPLIED_TO_ATTACKS",
    "SUPPLIED_TO_DEFENSES",
    "SUPPLIED_TO_STRATEGIES",
    "SuppliedToAll",
    "SuppliedToAttacks",
    "SuppliedToDefenses",
    "SuppliedToStrategies",
]

Examples = tuple[Tensor, Tensor]  # (x, y)

NOT_IN_FILES = ("strategy", "on_verdict")  # of a wrapper: what it wraps, and functions, for which YAML has no notation


class SuppliedToAll(Protocol):
    """What both can ask for."""

    @property
    def adversaries(self) -> Adversaries | None:
        """Who attacks and when; None where nobody does."""

    @property
    def model_factory(self) -> Callable[[], torch.nn.Module]:
        """Makes the clients' model with its initial weights."""

    @property
    def training(self) -> Training:
        """How a client trains."""

    @property
    def task(self) -> Task:
        """What is learned."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Turns text into tokens and back; None where the data are no text."""

    @property
    def num_rounds(self) -> int:
        """How many rounds the run has."""

    @property
    def seed(self) -> int:
        """Of all that is random."""


class SuppliedToDefenses(SuppliedToAll, Protocol):
    """What a defense's constructor may ask for by name, beside the strategy that it wraps."""

    @property
    def root_data(self) -> Examples | None:
        """Samples that the server has for itself; clients do not hold them."""

    @property
    def client_samples(self) -> Mapping[int, Examples]:
        """The samples that each client has given to the server."""

    @property
    def client_sample_share(self) -> float:
        """Which share of its data each client gives to the server."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def num_classes(self) -> int:
        """How many labels there are."""


class SuppliedToAttacks(SuppliedToAll, Protocol):
    """What an attack's constructor may ask for by name."""

    @property
    def auxiliary_data(self) -> Examples:
        """Samples that clients do not hold; attackers copy them, the test set itself stays as it is."""

    @property
    def clients_per_round(self) -> int:
        """How many clients a round asks."""

    @property
    def device(self) -> torch.device:
        """Where clients train."""


class SuppliedToStrategies(Protocol):
    """What a server strategy's constructor, or the function that makes one, may ask for by name."""

    @property
    def training(self) -> Training:
        """How a client trains."""

    @property
    def num_rounds(self) -> int:
        """How many rounds the run has."""

    @property
    def num_clients(self) -> int:
        """How many clients there are."""


def _names(interface: type) -> tuple[str, ...]:
    owners = (owner for owner in interface.__mro__ if getattr(owner, "_is_protocol", False))
    return tuple(name for owner in owners for name, value in vars(owner).items() if isinstance(value, property))


SUPPLIED_TO_DEFENSES = _names(SuppliedToDefenses)
SUPPLIED_TO_ATTACKS = _names(SuppliedToAttacks)
SUPPLIED_TO_STRATEGIES = _names(SuppliedToStrategies)
