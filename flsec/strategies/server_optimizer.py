"""What a server optimizer has that is more than a step: settings for clients, and a look at their updates."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from flsec.strategies.base import FlowerStrategy, RobustStrategy

__all__ = ["ServerOptimizer", "defended"]


class ServerOptimizer(RobustStrategy):
    """A server optimizer that is more than a Flower strategy: clients have a part in it, or updates another meaning.

    It is no defense; defenses go around it or inside. A subclass says in ``place`` where it stands: ``"outside"`` all
    defenses, where it makes of what clients sent what the defenses are to judge; or ``"inside"`` all of them, next to
    the Flower strategy, where it sees only what they have accepted. The other order is refused. Otherwise it is written
    as a defense is: stages, ``client_config``, ``client_half``, ``state_names``.

    Args:
        strategy: the strategy that takes the step, or for one outside also a defense.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: a defense stands on the wrong side of it. Others: see ``RobustStrategy``.

    Works on a round's (n, d) updates, or on one (d,) of them. From a file it is ``strategy: {name: ...}``, around
    FedAvg. Replies are screened as a defense screens them.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> class HalfStep(ServerOptimizer):
        ...     place = "inside"
        ...     def before_aggregation(self, cohort):
        ...         return cohort.with_updates(0.5 * cohort.updates)
        >>> play_rounds(HalfStep(FedAvg()), [[1.0], [3.0]])
        tensor([1.])
    """

    defends: ClassVar[bool] = False
    place: ClassVar[Literal["outside", "inside"] | None] = "outside"

    @property
    def judges_clients(self) -> bool:
        """Never."""
        return False

    def around(self, strategy: FlowerStrategy) -> Self:
        """Return the same optimizer around another strategy; this one is not to be used any more.

        Args:
            strategy: such as a defense around the strategy that this one was built around.

        Raises:
            ConfigError: they cannot stand in this order.
        """
        moved = copy.copy(self)
        moved.strategy = strategy
        moved._finish_construction()
        return moved


def defended(strategy: FlowerStrategy, defend: Callable[[FlowerStrategy], Any]) -> FlowerStrategy:
    """Return a server strategy with defenses where they belong: around it, or within an optimizer that is outside.

    Args:
        strategy: what takes the server's step.
        defend: puts defenses around a strategy, or returns it as it is.

    Raises:
        ConfigError: the defense refuses to stand there; see ``RobustStrategy``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import FedNova, Median
        >>> type(defended(FedAvg(), Median)).__name__
        'Median'
        >>> optimizer = defended(FedNova(FedAvg()), Median)  # which has to stay outside
        >>> type(optimizer).__name__, type(optimizer.strategy).__name__
        ('FedNova', 'Median')
    """
    if isinstance(strategy, ServerOptimizer) and strategy.place == "outside":
        return strategy.around(defend(strategy.strategy))
    wrapped: FlowerStrategy = defend(strategy)
    return wrapped
