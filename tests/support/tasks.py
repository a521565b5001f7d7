"""A classification task with another loss."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from flsec.tasks import Classification


@dataclass(frozen=True, kw_only=True)
class WithLoss(Classification):
    function: Callable[[Tensor, Tensor], Tensor]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.function(outputs, labels)
