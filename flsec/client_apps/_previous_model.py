"""The global model that a client got the last time, for attacks that compare it with the present one."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps._around import NDArrays, client_id_of, round_of
from flsec.client_apps.client_state import ClientState

__all__ = ["kept_model", "may_attack", "previous_model_kept"]

# The round and the global model that the client at work kept, for ``poison_update``, which does not see the client.
_kept: contextvars.ContextVar[tuple[int, NDArrays] | None] = contextvars.ContextVar("kept", default=None)


@contextlib.contextmanager
def previous_model_kept(
    client: Any, parameters: Callable[[], NDArrays], config: Mapping[str, Any], name: str
) -> Iterator[None]:
    """Have the global model of the round before at hand, and keep this one's.

    Args:
        client: the client at work.
        parameters: gives what the server sent.
        config: the fit configuration that the server sent.
        name: who keeps it.
    """
    state = ClientState(client, config)
    kept = state.load(name)
    state.save(name, [np.array(round_of(config)), *parameters()])
    token = _kept.set(None if kept is None else (int(kept[0]), kept[1:]))
    try:
        yield
    finally:
        _kept.reset(token)


def kept_model() -> tuple[int, NDArrays] | None:
    """Return the round in which the client at work last got a model, and that model; None if it never did."""
    return _kept.get()


def may_attack(adversaries: Adversaries | None, client: Any) -> bool:
    """Return whether a client attacks in some round: only then it has something to keep."""
    return adversaries is None or client_id_of(client) in adversaries.pool()
