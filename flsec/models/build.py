from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from flsec.data.vocabulary import Vocabulary
from flsec.models import MODELS
from flsec.parameters import parameters_of
from flsec.randomness import seed_for

__all__ = ["build_model"]


def build_model(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    seed: int,
    *,
    vocabulary: Vocabulary | None = None,
    **params: Any,
) -> nn.Module:
    """Build a model whose initial weights depend on ``seed`` alone, and leave torch's global random state as it was.

    Args:
        name: a model of ``MODELS`` (``"mlp"``), or ``"package.module:Class"`` for one of your own, which takes
            ``input_shape`` and ``num_classes`` too.
        input_shape: of one example, without the batch dimension.
        num_classes: number of labels, C.
        seed: the seed of the run; server and clients that share it start from the same weights.
        vocabulary: of the data, where the inputs are tokens; a model whose constructor has ``vocab_size`` or ``pad`` is
            given these of it.
        **params: the model's own parameters.

    Returns:
        The model, on the CPU, in training mode.

    Raises:
        ConfigError: no such model, or a parameter that it does not take or that is out of its range.

    Example:
        >>> build_model("mlp", (1, 8, 8), 10, seed=1, hidden=[32]).layers[1]
        Linear(in_features=64, out_features=32, bias=True)
    """
    asked = parameters_of(MODELS.get(name))
    of_text = {} if vocabulary is None else {"vocab_size": vocabulary.size, "pad": vocabulary.pad}
    supplied = {key: value for key, value in of_text.items() if key in asked}
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed_for(seed, purpose="model"))  # torch.manual_seed reseeds GPUs too
        model: nn.Module = MODELS.build(
            name, params, input_shape=tuple(input_shape), num_classes=num_classes, **supplied
        )
    return model
