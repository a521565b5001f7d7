"""What clients learn: how a batch becomes a loss, and how predictions are judged. No Flower here."""

from typing import TYPE_CHECKING, Any

from flsec._lazy import export_lazily
from flsec.registry import Registry


def _is_task(member: Any) -> bool:
    import inspect

    from flsec.tasks.base import Task

    return isinstance(member, type) and issubclass(member, Task) and not inspect.isabstract(member)


TASKS = Registry("task", __name__, _is_task, "a subclass of flsec.tasks.Task")

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.tasks.base import NOT_COUNTED as NOT_COUNTED
    from flsec.tasks.base import Task as Task
    from flsec.tasks.base import fits_in_words as fits_in_words
    from flsec.tasks.base import misfit as misfit
    from flsec.tasks.causal_lm import CausalLM as CausalLM
    from flsec.tasks.classification import CLASSIFICATION as CLASSIFICATION
    from flsec.tasks.classification import Classification as Classification
    from flsec.tasks.gan import GAN as GAN
    from flsec.tasks.nas import NAS as NAS
    from flsec.tasks.next_token import NextToken as NextToken
    from flsec.tasks.text_classification import TextClassification as TextClassification

__all__ = [
    "CLASSIFICATION",
    "GAN",
    "NAS",
    "NOT_COUNTED",
    "TASKS",
    "CausalLM",
    "Classification",
    "NextToken",
    "Task",
    "TextClassification",
    "fits_in_words",
    "misfit",
]

export_lazily(
    __name__,
    {
        "CLASSIFICATION": "classification",
        "GAN": "gan",
        "NAS": "nas",
        "NOT_COUNTED": "base",
        "CausalLM": "causal_lm",
        "Classification": "classification",
        "NextToken": "next_token",
        "Task": "base",
        "TextClassification": "text_classification",
        "fits_in_words": "base",
        "misfit": "base",
    },
)
# End of exports.
