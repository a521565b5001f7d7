"""What a client's update can go through before a curious server sees it, each in several strengths."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Le
from pydantic import Field
from torch import Tensor

from flsec.aggregation.norm_clipping import norm_clipping
from flsec.aggregation.soteria import Percentile
from flsec.aggregation.top_k import top_k
from flsec.aggregation.weak_dp import weak_dp
from flsec.client_apps.client_half import ClientHalf
from flsec.client_apps.soteria_client import SoteriaClient
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive, PositiveCount, checked
from flsec.registry import Registry

__all__ = ["Averaging", "NormClipping", "Soteria", "Through", "TopK", "Unchanged", "WeakDP"]


_Share = Annotated[float, Gt(0), Le(1)]


class Through:
    """A change of updates on their way from clients to the server, in one or more strengths.

    Args:
        strengths: of the change, in the order in which they are to be measured.
    """

    strength: ClassVar[str] = ""  # what a strength is, for tables and plots

    def __init__(self, strengths: Sequence[float]) -> None:
        if not strengths:
            raise ConfigError(
                f"{self.strength} must hold at least one value, such as {self.strength}: [1].", parameter=self.strength
            )
        self.strengths = tuple(strengths)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls)

    def num_clients(self, strength: float) -> int:
        """Return how many clients' updates are mixed into what the server sees."""
        return 1

    def half(self, strength: float, seed: int) -> ClientHalf | None:
        """Return what a client does around its training, if anything."""
        return None

    def seen(self, updates: Tensor, strength: float, seed: int) -> Tensor:
        """Return the (d,) update that the server sees.

        Args:
            updates: (m, d), what the clients have made; m is ``num_clients``. Not modified.
            strength: one of ``strengths``.
            seed: of what is random.
        """
        return updates[0]


class Unchanged(Through):
    """The update as the client made it.

    Example:
        >>> Unchanged().strengths
        (0.0,)
    """

    def __init__(self) -> None:
        super().__init__([0.0])


class NormClipping(Through):
    """Scaled down to a largest L2 norm.

    Args:
        max_norm: the bounds, in parameter units.

    Raises:
        ConfigError: ``max_norm`` is empty.

    Example:
        >>> NormClipping(max_norm=[1.0, 0.1]).strengths
        (1.0, 0.1)

    Source: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, Sec. 4.
    """

    strength = "max_norm"

    def __init__(self, *, max_norm: Annotated[Sequence[Positive], Field(examples=[[1.0, 0.1]])]) -> None:
        super().__init__(max_norm)

    def seen(self, updates: Tensor, strength: float, seed: int) -> Tensor:
        """Return the clipped update."""
        return norm_clipping(updates, strength)[0]


class TopK(Through):
    """Only the entries of largest magnitude; the others are zero.

    Args:
        share: shares of the entries that stay.

    Raises:
        ConfigError: ``share`` is empty.

    Example:
        >>> TopK(share=[0.1, 0.01]).strengths
        (0.1, 0.01)

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 1 (the operator top_k).
    """

    strength = "share"

    def __init__(self, *, share: Annotated[Sequence[_Share], Field(examples=[[0.1, 0.01]])]) -> None:
        super().__init__(share)

    def seen(self, updates: Tensor, strength: float, seed: int) -> Tensor:
        """Return the sparse update; at least one entry stays."""
        return top_k(updates[0], max(1, round(strength * updates.shape[1])))


class WeakDP(Through):
    """Clipped, and with Gaussian noise on every entry, put on by the client.

    Args:
        std: standard deviations of the noise, in parameter units.
        max_norm: bound on the L2 norm before the noise.

    Raises:
        ConfigError: ``std`` is empty.

    Example:
        >>> WeakDP(std=[0.001], max_norm=1.0).max_norm
        1.0

    Source: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, Sec. 4, where the server adds the noise to
    the aggregate.
    """

    strength = "std"

    def __init__(
        self, *, std: Annotated[Sequence[NonNegative], Field(examples=[[0.001, 0.01]])], max_norm: Positive = 5.0
    ) -> None:
        super().__init__(std)
        self.max_norm = max_norm

    def seen(self, updates: Tensor, strength: float, seed: int) -> Tensor:
        """Return the noisy update."""
        return weak_dp(updates, max_norm=self.max_norm, std=strength, seed=seed)


class Soteria(Through):
    """Without the columns of a fully connected layer that give the input away; see ``soteria_client``.

    Args:
        percentile: shares of the layer's input features that are pruned, in percent.
        layer: name of a ``torch.nn.Linear`` in the model; None: its last one.

    Raises:
        ConfigError: ``percentile`` is empty.

    Example:
        >>> Soteria(percentile=[40.0]).layer is None
        True

    Source: Sun et al., Soteria, CVPR 2021, Algorithm 1.
    """

    strength = "percentile"

    def __init__(
        self, *, percentile: Annotated[Sequence[Percentile], Field(examples=[[40, 60]])], layer: str | None = None
    ) -> None:
        super().__init__(percentile)
        self.layer = layer

    def half(self, strength: float, seed: int) -> ClientHalf:
        """Return Soteria's client half."""
        return SoteriaClient(percentile=strength, layer=self.layer, seed=seed)


class Averaging(Through):
    """The mean over several clients, as under secure aggregation; all their examples are to be rebuilt.

    Args:
        num_clients: over how many clients: the one at hand and those with the next ids.

    Raises:
        ConfigError: ``num_clients`` is empty.

    Example:
        >>> Averaging(num_clients=[2, 4]).strengths
        (2, 4)

    Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017.
    """

    strength = "num_clients"

    def __init__(self, *, num_clients: Annotated[Sequence[PositiveCount], Field(examples=[[2, 4]])]) -> None:
        super().__init__(num_clients)

    def num_clients(self, strength: float) -> int:
        """Return the strength."""
        return int(strength)

    def seen(self, updates: Tensor, strength: float, seed: int) -> Tensor:
        """Return the mean update."""
        return updates.mean(dim=0, dtype=torch.float64).to(updates)


def _is_through(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Through) and member is not Through


THROUGH = Registry("change of an update", __name__, _is_through, "a subclass of Through")
