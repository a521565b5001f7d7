"""The lazy worker, or free rider, on a client."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from flsec._numbers import widened
from flsec.attacks.lazy_worker import lazy_worker
from flsec.client_apps._around import NDArrays
from flsec.client_apps._free_rider import FreeRider
from flsec.client_apps._previous_model import kept_model, may_attack, previous_model_kept
from flsec.client_apps.base import AttackContext
from flsec.parameters import NonNegative

__all__ = ["LazyWorker"]


class LazyWorker(FreeRider):
    """Pretend to have trained, and upload what can be had for free: earlier global models, and noise.

    Args:
        mode: ``"resend"``: the global model as it came, an update of zero. ``"noise"``: the same and noise.
            ``"delta"``: the global model moved on by as much as it has moved per round since this client last got it.
            In the first round that a client is asked in, there is nothing to compare with, and ``"delta"`` resends.
        std: standard deviation of the noise on each coordinate; null: 0.001 for ``"noise"``, else none. With
            ``"delta"``: Lin et al.'s advanced delta weights.
        decay: gamma: in round t the noise is std * t^-gamma, so that it shrinks like honest updates do.
        options: see ``Attack``.

    With ``"delta"`` a client that may attack in some round keeps the last global model that it got, also in rounds in
    which it behaves; see ``ClientState``. Its own training still runs, for the number of examples and the metrics, and
    its outcome is discarded.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> LazyWorker().poison_update([np.array([1.0])], [np.array([1.5])], AttackContext(round=1, client_id=0))
        [array([1.])]

    Source: Lin, Du and Liu, "Free-riders in Federated Learning: Attacks and Defenses", 2019 (delta weights, noise of
    0.001); Fraboni, Vidal and Lorenzi, AISTATS 2021 (plain and disguised free-riding, decay); FedMLSecurity, Table 2.
    """

    def __init__(
        self,
        *,
        mode: Literal["resend", "noise", "delta"] = "resend",
        std: NonNegative | None = None,
        decay: NonNegative = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.mode = mode
        self.std = (0.001 if mode == "noise" else 0.0) if std is None else std
        self.decay = decay

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the upload that took no training."""
        when, previous = kept_model() or (context.round, None)
        return lazy_worker(
            global_,
            local,
            previous_params=None if previous is None else widened(previous),
            rounds=max(1, context.round - when),
            std=self.std * max(1, context.round) ** -self.decay,
            generator=context.generator("lazy_worker"),
        )

    @contextlib.contextmanager
    def in_round(self, client: Any, parameters: Callable[[], NDArrays], config: Mapping[str, Any]) -> Iterator[None]:
        """Have the global model of the round before at hand, and keep this one's."""
        if self.mode != "delta" or not may_attack(self.adversaries, client):
            yield
            return
        with previous_model_kept(client, parameters, config, "lazy_worker"):
            yield
