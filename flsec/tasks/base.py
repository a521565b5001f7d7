"""What a task is, and what fits it."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.registry import yaml_name

__all__ = ["NOT_COUNTED", "Task", "fits_in_words", "misfit"]

NOT_COUNTED = -100  # a label that nobody predicts: neither in the loss nor in any measure

Inputs = Literal["numbers", "tokens"]
Labels = Literal["class", "sequence", "none"]
Predicts = Literal["class", "token"]


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """What clients learn: the loss of a batch, the predictions, and what they are judged by.

    A batch is (x, y). Inputs x are ``"numbers"``, (n, ...) floats, or ``"tokens"``, (n, L) int64. Labels y are one
    ``"class"`` an example, (n,) int64, or a ``"sequence"``: (n, L) int64, where y[t] is what follows x[t], and
    ``NOT_COUNTED`` (-100) marks places that are not judged; ``"none"``: the task does not look at them. A model maps x
    to logits: (n, C), or (n, L, C) for a sequence.

    A subclass is a frozen dataclass in a file of its own here; its parameters are its fields.

    Example:
        >>> from flsec.tasks import Classification
        >>> task, logits = Classification(), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> task.predictions(logits), round(float(task.loss(logits, torch.tensor([0, 1]))), 3)
        (tensor([0, 1]), 0.127)
    """

    inputs: ClassVar[Inputs]
    predicts: ClassVar[Predicts] = "class"  # what a label's number stands for: one of C classes, or a token

    @property
    def name(self) -> str:
        """The YAML name."""
        return yaml_name(type(self))

    @property
    @abc.abstractmethod
    def labels(self) -> Labels:
        """What the labels are; see the class."""

    # --- training ---------------------------------------------------------------------------------------------

    def batch_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss whose gradient a client steps along; by default that of the model's outputs.

        Args:
            model: in training mode.
            x: the batch's inputs.
            y: its labels.
        """
        places = self.places(model, y)
        return self.loss(self.outputs(model, x, places), y if places is None else y[:, places])

    def places(self, model: nn.Module, y: Tensor) -> Tensor | None:
        """Return the places (k,) of the sequence at which a batch needs outputs; None: at all.

        Logits over a large vocabulary cost more than the rest of a small network. A model with a method
        ``logits_at(x, places)`` that returns (n, k, C) is asked only where some label of the batch is counted.

        Args:
            model: maps x to logits.
            y: the batch's labels.
        """
        if self.labels != "sequence" or not hasattr(model, "logits_at"):
            return None
        places = (y != NOT_COUNTED).any(dim=0).nonzero().squeeze(1)
        return places if 0 < len(places) < y.shape[1] else None

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over the counted labels; 0 where none is.

        Args:
            outputs: logits (n, C), or (n, L, C).
            labels: (n,), or (n, L) with ``NOT_COUNTED`` where nothing is to be learned.
        """
        if self.labels == "class":
            return cross_entropy(outputs, labels)
        flat = labels.flatten()
        total = cross_entropy(outputs.flatten(0, 1), flat, ignore_index=NOT_COUNTED, reduction="sum")
        return total / (flat != NOT_COUNTED).sum().clamp(min=1)

    # --- judging ----------------------------------------------------------------------------------------------

    def outputs(self, model: nn.Module, x: Tensor, places: Tensor | None = None) -> Any:
        """Return what a model makes of inputs, for ``loss``, ``predictions`` and ``tallies``; by default ``model(x)``.

        Args:
            model: the network.
            x: a batch's inputs.
            places: what ``places`` returns for the batch.
        """
        return model(x) if places is None else model.logits_at(x, places)  # type: ignore[operator]

    def num_counted(self, labels: Tensor) -> int:
        """Return how many of a batch's labels are judged: the weight of its mean loss among other batches'."""
        return labels.numel() if self.labels == "class" else int((labels != NOT_COUNTED).sum())

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return what is predicted for each label: (n,), or (n, L)."""
        return outputs.argmax(dim=-1)

    def tallies(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Return {measure: (sum, count)} of a batch; their quotient over a data set is the measure.

        One of them is ``"accuracy"``. A sum may be an array, from whose mean ``summary`` makes a measure.

        Args:
            outputs: logits, as for ``loss``.
            labels: as for ``loss``.
        """
        right = (self.predictions(outputs) == labels) & (labels != NOT_COUNTED)
        return {"accuracy": (right.sum(), self.num_counted(labels))}

    def summary(self, loss: float, means: Mapping[str, Any]) -> dict[str, float]:
        """Return what is reported beside the loss: the measures, and what follows from the loss.

        Args:
            loss: mean over the data set's counted labels.
            means: {measure: mean over the data set}, a number; a tensor where its sum is an array.
        """
        return dict(means)

    def classes(self, labels: Tensor) -> Tensor | None:
        """Return one class an example, (n,), for partitioners and for figures by class; None: there is no such thing.

        Args:
            labels: of a data set.
        """
        return labels if self.labels == "class" else None

    def check_model(self, model: nn.Module, x: Tensor, num_classes: int) -> None:
        """Raise ``ConfigError`` unless a model's outputs for two examples are what this task judges.

        Args:
            model: in evaluation mode.
            x: two examples.
            num_classes: C of the data set.
        """
        wanted = (*x.shape[:2], num_classes) if self.labels == "sequence" else (len(x), num_classes)
        with torch.no_grad():
            got = tuple(model(x).shape)
        if got != wanted:
            each = "one number a class at each place" if self.labels == "sequence" else "one number a class"
            other = "all" if self.labels == "sequence" else "last"
            hint = f" Has it a parameter such as positions: {other}?" if self.inputs == "tokens" else ""
            raise ConfigError(f"must return {each}, {wanted} for two samples; got {got}.{hint}")

    def takes_data_of(self, other: "Task") -> bool:
        """Return whether this can be learned from data that were made for another task."""
        return self.inputs == other.inputs and self.labels in ("none", other.labels)


def misfit(member: Any, task: Task) -> str | None:
    """Return why an attack or a defense makes no sense on a task, as "needs ..."; None: it does.

    Args:
        member: has ``fits_inputs``, ``fits_labels`` and ``fits_predictions``, each a kind, several, or None for any;
            without them, it fits all. A class, too: then what only an instance knows is not looked at.
        task: what clients learn.

    Example:
        >>> from flsec.client_apps import ClassFlipping
        >>> from flsec.tasks import CausalLM
        >>> misfit(ClassFlipping(), CausalLM())
        'needs one class an example, and causal_lm has sequences of labels'
    """
    pairs = ((getattr(member, "fits_inputs", None), task.inputs), (getattr(member, "fits_labels", None), task.labels))
    for fits, has in pairs:
        kinds = (fits,) if isinstance(fits, str) else fits
        if isinstance(kinds, tuple) and has not in kinds:
            return f"needs {_in_words(kinds)}, and {task.name} has {_WORDS[has]}"
    wanted = getattr(member, "fits_predictions", None)
    if isinstance(wanted, str) and wanted != task.predicts:
        return f"needs labels that are {_PREDICTS[wanted]}, and those of {task.name} are {_PREDICTS[task.predicts]}"
    return None


def fits_in_words(member: Any) -> str:
    """Return which tasks an attack or a defense makes sense on.

    Args:
        member: as for ``misfit``.

    Example:
        >>> from flsec.client_apps import BackGradient, SignFlipping
        >>> fits_in_words(BackGradient), fits_in_words(SignFlipping)
        ('tasks with inputs that are real numbers and one class an example', 'every task')
    """
    fits = [getattr(member, name, None) for name in ("fits_inputs", "fits_labels")]
    if any(isinstance(kinds, property) for kinds in fits):  # of a class; it takes an instance to know
        return "every task, or fewer with some of its settings"
    needs = [_in_words((kinds,) if isinstance(kinds, str) else kinds) for kinds in fits if kinds is not None]
    if predictions := getattr(member, "fits_predictions", None):
        needs.append(f"labels that are {_PREDICTS[predictions]}")
    return f"tasks with {' and '.join(needs)}" if needs else "every task"


_WORDS: dict[str, str] = {
    "numbers": "inputs that are real numbers",
    "tokens": "inputs that are tokens",
    "class": "one class an example",
    "sequence": "sequences of labels",
    "none": "no labels",
}
_PREDICTS = {"class": "classes", "token": "tokens"}


def _in_words(kinds: Sequence[str]) -> str:
    return " or ".join(_WORDS[kind] for kind in kinds)
