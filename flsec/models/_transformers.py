"""What the networks of the transformers library have in common: where weights come from, what trains, what travels."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from flsec._pretrained import pretrained_folder, quiet_transformers, require_transformers
from flsec.errors import ConfigError
from flsec.models._arguments import Dropout, InputShape, NumClasses, VocabSize, check_arguments, sequence_length
from flsec.models._lora import add_lora
from flsec.models._tokens import real_tokens
from flsec.parameters import Count, Positive, PositiveCount
from flsec.registry import yaml_name

__all__ = ["TransformerModel"]


class TransformerModel(nn.Module):
    """A network of the transformers library: tokens (n, L) to logits.

    Args:
        input_shape: (length,): tokens of one example.
        num_classes: C.
        vocab_size: tokens that the data know; no more than the network knows.
        pad: the token that fills rows up; nothing attends to it in the runs at the start and at the end of a row.
        weights: a folder, ``"package:NAME"`` of an installed package that holds weights, or a name on the Hugging Face
            hub; null for a small network with random weights.
        dtype: of the network's weights. LoRA's are float32 beside bfloat16 too. bfloat16 keeps 8 bits: where such
            weights themselves train, small steps are lost.
        trainable: ``"all"`` weights, ``"head"`` (the output layer), or a number N: the last N layers and the head.
            Where a head's weights are the embedding's, those train.
        lora_rank: r of LoRA, for example 8; then nothing else trains but a classifier's head. 0: no LoRA.
        lora_alpha: LoRA's update is scaled by lora_alpha / lora_rank.
        lora_targets: names of the layers that LoRA adapts, such as ``[q_proj, v_proj]``; null for those that peft names
            for this kind of network: in most, the queries and values of the attention.
        lora_dropout: share of LoRA's inputs dropped.
        exchange: what travels between server and clients: ``"adapters"``, what trains; or ``"all"`` weights.
        hidden_size: of the random network; 64 if null.
        layers: of the random network; 2 if null.
        heads: of the random network's attention; 2 if null.
    """

    tasks: ClassVar[tuple[str, ...]]
    reader: ClassVar[str]  # the class of transformers that reads the weights
    head_with_lora: ClassVar[bool]  # whether the head trains beside LoRA

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        vocab_size: VocabSize,
        pad: Count,
        weights: str | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        trainable: Literal["all", "head"] | PositiveCount = "all",
        lora_rank: Count = 0,
        lora_alpha: Positive = 16.0,
        lora_targets: Sequence[str] | None = None,
        lora_dropout: Dropout = 0.0,
        exchange: Literal["adapters", "all"] = "adapters",
        hidden_size: PositiveCount | None = None,
        layers: PositiveCount | None = None,
        heads: PositiveCount | None = None,
    ):
        super().__init__()
        check_arguments(type(self), locals())
        length = sequence_length(type(self), input_shape, vocab_size=vocab_size, pad=pad)
        self._check_classes(num_classes, vocab_size)
        self._check_trainable(trainable, lora_rank, lora_targets)
        require_transformers()
        self.num_classes, self.pad, self.exchange = num_classes, pad, exchange
        sizes = {"hidden_size": hidden_size, "layers": layers, "heads": heads}
        with quiet_transformers():
            if weights is None:
                network: Any = self._random(length, vocab_size, **sizes).to(getattr(torch, dtype))
            else:
                network = self._pretrained(weights, dtype, length, vocab_size, sizes)
            network.config.use_cache = False  # for texts that are being written
            trained = _trained(network, trainable, self._title)
            if lora_rank:
                trained = _head(network) if self.head_with_lora else []
                network = add_lora(network, lora_rank, lora_alpha, lora_targets, lora_dropout, title=self._title)
            else:
                network.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)
        self.network = network.train()

    def exchanged_state(self) -> dict[str, Tensor]:
        """Return what travels between server and clients, by name; weights that two layers share are there once."""
        parameters = dict(self.named_parameters())
        if self.exchange == "adapters":
            return {name: parameter.detach() for name, parameter in parameters.items() if parameter.requires_grad}
        shared = {name for name, _ in self.named_parameters(remove_duplicate=False)} - parameters.keys()
        return {name: value for name, value in self.state_dict().items() if name not in shared}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that trains apart. What neither trains nor travels is not copied: both use the same memory."""
        for parameter in self.parameters():
            if self.exchange == "adapters" and not parameter.requires_grad:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _logits(self, tokens: Tensor, **options: Any) -> Tensor:
        mask = real_tokens(tokens, self.pad).long()
        logits: Tensor = self.network(input_ids=tokens, attention_mask=mask, **options).logits
        return logits.float()

    # --- the network ----------------------------------------------------------------------------------------------

    def _check_classes(self, num_classes: int, vocab_size: int) -> None:
        """Raise ``ConfigError`` unless the network can predict such labels."""

    def _config(self, length: int, vocab_size: int, hidden_size: int, layers: int, heads: int) -> Any:
        """Return the configuration of a small network of this kind."""
        raise NotImplementedError

    def _read_with(self) -> dict[str, Any]:
        """Return what the reader of the weights must be told about the task."""
        return {}

    def _random(
        self, length: int, vocab_size: int, hidden_size: int | None, layers: int | None, heads: int | None
    ) -> nn.Module:
        import transformers

        hidden_size, heads = hidden_size or 64, heads or 2
        if hidden_size % (2 * heads):
            raise ConfigError(
                f"{self._title}: hidden_size must be a multiple of 2 * heads = {2 * heads}; got {hidden_size}.",
                parameter="hidden_size",
            )
        config = self._config(length, vocab_size, hidden_size, layers or 2, heads)
        network: nn.Module = getattr(transformers, self.reader).from_config(config)
        return network

    def _pretrained(
        self, weights: str, dtype: str, length: int, vocab_size: int, sizes: dict[str, int | None]
    ) -> nn.Module:
        import transformers

        for name, size in sizes.items():
            if size is not None:
                raise ConfigError(
                    f"{self._title}: pretrained weights have their own {name}. Leave it out.", parameter=name
                )
        folder = pretrained_folder(weights)
        try:
            network: nn.Module = getattr(transformers, self.reader).from_pretrained(
                folder, dtype=getattr(torch, dtype), local_files_only=True, **self._read_with()
            )
        except Exception as error:  # of a dozen classes: whatever the files made transformers raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"{self._title}: transformers.{self.reader} cannot read the weights {weights!r}: {reason:.200}.",
                parameter="weights",
            ) from error
        known = network.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if vocab_size > known:
            raise ConfigError(
                f"{self._title}: the data have {vocab_size} tokens, and the weights {weights!r} know {known}. Let the "
                f"data's tokenizer be that of the weights: {weights!r}.",
                parameter="weights",
            )
        longest = getattr(network.config, "max_position_embeddings", None) or length
        if length > longest:
            raise ConfigError(
                f"{self._title}: texts of {length} tokens are too long for {weights!r}, which reads {longest}. "
                "Lower the data's length.",
                parameter="input_shape",
            )
        return network

    # --- settings -------------------------------------------------------------------------------------------------

    @property
    def _title(self) -> str:
        return f"model {yaml_name(type(self))!r}"

    def _check_trainable(self, trainable: str | int, lora_rank: int, lora_targets: Sequence[str] | None) -> None:
        if lora_rank and trainable != "all":
            raise ConfigError(
                f"{self._title}: with lora_rank={lora_rank} LoRA says what trains; got trainable {trainable!r} too. "
                "Leave one of them out.",
                parameter="trainable",
            )
        if lora_targets is not None and not (lora_rank and lora_targets):
            raise ConfigError(
                f"{self._title}: lora_targets needs at least one name, and a lora_rank of at least 1, such as 8; "
                f"got {list(lora_targets)} and {lora_rank}.",
                parameter="lora_targets",
            )


def _trained(network: nn.Module, trainable: str | int, title: str) -> list[nn.Parameter]:
    """Return the parameters that train without LoRA."""
    if trainable == "all":
        return list(network.parameters())
    if trainable == "head":
        return _head(network)
    stacks = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    layers = max(([*stack] for stack in stacks), key=len, default=[])
    if int(trainable) > len(layers):
        raise ConfigError(
            f"{title}: trainable can be at most the number of layers, {len(layers)}; got {trainable}. "
            "'all' trains the embeddings too.",
            parameter="trainable",
        )
    last = [parameter for layer in layers[-int(trainable) :] for parameter in layer.parameters()]
    return [*last, *_head(network)]


def _head(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters outside the network proper; where the head's are the embedding's too, those."""
    inside = f"{network.base_model_prefix}."
    every = network.named_parameters(remove_duplicate=False)
    return [parameter for name, parameter in every if not name.startswith(inside)]
