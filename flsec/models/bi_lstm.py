from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.models._arguments import InputShape, NumClasses, VocabSize, check_arguments, sequence_length
from flsec.models._tokens import last_token
from flsec.parameters import Count, PositiveCount

__all__ = ["BiLSTM"]


class BiLSTM(nn.Module):
    """The recurrent network for Shakespeare: each character as 8 numbers, two LSTM layers of 256, one linear layer.

    FedMLSecurity writes "RNN (bi-LSTM)" and cites McMahan et al., whose network reads forwards only: that is
    ``bidirectional: false``. Read both ways, the logits come from the last state of each direction, so from all of the
    text twice.

    McMahan et al. count 866,578 parameters: what 258 characters give with one bias a gate and with peepholes. torch's
    LSTM has two biases and no peepholes: for the 90 tokens of TensorFlow Federated and FedML 822,570 parameters
    forwards, and 2,168,618 both ways. Weights start from torch's usual draw.

    Args:
        input_shape: (length,): tokens of one example; the papers' is 80.
        num_classes: C; for the next token, the size of the vocabulary.
        vocab_size: tokens that the data know.
        pad: the token that fills rows up; a run of it at the end of a row is not read.
        bidirectional: read backwards too.
        positions: ``"last"``: one prediction, after the last token; ``"all"``: one after each token, which a network
            that reads backwards would only have to copy, so that it needs ``bidirectional: false``.
        dimension: of a token's vector.
        hidden: of each LSTM layer, in each direction.
        layers: LSTM layers.

    Raises:
        ConfigError: a parameter out of its range, an input that is no sequence, or positions ``"all"`` read both ways.

    Tokens (n, L) to logits (n, C), or (n, L, C) for positions ``"all"``.

    Example:
        >>> sum(p.numel() for p in BiLSTM((80,), 90, vocab_size=90, pad=0, bidirectional=False).parameters())
        822570

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Sec. 3; FedMLSecurity, Table 3 ("RNN (bi-LSTM)", Shakespeare).
    """

    tasks: ClassVar[tuple[str, ...]] = ("next_token", "text_classification")

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        vocab_size: VocabSize,
        pad: Count,
        bidirectional: bool = True,
        positions: Literal["last", "all"] = "last",
        dimension: PositiveCount = 8,
        hidden: PositiveCount = 256,
        layers: PositiveCount = 2,
    ):
        super().__init__()
        check_arguments(BiLSTM, locals())
        sequence_length(BiLSTM, input_shape, vocab_size=vocab_size, pad=pad)
        if positions == "all" and bidirectional:
            raise ConfigError(
                "model 'bi_lstm': with positions 'all', a network that reads backwards too would see the token that it "
                "is to predict. Set bidirectional: false, or positions: last.",
                parameter="positions",
            )
        self.pad, self.positions = pad, positions
        self.embedding = nn.Embedding(vocab_size, dimension)
        self.recurrent = nn.LSTM(dimension, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.output = nn.Linear(hidden * (1 + bidirectional), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, num_classes), or (n, L, num_classes) for positions ``"all"``."""
        vectors = self.embedding(x)
        if self.positions == "all":  # what follows a text cannot reach what was read before
            states, _ = self.recurrent(vectors)
        else:
            lengths = last_token(x, self.pad).add(1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
            _, (last, _) = self.recurrent(packed)  # (layers * directions, n, hidden)
            states = torch.cat(tuple(last[-2:] if self.recurrent.bidirectional else last[-1:]), dim=1)
        logits: Tensor = self.output(states)
        return logits
