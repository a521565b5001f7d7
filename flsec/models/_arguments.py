"""What a model may be told: checked in one place, so that every model refuses in the same words."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt

from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters
from flsec.registry import yaml_name

__all__ = [
    "Dropout",
    "InputShape",
    "NumClasses",
    "VocabSize",
    "check_arguments",
    "check_next_token",
    "image_shape",
    "sequence_length",
    "title",
]

InputShape = Sequence[PositiveCount]  # of one example, without the batch: (1, 28, 28), (561,)
NumClasses = Annotated[int, Ge(2)]
Dropout = Annotated[float, Ge(0), Lt(1)]  # share of values dropped
VocabSize = Annotated[int, Ge(2)]  # tokens that the data know, with the one that fills rows up


def check_arguments(model: type[Any], arguments: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless the arguments of a model's constructor are in their ranges.

    Args:
        model: the class of the model.
        arguments: by name; what is no parameter of the constructor is ignored, so that ``locals()`` will do. Those of
            a subclass's own constructor are not in its base's and are left to it.
    """
    values = {name: arguments[name] for name in inspect.signature(model).parameters if name in arguments}
    if isinstance(values["input_shape"], torch.Size):  # no plain sequence to the check
        values["input_shape"] = tuple(values["input_shape"])
    check_parameters(model, values, name=title(model))
    if not values["input_shape"]:
        raise ConfigError(
            f"{title(model)}: input_shape needs at least one dimension, such as (784,); got ().",
            parameter="input_shape",
        )


def image_shape(model: type[Any], input_shape: InputShape, *, smallest: int, advice: str) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Args:
        model: the class of the model.
        input_shape: of one example.
        smallest: height and width below which a layer of the model would have no output.
        advice: what the message tells the user to change.

    Raises:
        ConfigError: not three dimensions, or an image that is too small.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ConfigError(
            f"{title(model)} takes images (channels, height, width) of at least {smallest} x {smallest}; "
            f"got input_shape {tuple(input_shape)}. {advice}",
            parameter="input_shape",
        )
    channels, height, width = input_shape
    return channels, height, width


def sequence_length(model: type[Any], input_shape: InputShape, *, vocab_size: int, pad: int) -> int:
    """Return how many tokens one example has.

    Args:
        model: the class of the model.
        input_shape: of one example.
        vocab_size: tokens that the data know.
        pad: the token that fills rows up; one of them.

    Raises:
        ConfigError: not one dimension, or a pad that is no token.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"{title(model)} takes sequences of tokens, input_shape (length,); got {tuple(input_shape)}. "
            "Use mlp or a convolutional network for such data.",
            parameter="input_shape",
        )
    if pad >= vocab_size:
        raise ConfigError(
            f"{title(model)}: pad must be one of the tokens 0 to {vocab_size - 1}; got {pad}.", parameter="pad"
        )
    return input_shape[0]


def check_next_token(model: type[Any], *, vocab_size: int, num_classes: int) -> None:
    """Raise ``ConfigError`` unless what is predicted is a token, for models that write what they read."""
    if num_classes != vocab_size:
        raise ConfigError(
            f"{title(model)} predicts one of its own tokens, so num_classes must be vocab_size={vocab_size}; "
            f"got {num_classes}. For labels, use embedding_classifier, bi_lstm or sequence_classifier.",
            parameter="num_classes",
        )


def title(model: type[Any]) -> str:
    """Return what messages call a model."""
    return f"model {yaml_name(model)!r}"
