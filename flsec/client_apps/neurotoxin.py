"""Neurotoxin on a client."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flsec._numbers import widened
from flsec.attacks.neurotoxin import neurotoxin, rarely_used
from flsec.client_apps._around import FitResult, HonestFit, NDArrays
from flsec.client_apps._previous_model import kept_model, may_attack, previous_model_kept
from flsec.client_apps._state import state_of_client
from flsec.client_apps.base import Attack, AttackContext
from flsec.parameters import OpenFraction

__all__ = ["Neurotoxin"]


class Neurotoxin(Attack):
    """Change only weights that honest clients hardly move, so that they do not undo what was planted.

    Stack it around a data attack, which plants: ``Neurotoxin()(BadNets(target=9)(client))``; in a file, after it.

    Args:
        ratio: share of the weights that may change: those that the global model has moved least since this client
            last got it. The paper leaves out a few per cent.
        project: ``"update"``: what was trained is put back to the global model elsewhere. ``"gradient"``: so is every
            step of training, as in the paper, which finds better weights within the allowed ones; the client must then
            call ``step_hooks`` in its training, as ``TorchClient`` does.
        options: see ``Attack``.

    A client that may attack in some round keeps the last global model that it got, also in rounds in which it behaves;
    see ``ClientState``. In the first round that it is asked in there is none, and its own update stands for the
    others': its largest steps are put back. The paper's attackers see the last benign update; here it is the server's,
    in which their own is mixed.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``, or the client has no ``step_hooks``.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> @Neurotoxin(ratio=0.5)
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1.0], 10, {}
        >>> client = Client()
        >>> _ = client.fit([np.array([0.0, 0.0])], {"server-round": 1})
        >>> client.fit([np.array([0.1, 5.0])], {"server-round": 2})[0]  # the second weight is one that others move
        [array([1.1, 5. ])]

    Source: Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022.
    """

    def __init__(
        self, *, ratio: OpenFraction = 0.95, project: Literal["update", "gradient"] = "update", **options: Any
    ) -> None:
        super().__init__(**options)
        self.ratio = ratio
        self.project = project

    @property
    def needs_client(self) -> bool:
        """Whether local training itself is changed."""
        return self.project == "gradient"

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of an attacking client, each step of it masked where ``project`` says so."""
        allowed = self._allowed([np.array(array) for array in parameters], client) if self.needs_client else None
        if allowed is None:
            return super().fit(client, honest_fit, parameters, config)
        from flsec.client_apps._gradient_mask import GradientMask  # training is torch's
        from flsec.client_apps._half_tools import step_hook

        with step_hook(client, GradientMask(allowed), type(self).__name__):
            return super().fit(client, honest_fit, parameters, config)

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return what was trained, on the allowed weights."""
        allowed = self._allowed(global_)
        if allowed is None:  # an honest update would move what this one moves most
            allowed = self._moved_least(local, global_)
        return neurotoxin(global_, local, allowed)

    def _allowed(self, global_: NDArrays, client: Any = None) -> Sequence[NDArray[Any]] | None:
        """Return which weights may change, if an earlier model is known."""
        kept = kept_model()
        return None if kept is None else self._moved_least(global_, kept[1], client)

    def _moved_least(self, now: NDArrays, before: NDArrays, client: Any = None) -> Sequence[NDArray[Any]]:
        state = state_of_client(self.state_arrays, now, (), client, type(self).__name__)
        return rarely_used(widened(now), widened(before), ratio=self.ratio, state=state)

    @contextlib.contextmanager
    def in_round(self, client: Any, parameters: Callable[[], NDArrays], config: Mapping[str, Any]) -> Iterator[None]:
        """Have the global model of the round before at hand, and keep this one's."""
        if not may_attack(self.adversaries, client):
            yield
            return
        with previous_model_kept(client, parameters, config, "neurotoxin"):
            yield
