"""More rounds for a run that was meant to have fewer."""

from collections.abc import Iterator

from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.simulations.config import make_config
from flsec.simulations.schema import Config

__all__ = ["extended"]


def extended(config: Config, rounds: int) -> Config:
    """Return an experiment's settings with more rounds, of which the first are the same.

    Args:
        config: the experiment.
        rounds: how many it is to have.

    Raises:
        ConfigError: it has that many already, or one of its rounds so far would have been another if it had been known
            how many there are.
    """
    now = config.simulation.num_rounds
    if rounds <= now:
        raise ConfigError(
            f"--rounds: must be more than the {now} rounds that the run has; got {rounds}. For example: --rounds "
            f"{2 * now}; to run some of them again, use --from-round."
        )
    for what in _looks_ahead(config):
        raise ConfigError(
            f"--rounds: this run cannot be extended, since {what}: the {now} rounds would have been others in a run of "
            f"{rounds}. Start a new one, with --set simulation.num_rounds={rounds}."
        )
    settings = config.to_dict()
    settings["simulation"]["num_rounds"] = rounds
    return make_config(settings, config.origin)


def _looks_ahead(config: Config) -> Iterator[str]:
    """Yield what depends on how many rounds there are.

    Attacks and defenses of flsec that ask for both ``training`` and ``num_rounds`` need these for the learning rate;
    whoever else asks for ``num_rounds`` may use it for anything.
    """
    if config.training.schedule == "triangular":
        yield "training.schedule triangular spreads over all rounds"
    if (config.adversaries or {}).get("last_round_only"):
        yield "adversaries.last_round_only depends on which round is the last"
    for entry in (config.strategy, *config.defenses, *config.attacks):
        asked = parameters_of(entry.member)
        ours = entry.member.__module__.startswith("flsec.")
        if "num_rounds" in asked and not (ours and "training" in asked):
            yield f"{entry.name} asks how many rounds there are"
