from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import functional_call

from flsec.errors import ConfigError
from flsec.parameters import NonNegative, check_parameters
from flsec.tasks.base import Inputs, Labels, Task

__all__ = ["NAS"]


@dataclass(frozen=True, kw_only=True)
class NAS(Task):
    """Classification by a network whose architecture is learned beside its weights, as FedNAS does.

    Each batch is cut in two. Weights step along the gradient of the first half's loss; the architecture's parameters
    along that of the first half's plus ``validation_weight`` times that of the second half's. Both travel, and are
    averaged. A model has ``architecture_parameters()``, as ``flsec.models.DARTSCell``, whose ``architecture()`` says
    what was found. Judged by accuracy.

    Two simplifications: halves are halves of a batch, which the next epoch shuffles anew, where FedNAS splits a
    client's data once; and both kinds of parameters take the optimizer and the learning rate of ``training``, where
    FedNAS gives the architecture its own. A batch of one example has no second half.

    Args:
        validation_weight: lambda; 0: the architecture is trained like weights.

    Raises:
        ConfigError: a validation_weight that is negative.

    Inputs (n, ...) floats, labels (n,), logits (n, C).

    Example:
        >>> NAS().inputs, NAS().labels
        ('numbers', 'class')

    Source: He, Annavaram and Avestimehr, "FedNAS", 2020, Sec. 3 (the local search is MiLeNAS's); He et al.,
    "MiLeNAS", CVPR 2020, Eq. 4 and 5.
    """

    inputs: ClassVar[Inputs] = "numbers"
    validation_weight: NonNegative = 1.0

    def __post_init__(self) -> None:
        check_parameters(NAS, {"validation_weight": self.validation_weight}, name="task 'nas'")

    @property
    def labels(self) -> Labels:
        """One class an example."""
        return "class"

    def batch_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return loss(first half) + validation_weight * loss(second half), the latter with fixed weights."""
        cut = (len(x) + 1) // 2
        first = self.loss(self.outputs(model, x[:cut]), y[:cut])
        if cut == len(x):
            return first
        searched = {id(parameter) for parameter in _architecture(model)}
        fixed = {name: value.detach() for name, value in model.named_parameters() if id(value) not in searched}
        return first + self.validation_weight * self.loss(functional_call(model, fixed, (x[cut:],)), y[cut:])

    def check_model(self, model: nn.Module, x: Tensor, num_classes: int) -> None:
        """Raise ``ConfigError`` unless the model has an architecture to search, and is a classifier; see ``Task``."""
        if not hasattr(model, "architecture_parameters"):
            raise ConfigError(
                "must have a method architecture_parameters() for the task nas, and has none. For example: darts_cell"
            )
        super().check_model(model, x, num_classes)


def _architecture(model: Any) -> list[nn.Parameter]:
    parameters: list[nn.Parameter] = model.architecture_parameters()
    return parameters
