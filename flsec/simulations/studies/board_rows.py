"""Whether a defense of somebody else's may have a row: it keeps what every defense here keeps."""

from flsec.errors import ConfigError
from flsec.strategies import DEFENSES
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.testing import check_strategy, example

__all__ = ["check_contract"]


def check_contract(name: str) -> None:
    """Run the contract tests of a defense.

    Args:
        name: ``package.module:Name``.

    Raises:
        ConfigError: it is no defense, or a test fails; the message says which, and what was seen.
    """
    member = DEFENSES.get(name)

    def make(strategy: FlowerStrategy) -> RobustStrategy:
        defense: RobustStrategy = member(strategy, **example(member, strategy))
        return defense

    try:
        check_strategy(make)
    except LookupError as error:
        raise ConfigError(f"{name} cannot be tried out: {error}") from None
    except AssertionError as error:
        raise ConfigError(f"{name} fails the contract tests, so it gets no row: {error}") from None
