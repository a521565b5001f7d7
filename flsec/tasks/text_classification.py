from dataclasses import dataclass
from typing import ClassVar

from flsec.tasks.base import Inputs, Labels, Task

__all__ = ["TextClassification"]


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
    """One of C classes for a text, given as tokens (n, L): cross-entropy, judged by accuracy.

    Example:
        >>> TextClassification().inputs, TextClassification().labels
        ('tokens', 'class')

    Source: FedMLSecurity, Table 3 (20 Newsgroups).
    """

    inputs: ClassVar[Inputs] = "tokens"

    @property
    def labels(self) -> Labels:
        """One class a text."""
        return "class"
