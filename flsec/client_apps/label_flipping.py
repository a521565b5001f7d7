"""Label flipping on a client."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flsec.attacks._words import token_of
from flsec.attacks.label_flipping import flip_labels
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.client_apps.poison import Poison
from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError
from flsec.metrics.attack_success import source_to_target_rate
from flsec.parameters import Count

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LabelFlipping"]


class LabelFlipping(Attack):
    """Train on data in which some classes carry the labels of others.

    Where labels are tokens, as in next-token prediction, classes may be written as words or characters, each of them
    one token: ``source: e, target: a``. In sequences the counted labels are flipped and judged place by place; inputs
    stay as they are.

    Args:
        source: the class to relabel, with ``target``.
        target: the label it gets.
        pairs: several (source, target) pairs instead, such as ``[[3, 9], [2, 1]]``; applied at the same time.
        vocabulary: turns words into tokens; a simulation supplies that of its data.
        options: see ``Attack``.

    ``success`` names classes by their numbers, also those that were given as words.

    Raises:
        ConfigError: neither or both of (source, target) and pairs, pairs that contradict each other, or a word that is
            not one token of the vocabulary.

    Example:
        >>> from flwr.client import NumPyClient
        >>> @LabelFlipping(pairs=[(3, 9), (9, 3)])
        ... class Client(NumPyClient):
        ...     trainset = (np.zeros((3, 2)), np.array([3, 9, 5]))
        ...     def fit(self, parameters, config):
        ...         x, y = self.trainset
        ...         return parameters, len(y), {"labels": y.tolist()}
        >>> Client().fit([np.zeros(1)], {})[2]
        {'labels': [9, 3, 5]}

    Source: Tolpegin et al., ESORICS 2020; FedMLSecurity, Sec. 3.2; SIREN, Sec. 5.3.
    """

    fits_labels: ClassVar = ("class", "sequence")
    fits_predictions: str | None = None  # any; words need labels that are tokens

    def __init__(
        self,
        *,
        source: Count | str | None = None,
        target: Count | str | None = None,
        pairs: Sequence[Sequence[Count | str]] | None = None,
        vocabulary: Vocabulary | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if pairs is None and source is not None and target is not None:
            given: dict[str, Any] = {"source": source, "target": target}
            chosen = [[self._number(label, name, vocabulary) for name, label in given.items()]]
        elif pairs is None or source is not None or target is not None:
            raise ConfigError(
                "LabelFlipping takes either source and target (such as 3 and 9) or pairs (such as [[3, 9], [2, 1]])."
            )
        else:
            chosen = [[self._number(label, "pairs", vocabulary) for label in pair] for pair in pairs]
        flip_labels(np.zeros(0, np.int64), chosen)  # checks the pairs before any training
        self.pairs = tuple((a, b) for a, b in chosen)

    def _number(self, label: int | str, parameter: str, vocabulary: Vocabulary | None) -> int:
        if not isinstance(label, str):
            return int(label)
        self.fits_predictions = "token"
        return token_of(label, vocabulary, attack=type(self).__name__, parameter=parameter)

    def poison(self, num_examples: int, context: AttackContext) -> Poison:
        """Relabel."""
        return Poison(labels=partial(flip_labels, pairs=self.pairs))

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return, for each pair, the share of the source class that is taken for the target."""
        return {
            f"source_to_target_{source}_{target}": source_to_target_rate(
                predictions.flatten(), y.flatten(), source, target
            )
            for source, target in self.pairs
        }
