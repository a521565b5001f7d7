from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from flsec.models._arguments import (
    Dropout,
    InputShape,
    NumClasses,
    VocabSize,
    check_arguments,
    check_next_token,
    sequence_length,
)
from flsec.models._tokens import last_token
from flsec.parameters import Count, PositiveCount

__all__ = ["LSTM"]


class LSTM(nn.Module):
    """The language model for Reddit: words as 200 numbers, two LSTM layers of 200, the words' vectors again as output.

    The output layer's weights are the embedding's ("tied"), so that they are stored, trained and sent once. Dropout
    after the embedding, between the layers and before the output. As in the program that the papers start from, the
    vectors are drawn uniformly from [-0.1, 0.1] and the output's biases start at 0. With the papers' 50,000 words there
    are 10,693,200 parameters.

    Args:
        input_shape: (length,): tokens of one example.
        num_classes: the size of the vocabulary.
        vocab_size: tokens that the data know.
        pad: the token that fills rows up.
        positions: ``"all"``: one prediction after each token; ``"last"``: one, after the last token that is not in the
            run of ``pad`` at the end.
        hidden: of a word's vector and of each LSTM layer.
        layers: LSTM layers.
        dropout: share of values dropped.

    Raises:
        ConfigError: a parameter out of its range, an input that is no sequence, or labels that are no tokens.

    Tokens (n, L) to logits (n, L, C), or (n, C) for positions ``"last"``.

    Example:
        >>> sum(p.numel() for p in LSTM((64,), 50_000, vocab_size=50_000, pad=0).parameters())
        10693200

    Source: Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, Sec. 5.2 (word prediction), with the
    sizes of the word language model among PyTorch's examples; used by SparseFed, App. B.6.4.
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_token",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        vocab_size: VocabSize,
        pad: Count,
        positions: Literal["last", "all"] = "all",
        hidden: PositiveCount = 200,
        layers: PositiveCount = 2,
        dropout: Dropout = 0.2,
    ):
        super().__init__()
        check_arguments(LSTM, locals())
        sequence_length(LSTM, input_shape, vocab_size=vocab_size, pad=pad)
        check_next_token(LSTM, vocab_size=vocab_size, num_classes=num_classes)
        self.pad, self.positions = pad, positions
        self.embedding = nn.Embedding(vocab_size, hidden)
        self.recurrent = nn.LSTM(hidden, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, L, vocab_size), or (n, vocab_size) for positions ``"last"``."""
        states, _ = self.recurrent(self.dropout(self.embedding(x)))
        if self.positions == "last":
            states = states[torch.arange(len(x), device=x.device), last_token(x, self.pad)]
        return nn.functional.linear(self.dropout(states), self.embedding.weight, self.output_bias)
