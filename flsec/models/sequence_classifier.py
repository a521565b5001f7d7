from typing import Any, ClassVar

from torch import Tensor

from flsec.models._transformers import TransformerModel

__all__ = ["SequenceClassifier"]


class SequenceClassifier(TransformerModel):
    """A transformer that labels texts, pretrained or small and random: FedMLSecurity's BERT on 20 newsgroups.

    ``weights`` of any network that transformers reads as a sequence classifier will do: BERT, DistilBERT, RoBERTa, also
    networks made to write. The head is new, drawn from the run's seed, where the weights have none for so many labels.
    With ``lora_rank`` the head trains beside LoRA's matrices. The random network is a small BERT.

    Raises:
        ConfigError: a parameter out of its range; no such weights, or weights that know fewer tokens or shorter texts;
            a library that is missing.

    Tokens (n, L) to logits (n, C).

    Example:
        >>> import torch
        >>> model = SequenceClassifier((16,), 3, vocab_size=50, pad=0, hidden_size=8, layers=1, heads=2)
        >>> tuple(model(torch.ones(2, 16, dtype=torch.int64)).shape)
        (2, 3)

    Source: FedMLSecurity, Table 3 (BERT, 20News); Devlin et al., "BERT", NAACL 2019.
    """

    tasks: ClassVar[tuple[str, ...]] = ("text_classification",)
    reader: ClassVar[str] = "AutoModelForSequenceClassification"
    head_with_lora: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, num_classes)."""
        return self._logits(x)

    def _read_with(self) -> dict[str, Any]:
        return {"num_labels": self.num_classes, "pad_token_id": self.pad, "ignore_mismatched_sizes": True}

    def _config(self, length: int, vocab_size: int, hidden_size: int, layers: int, heads: int) -> Any:
        from transformers import BertConfig

        return BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=length,
            num_labels=self.num_classes,
            pad_token_id=self.pad,
        )
