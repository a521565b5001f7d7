"""Low-rank adapters beside the weights of a network, by the peft library."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from flsec._pretrained import require_transformers
from flsec.errors import ConfigError

__all__ = ["add_lora"]


def add_lora(
    network: nn.Module, rank: int, alpha: float, targets: Sequence[str] | None, dropout: float, *, title: str
) -> nn.Module:
    """Return a network with LoRA, which starts as the same function; only LoRA's matrices require a gradient.

    Args:
        network: of the transformers library; changed.
        rank: r.
        alpha: the update is scaled by alpha / r.
        targets: names, or ends of dotted names, of the layers to adapt; None for those that peft knows for its kind.
        dropout: share of LoRA's inputs dropped.
        title: how messages call the network.

    Raises:
        ConfigError: peft is missing, or there are no such layers.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, Sec. 4.1.
    """
    require_transformers("peft")
    from peft import LoraConfig, get_peft_model

    layers = [name for name, module in network.named_modules() if _is_linear(module)]
    known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    for target in targets or ():
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise ConfigError(f"{title}: no layer {target!r} for LoRA. It has: {known}.", parameter="lora_targets")
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    try:
        adapted: nn.Module = get_peft_model(
            network, LoraConfig(target_modules=None if targets is None else list(targets), **settings)
        )
    except ValueError as error:  # a kind of network that peft knows no layers for
        raise ConfigError(
            f"{title}: name the layers that LoRA adapts in lora_targets. It has: {known}.", parameter="lora_targets"
        ) from error
    return adapted


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's name for one
