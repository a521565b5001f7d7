import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from flsec.parameters import check_parameters
from flsec.tasks.base import Inputs, Labels, Predicts, Task

__all__ = ["NextToken"]


@dataclass(frozen=True, kw_only=True)
class NextToken(Task):
    """The character or word that follows: cross-entropy, judged by accuracy and perplexity, exp(loss).

    Args:
        positions: ``"last"``: the one token behind each sequence, a class of its own, as LEAF's Shakespeare has it;
            ``"all"``: the token behind each place of the sequence, as in word models (Reddit).

    Raises:
        ConfigError: another value of ``positions``.

    Inputs (n, L) tokens; labels (n,) and logits (n, C), or (n, L) and (n, L, C) for ``"all"``.

    Example:
        >>> NextToken().labels, NextToken(positions="all").labels
        ('class', 'sequence')
        >>> NextToken().summary(0.0, {"accuracy": 1.0})
        {'accuracy': 1.0, 'perplexity': 1.0}

    Source: McMahan et al., AISTATS 2017, Sec. 3 (characters, words); Caldas et al., "LEAF", 2018.
    """

    inputs: ClassVar[Inputs] = "tokens"
    predicts: ClassVar[Predicts] = "token"
    positions: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        check_parameters(NextToken, {"positions": self.positions}, name="task 'next_token'")

    @property
    def labels(self) -> Labels:
        """One class an example for the last position, a sequence for all."""
        return "class" if self.positions == "last" else "sequence"

    def summary(self, loss: float, means: Mapping[str, float]) -> dict[str, float]:
        """Return accuracy and perplexity; see ``Task``."""
        return {**means, "perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """Return exp(loss); infinite where that overflows.

    Example:
        >>> perplexity(0.0), perplexity(1e4)
        (1.0, inf)
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
