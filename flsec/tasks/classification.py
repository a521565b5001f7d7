from dataclasses import dataclass
from typing import ClassVar

from flsec.tasks.base import Inputs, Labels, Task

__all__ = ["CLASSIFICATION", "Classification"]


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One of C classes for an image or a vector of features: cross-entropy, judged by accuracy.

    Inputs (n, ...) floats, labels (n,), logits (n, C).

    Example:
        >>> import torch
        >>> Classification().tallies(torch.eye(2), torch.tensor([0, 0]))
        {'accuracy': (tensor(1), 2)}

    Source: McMahan et al., AISTATS 2017, Sec. 3 (images); FedMLSecurity, Table 3.
    """

    inputs: ClassVar[Inputs] = "numbers"

    @property
    def labels(self) -> Labels:
        """One class an example."""
        return "class"


CLASSIFICATION = Classification()  # what is meant where no task is named
