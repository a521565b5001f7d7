"""A free rider with Adam's noise, on a client."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from flsec._numbers import widened
from flsec.attacks.adam_free_rider import Decay, adam_free_rider, moving_squares
from flsec.attacks.lazy_worker import lazy_worker
from flsec.client_apps._around import NDArrays, round_of
from flsec.client_apps._free_rider import FreeRider
from flsec.client_apps._previous_model import may_attack
from flsec.client_apps.base import AttackContext
from flsec.client_apps.client_state import ClientState
from flsec.parameters import NonNegative

__all__ = ["AdamFreeRider"]


class AdamFreeRider(FreeRider):
    """Pretend to have trained: the global model's last step once more, with noise of the size of its recent steps.

    Each weight's noise follows Adam's second moment of the steps that the global model has taken in it, so that it
    dies down as training converges, as honest updates do; a fixed standard deviation gives a free rider away.

    Args:
        scale: of the noise; 1: as large as the steps are in the root mean square.
        beta_2: how much of earlier steps stays from one to the next. Adam's own 0.999 is for thousands of steps.
        options: see ``Attack``.

    A client that may attack in some round keeps the last global model that it got and the squares of its steps, also in
    rounds in which it behaves; see ``ClientState``. In the first round that it is asked in, there is nothing to compare
    with, and it sends the global model back.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> @AdamFreeRider(scale=0.0)
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return parameters, 10, {}
        >>> client = Client()
        >>> _ = client.fit([np.array([1.0])], {"server-round": 1})
        >>> client.fit([np.array([1.5])], {"server-round": 2})[0]  # the model's last step, 0.5, once more
        [array([2.])]

    Source: Lin, Du and Liu, "Free-riders in Federated Learning: Attacks and Defenses", 2019 (delta weights with noise);
    see ``flsec.attacks.adam_free_rider``.
    """

    def __init__(self, *, scale: NonNegative = 1.0, beta_2: Decay = 0.9, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale
        self.beta_2 = beta_2

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the upload that took no training."""
        known, random = _known.get(), context.generator("adam_free_rider")
        if known is None:
            return lazy_worker(global_, local, generator=random)
        return adam_free_rider(
            global_,
            local,
            widened(known.previous),
            known.squares,
            random,
            count=known.steps,
            rounds=max(1, context.round - known.round),
            beta_2=self.beta_2,
            scale=self.scale,
        )

    @contextlib.contextmanager
    def in_round(self, client: Any, parameters: Callable[[], NDArrays], config: Mapping[str, Any]) -> Iterator[None]:
        """Have the last global model and the squares of its steps at hand, and keep this round's."""
        if not may_attack(self.adversaries, client):
            yield
            return
        state, now, round_ = ClientState(client, config), parameters(), round_of(config)
        known = self._with_step(state.load("adam_free_rider"), now, round_)
        squares = [np.zeros(np.shape(array)) for array in now] if known is None else known.squares
        count = 0 if known is None else known.steps
        state.save("adam_free_rider", [np.array(round_), np.array(count), *now, *squares])
        token = _known.set(known)
        try:
            yield
        finally:
            _known.reset(token)

    def _with_step(self, kept: NDArrays | None, now: NDArrays, round_: int) -> "_Known | None":
        """Return what is known once the step to this round's model is counted; None before there is one."""
        if kept is None:
            return None
        when, count, arrays = int(kept[0]), int(kept[1]), kept[2:]
        previous, squares = arrays[: len(now)], arrays[len(now) :]
        between = max(1, round_ - when)
        moved = moving_squares(squares, widened(now), widened(previous), rounds=between, beta_2=self.beta_2)
        return _Known(when, previous, moved, count + 1)


class _Known(NamedTuple):
    round: int
    previous: NDArrays
    squares: NDArrays
    steps: int


# What the client at work knows of earlier rounds, for ``poison_update``, which does not see the client.
_known: contextvars.ContextVar[_Known | None] = contextvars.ContextVar("known", default=None)
