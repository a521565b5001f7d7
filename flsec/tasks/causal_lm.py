from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Count, check_parameters
from flsec.tasks.base import NOT_COUNTED, Inputs, Labels, Predicts, Task
from flsec.tasks.next_token import perplexity

__all__ = ["CausalLM"]


@dataclass(frozen=True, kw_only=True)
class CausalLM(Task):
    """Instructions and their answers, for causal language models: cross-entropy of the counted tokens.

    Judged by accuracy (share of counted tokens that are predicted) and perplexity; and, where the answers to choose
    from are given, by ``answer_accuracy``: the answer whose first token is the likeliest of them, at the first counted
    place. Nothing is generated.

    Args:
        answers: first tokens of the answers, each another one; empty: free text.

    Raises:
        ConfigError: one answer alone, or two that begin with the same token.

    Inputs (n, L) tokens, labels (n, L), logits (n, L, C).

    Example:
        >>> task = CausalLM(answers=[3, 5])
        >>> labels = torch.tensor([[-100, 5, 1], [-100, -100, 3]])
        >>> task.classes(labels)
        tensor([1, 0])

    Source: FedMLSecurity, Exp. 9 (test loss); Jin et al., "PubMedQA", EMNLP 2019 (accuracy of yes, no, maybe).
    """

    inputs: ClassVar[Inputs] = "tokens"
    predicts: ClassVar[Predicts] = "token"
    answers: Sequence[Count] = ()

    def __post_init__(self) -> None:
        check_parameters(CausalLM, {"answers": self.answers}, name="task 'causal_lm'")
        object.__setattr__(self, "answers", tuple(self.answers))
        if len(self.answers) == 1 or len(set(self.answers)) < len(self.answers):
            raise ConfigError(
                "task 'causal_lm': answers must be two or more different tokens, the first of each answer; got "
                f"{list(self.answers)}. Word the answers so that their first tokens differ.",
                parameter="answers",
            )

    @property
    def labels(self) -> Labels:
        """A sequence."""
        return "sequence"

    def tallies(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Return the sums of accuracy and, where there are answers, answer accuracy; see ``Task``."""
        tallies = super().tallies(outputs, labels)
        if self.answers:
            place = self._answer_places(labels)
            rows = torch.arange(len(labels), device=labels.device)
            among = torch.tensor(self.answers, device=labels.device)
            chosen = outputs[rows, place][:, among].argmax(dim=1)
            right = chosen == self._answer_numbers(labels)
            tallies["answer_accuracy"] = (right.sum(), len(labels))
        return tallies

    def summary(self, loss: float, means: Mapping[str, float]) -> dict[str, float]:
        """Return the accuracies and perplexity; see ``Task``."""
        return {**means, "perplexity": perplexity(loss)}

    def classes(self, labels: Tensor) -> Tensor | None:
        """Return the number of each example's answer, where there are answers to choose from."""
        return self._answer_numbers(labels) if self.answers else None

    def _answer_places(self, labels: Tensor) -> Tensor:
        return (labels != NOT_COUNTED).int().argmax(dim=1)  # the first of the largest

    def _answer_numbers(self, labels: Tensor) -> Tensor:
        """Return which answer each example has; -1 for none of them, which a poisoned label may be."""
        first = labels[torch.arange(len(labels), device=labels.device), self._answer_places(labels)]
        same = first[:, None] == torch.tensor(self.answers, device=labels.device)
        return torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)
