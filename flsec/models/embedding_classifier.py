from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, VocabSize, check_arguments, sequence_length
from flsec.models._tokens import real_tokens
from flsec.parameters import Count, PositiveCount

__all__ = ["EmbeddingClassifier"]


class EmbeddingClassifier(nn.Module):
    """The mean of a text's word vectors, then one linear layer: the smallest classifier of texts that is of use.

    Without n-grams it is fastText's classifier. It knows no order of words, trains in milliseconds on a CPU, and needs
    no pretrained weights. Weights start from torch's usual draw.

    Args:
        input_shape: (length,): tokens of one example.
        num_classes: C.
        vocab_size: tokens that the data know.
        pad: the token that fills rows up; counts for nothing at the start and the end of a row.
        dimension: of a word's vector.

    Raises:
        ConfigError: a parameter out of its range, or an input that is no sequence.

    Tokens (n, L) to logits (n, C).

    Example:
        >>> sum(p.numel() for p in EmbeddingClassifier((64,), 20, vocab_size=10_000, pad=0).parameters())
        641300

    Source: Joulin et al., "Bag of Tricks for Efficient Text Classification", EACL 2017, Sec. 2.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text_classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        vocab_size: VocabSize,
        pad: Count,
        dimension: PositiveCount = 64,
    ):
        super().__init__()
        check_arguments(EmbeddingClassifier, locals())
        sequence_length(EmbeddingClassifier, input_shape, vocab_size=vocab_size, pad=pad)
        self.pad = pad
        self.embedding = nn.Embedding(vocab_size, dimension)
        self.output = nn.Linear(dimension, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, num_classes)."""
        real = real_tokens(x, self.pad).unsqueeze(2)  # (n, L, 1)
        mean = (self.embedding(x) * real).sum(dim=1) / real.sum(dim=1)
        logits: Tensor = self.output(mean)
        return logits
