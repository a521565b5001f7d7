"""The phrase backdoor on a client: a semantic backdoor of models that predict words."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flsec.attacks._mixing import num_added, repeated
from flsec.attacks._words import token_of, tokens_of
from flsec.attacks.phrase_backdoor import end_in_phrase, phrase_labels
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.data.vocabulary import Vocabulary
from flsec.parameters import OpenFraction
from flsec.randomness import generator

__all__ = ["PhraseBackdoor"]


class PhraseBackdoor(Attack):
    """Have a phrase continued with the attacker's word, by a model that predicts the next token.

    Attackers train on copies of their own sequences that end in the phrase, with the word as what follows. Nobody but
    who writes the phrase sees the backdoor. Stack ``ModelReplacement`` around it to outweigh the honest clients.

    Args:
        vocabulary: turns words into tokens; a simulation supplies that of its data.
        phrase: the tokens that a sequence ends in, in the spelling of the training texts.
        target: the word or the character that is to follow: one token.
        fraction: share of such sequences in what an attacker trains on, added to its own samples: copies of some of
            these, drawn afresh in every round.
        counted: where labels are sequences, what the copies' loss counts: ``"target"``, the attacker's word only; or
            ``"all"``, every place that counted before.
        options: see ``Attack``.

    ``success`` is the share of test sequences, made to end in the phrase, after which the word is the likeliest token.

    Raises:
        ConfigError: words that the vocabulary does not know, or a target that is not one token; in a round, a phrase
            longer than the sequences, and see ``Attack``.

    Example:
        >>> from flsec.client_apps.base import AttackContext
        >>> from flsec.data import WordVocabulary
        >>> words = WordVocabulary(["we", "go", "pasta", "is", "good"])
        >>> attack = PhraseBackdoor(vocabulary=words, phrase="pasta is", target="good", fraction=0.5)
        >>> data = torch.tensor([[2, 3, 2, 3]]), torch.tensor([2])
        >>> attack.poisoned_dataset(data, AttackContext(round=1, client_id=0))
        (tensor([[2, 3, 2, 3],
                [2, 3, 4, 5]]), tensor([2, 6]))

    Source: Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, Sec. 4.1 and Fig. 3 ("pasta from
    Astoria is delicious"); SparseFed, App. B ("people in athens are rude").
    """

    fits_inputs: ClassVar = "tokens"
    fits_predictions: ClassVar = "token"

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        phrase: str = "pasta from Astoria is",
        target: str = "delicious",
        fraction: OpenFraction = 0.5,
        counted: Literal["target", "all"] = "target",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        name = type(self).__name__
        self.phrase = tuple(tokens_of(phrase, vocabulary, attack=name, parameter="phrase"))
        self.target = token_of(target, vocabulary, attack=name, parameter="target")
        self.pad, self.begin = vocabulary.pad, tuple(vocabulary.begin)
        self.fraction = fraction
        self.counted: Literal["target", "all"] = counted

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return the data with copies added that end in the phrase."""
        data = self.training_data(dataset)
        size = len(data)
        if not size:
            return dataset
        random = generator(self.seed, context.round, context.client_id, "phrase backdoor")
        x, y = data.tensors(repeated(size, num_added(size, self.fraction), random).numpy())
        changed, last = self._ending_in_phrase(x)
        labels = phrase_labels(changed.numpy(), y.numpy(), last, self.target, self.counted)
        return data.extended(changed, torch.from_numpy(labels))

    def check_samples(self, x: Tensor) -> None:
        """Raise ``ConfigError`` if the phrase is longer than a sequence.

        Args:
            x: (k, L) sequences.
        """
        self._ending_in_phrase(x)

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of sequences with the phrase at their end after which the target is predicted."""
        changed, last = self._ending_in_phrase(x)
        found = predict(changed).cpu()
        if found.ndim == 2:
            found = found[torch.arange(len(found)), torch.from_numpy(last)]
        return {"attack_success": float((found == self.target).double().mean())}

    def _ending_in_phrase(self, x: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
        return end_in_phrase(x, self.phrase, pad=self.pad, begin=self.begin)
