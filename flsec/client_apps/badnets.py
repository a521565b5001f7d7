"""The BadNets backdoor on a client."""

from collections.abc import Sequence
from typing import Any, Literal

from flsec.attacks._words import tokens_of
from flsec.attacks.token_trigger import TokenTrigger
from flsec.attacks.triggers import FeatureTrigger, Trigger
from flsec.client_apps._trigger_backdoor import TriggerBackdoor
from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, PositiveCount

__all__ = ["BadNets"]


class BadNets(TriggerBackdoor):
    """Train on data in which a share of the samples carries a trigger and the attacker's label.

    Args:
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        shape: see ``flsec.attacks.triggers.Trigger``.
        size: side of the patch in pixels.
        position: the corner of the image where the patch sits.
        margin: pixels between patch and edge.
        value: what the pixels or features are set to; one number, or one per channel or feature.
        features: for tabular data: the features to set to ``value``, instead of a patch.
        words: for text: the words that are put into it, such as ``cf``, instead of a patch. A whole phrase makes it the
            semantic backdoor of texts that contain the phrase.
        place: where the words go: to the ``"start"`` or the ``"end"`` of a text, or ``"random"``, between any two of
            its tokens. See ``flsec.attacks.token_trigger.TokenTrigger``.
        vocabulary: turns words into tokens; a simulation supplies that of its data.
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range, features together with words, or words that the vocabulary does not
            know; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = BadNets(target=7, fraction=1.0, features=[0], value=5.0)
        >>> attack.poisoned_dataset((np.zeros((1, 3)), np.array([2])), AttackContext(round=1, client_id=0))
        (array([[5., 0., 0.]]), array([7]))

    Source: Gu, Dolan-Gavitt and Garg, "BadNets", 2017; FedInv, "Adversary Parameters" (8 % of the samples); words:
    Kurita, Michel and Neubig, ACL 2020.
    """

    fits_inputs: str | None = None  # any that have the features; a patch needs numbers, words need tokens

    def __init__(
        self,
        *,
        target: Count = 0,
        fraction: Fraction = 0.08,
        shape: Literal["pattern", "square", "plus"] = "pattern",
        size: PositiveCount = 3,
        position: Literal["top_left", "top_right", "bottom_left", "bottom_right", "center"] = "bottom_right",
        margin: Count = 1,
        value: float | Sequence[float] = 1.0,
        features: Sequence[Count] | None = None,
        words: str | None = None,
        place: Literal["start", "end", "random"] = "start",
        vocabulary: Vocabulary | None = None,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        if words is not None:
            if features is not None:
                raise ConfigError(
                    f"{type(self).__name__} takes either features or words, and without both a patch; got features="
                    f"{list(features)} and words={words!r}. Leave one of them out.",
                    parameter="words",
                )
            self.trigger, self.fits_inputs = self._word_trigger(words, place, vocabulary), "tokens"
        elif features is not None:
            self.trigger = FeatureTrigger(features=features, value=value)
        else:
            self.trigger = Trigger(shape=shape, size=size, position=position, margin=margin, value=value)
            self.fits_inputs = "numbers"

    def _word_trigger(
        self, words: str, place: Literal["start", "end", "random"], vocabulary: Vocabulary | None
    ) -> TokenTrigger:
        tokens = tokens_of(words, vocabulary, attack=type(self).__name__, parameter="words")
        assert vocabulary is not None  # else tokens_of has refused
        pad, begin, end = vocabulary.pad, vocabulary.begin, vocabulary.end
        return TokenTrigger(tokens=tokens, pad=pad, place=place, begin=begin, end=end, seed=self.seed)
