"""What halves of defenses have in common: randomness of a round, hooks in a client's training."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from flsec.client_apps._around import client_id_of, round_of
from flsec.errors import ConfigError
from flsec.randomness import generator
from flsec.training import StepHook

__all__ = ["round_generator", "step_hook"]


def round_generator(client: Any, config: Mapping[str, Any], seed: int, name: str) -> torch.Generator:
    """Return random numbers that depend on seed, round and client alone, and are independent between clients.

    Args:
        client: the client at work.
        config: the fit configuration that the server sent.
        seed: the seed of the run.
        name: who asks; part of the seed, and of the message.

    Raises:
        ConfigError: client or round are not known; all clients would draw the same numbers.
    """
    client_id, round_ = client_id_of(client), round_of(config)
    if client_id < 0 or round_ < 1:
        raise ConfigError(
            f"{name} draws other random numbers for each client and round; got client {client_id}, round {round_}. "
            "Give the client an attribute client_id, its partition id; flsec's strategies send 'server-round'."
        )
    return generator(seed, round_, client_id, name)


@contextlib.contextmanager
def step_hook(client: Any, hook: StepHook, name: str) -> Iterator[None]:
    """Have a client call ``hook`` around each step of its training, for a while, after hooks that it has already.

    Args:
        client: has an attribute ``step_hooks``, as ``TorchClient`` has.
        hook: the hook.
        name: who does this, for the message.

    Raises:
        ConfigError: the client has no such attribute.
    """
    if not hasattr(client, "step_hooks"):
        raise ConfigError(
            f"{name} acts on each step of local training, and {type(client).__name__} has no step_hooks. Use "
            "flsec.client_apps.TorchClient, or set step_hooks = () and pass it on: "
            "flsec.training.train(..., hooks=self.step_hooks)."
        )
    before = client.step_hooks
    client.step_hooks = (*before, hook)
    try:
        yield
    finally:
        client.step_hooks = before
