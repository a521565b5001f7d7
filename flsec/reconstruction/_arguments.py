"""The arguments of an attack, checked against its signature."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flsec.parameters import check_parameters, parameters_of
from flsec.registry import yaml_name

__all__ = ["check_attack"]

_CHECKED_LATER = ("model", "gradients", "labels", "progress")  # need each other, or are no settings


def check_attack(attack: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless the settings of an attack are in their ranges.

    Args:
        attack: the function.
        arguments: by name; what is no parameter of the function is ignored, so that ``locals()`` will do.
    """
    values = {name: arguments[name] for name in parameters_of(attack) if name not in _CHECKED_LATER}
    if isinstance(values["input_shape"], torch.Size):  # no plain sequence to the check
        values["input_shape"] = tuple(values["input_shape"])
    check_parameters(attack, values, name=yaml_name(attack))
