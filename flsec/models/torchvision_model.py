import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape

__all__ = ["TorchvisionModel"]

logger = logging.getLogger("flsec")

_AUXILIARY = ("googlenet", "inception_v3")  # which in training return the logits of three layers, unless told not to


class TorchvisionModel(nn.Module):
    """Any network for classification that the installed torchvision has, by its name there.

    ``num_classes`` sets the last layer. All of them take three channels: grey images, of one, are shown in all three,
    which is what a first convolution with the sum of its weights over the colours would see; other numbers of channels
    are refused. Vision transformers and MaxViT are built for the size of the images; the others take any size that
    leaves something after their last pooling, although they are made for some 224 x 224.

    Most have BatchNorm, which needs more than one value of a channel in training: on images of 32 x 32 or smaller,
    whose last maps are single positions, choose a batch size that leaves no batch of one image.

    Args:
        input_shape: (channels, height, width), 1 or 3 channels.
        num_classes: C.
        architecture: such as ``"resnet18"``, ``"mobilenet_v3_small"``, ``"vit_b_16"``.
        weights: file of a state dict with torchvision's names (``torch.save`` or ``.safetensors``) to start from; a
            last layer for another number of classes stays as it was drawn. None: all weights are drawn, as
            torchvision does.

    Raises:
        ConfigError: no such architecture, images that it cannot take, or weights that are not there or do not fit.

    Example:
        >>> sum(p.numel() for p in TorchvisionModel((3, 32, 32), 10, architecture="mobilenet_v3_small").parameters())
        1528106

    Source: torchvision, pytorch.org/vision, "Models and pre-trained weights", where the papers are.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        architecture: str = "resnet18",
        weights: str | None = None,
    ):
        super().__init__()
        check_arguments(TorchvisionModel, locals())
        depth, height, width = image_shape(
            TorchvisionModel, input_shape, smallest=1, advice="Use fedinv_fcn or mlp for such data."
        )
        if depth not in (1, 3):
            raise ConfigError(
                "model 'torchvision_model' takes images of 1 or 3 channels; "
                f"got input_shape {tuple(input_shape)}. Use resnet or vgg11, which take any number.",
                parameter="input_shape",
            )
        _check_name(architecture)
        self.network = _build(architecture, num_classes, height, width)
        if weights is not None:
            _load(self.network, weights, architecture, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.network(x.expand(-1, 3, -1, -1))
        return logits


def _check_name(architecture: str) -> None:
    from torchvision import models

    names = models.list_models(module=models)
    if architecture not in names:
        near = difflib.get_close_matches(architecture.lower(), names, n=3, cutoff=0.5)
        hint = f" Nearest: {', '.join(near)}." if near else f" It has: {', '.join(names)}."
        raise ConfigError(
            f"model 'torchvision_model': torchvision has no architecture {architecture!r} for classification.{hint}",
            parameter="architecture",
        )


def _options(architecture: str, num_classes: int, height: int, width: int) -> dict[str, Any]:
    """Return what the constructor of an architecture is told."""
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if architecture in _AUXILIARY:
        options |= {"aux_logits": False, "init_weights": True}
    if architecture.startswith("vit_"):
        options["image_size"] = height
    if architecture.startswith("maxvit"):
        options["input_size"] = (height, width)
    return options


def _build(architecture: str, num_classes: int, height: int, width: int) -> nn.Module:
    from torchvision import models

    try:
        network: nn.Module = models.get_model(architecture, **_options(architecture, num_classes, height, width))
        _try_out(network, height, width)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".!")
        raise ConfigError(
            f"model 'torchvision_model': {architecture} cannot take images of {height} x {width}: {reason}. "
            "Take larger or square images, or an architecture for small ones, such as resnet18.",
            parameter="input_shape",
        ) from error
    return network


def _try_out(network: nn.Module, height: int, width: int) -> None:
    """Show the network two images without values: what does not fit raises, and nothing is computed."""
    weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in weights.items()}
    network.eval()
    with torch.no_grad():
        torch.func.functional_call(network, shapes, torch.empty(2, 3, height, width, device="meta"))
    network.train()


def _load(network: nn.Module, path: str, architecture: str, num_classes: int) -> None:
    """Copy saved weights into a network, all but those of a last layer for another number of classes."""
    saved, own = _read(path), network.state_dict()
    if saved.keys() != own.keys():
        key = sorted(saved.keys() ^ own.keys())[0]
        where = "is not in the file" if key in own else f"is in the file and not in {architecture}"
        raise _misfit(f"{path} is no state dict of {architecture}: {key} {where}.")
    left_out = [key for key, value in own.items() if saved[key].shape != value.shape]
    for key in left_out:
        if own[key].shape[:1] != (num_classes,) or own[key].shape[1:] != saved[key].shape[1:]:
            shapes = f"{tuple(own[key].shape)} in {architecture}, {tuple(saved[key].shape)} in {path}"
            raise _misfit(f"{key} has the shape {shapes}.")
    network.load_state_dict(own | {key: value for key, value in saved.items() if key not in left_out})
    if left_out:
        logger.warning("%s is for another number of classes: %s start from a draw.", path, " and ".join(left_out))


def _read(path: str) -> dict[str, Tensor]:
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _misfit(f"there is no file {path}.") from error
    except Exception as error:  # what a broken file raises depends on how it is broken
        raise _misfit(f"{path} cannot be read: {str(error).partition(chr(10))[0].rstrip('.')}.") from error
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise _misfit(f"{path} holds no state dict, but {type(saved).__name__}.")
    return dict(saved)


def _misfit(what: str) -> ConfigError:
    return ConfigError(
        f"model 'torchvision_model': weights: {what} "
        "Save one with torch.save(network.state_dict(), path), or leave weights out.",
        parameter="weights",
    )
