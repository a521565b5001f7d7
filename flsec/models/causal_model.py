import inspect
from typing import Any, ClassVar

from torch import Tensor

from flsec.models._arguments import check_next_token
from flsec.models._transformers import TransformerModel

__all__ = ["CausalModel"]


class CausalModel(TransformerModel):
    """A transformer that predicts each token from those before it, pretrained or small and random.

    FedMLSecurity trains Pythia-1B on PubMedQA; ``weights`` of any network that transformers reads as a causal language
    model will do. Where it knows more tokens than the data, those are left out of the logits, and so never predicted.
    Rows are best filled up at their end: the networks that learn positions count a run at the start as positions.
    The random network is a small LLaMA.

    Raises:
        ConfigError: a parameter out of its range; no such weights, or weights that know fewer tokens or shorter texts;
            a library that is missing.

    Tokens (n, L) to logits (n, L, C).

    Example:
        >>> import torch
        >>> model = CausalModel((16,), 50, vocab_size=50, pad=0, hidden_size=8, layers=1, heads=2)
        >>> tuple(model(torch.ones(2, 16, dtype=torch.int64)).shape)
        (2, 16, 50)

    Source: FedMLSecurity, Table 3 (Pythia-1B, PubMedQA); LoRA: Hu et al., ICLR 2022.
    """

    tasks: ClassVar[tuple[str, ...]] = ("causal_lm", "next_token")
    reader: ClassVar[str] = "AutoModelForCausalLM"
    head_with_lora: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, L, num_classes)."""
        return self._logits(x)[..., : self.num_classes]

    def logits_at(self, x: Tensor, places: Tensor) -> Tensor:
        """Map tokens (n, L) to logits (n, k, num_classes) at some of the L places.

        Args:
            x: (n, L) tokens.
            places: (k,) increasing numbers of places.
        """
        if not self._picks_places:
            logits: Tensor = self(x)
            return logits[:, places]
        return self._logits(x, logits_to_keep=places)[..., : self.num_classes]

    @property
    def _picks_places(self) -> bool:
        """Whether this network of transformers can be asked for some places; most can."""
        network = self.network.get_base_model() if hasattr(self.network, "get_base_model") else self.network
        return "logits_to_keep" in inspect.signature(network.forward).parameters

    def _check_classes(self, num_classes: int, vocab_size: int) -> None:
        check_next_token(CausalModel, vocab_size=vocab_size, num_classes=num_classes)

    def _config(self, length: int, vocab_size: int, hidden_size: int, layers: int, heads: int) -> Any:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=length,
            tie_word_embeddings=True,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
