"""Backdoor triggers: what an attacker stamps on an input, and the test data that measure whether it works."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.attacks._labels import check_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, Positive, PositiveCount, check_parameters
from flsec.randomness import numpy_generator

if TYPE_CHECKING:
    import torch

__all__ = ["BlendedTrigger", "FeatureTrigger", "SinusoidalTrigger", "Trigger", "triggered_test_set"]

Inputs = TypeVar("Inputs", NDArray[Any], "torch.Tensor")


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A small patch at a fixed place in an image.

    The defaults are the pattern backdoor of BadNets: four bright pixels, one pixel away from the bottom right
    corner. Its single-pixel backdoor is ``Trigger(shape="square", size=1)``.

    Args:
        shape: which pixels of a ``size`` by ``size`` box are set. ``"pattern"``: the rising diagonal and the bottom
            right corner; ``"square"``: all; ``"plus"``: the middle row and the middle column (``size`` odd).
        size: side of the box in pixels.
        position: the corner of the image where the box sits, or ``"center"``.
        margin: pixels between the box and the two edges of that corner; without effect for ``"center"``.
        value: what the pixels are set to, in the units of the images that ``apply`` gets: 1.0 is white in images
            from 0 to 1; for normalised images give the normalised white. One number, or one per channel.

    Raises:
        ConfigError: a parameter out of range, or an even plus.

    Example:
        >>> import torch
        >>> Trigger(margin=0).apply(torch.zeros(1, 1, 4, 4))[0, 0]
        tensor([[0., 0., 0., 0.],
                [0., 0., 0., 1.],
                [0., 0., 1., 0.],
                [0., 1., 0., 1.]])

    Source: Gu, Dolan-Gavitt and Garg, "BadNets", 2017: single pixel and pattern on MNIST (the paper shows the pattern
    in a figure only; these four pixels are its usual reading), a square on traffic signs. Plus: Ozdayi, Kantarcioglu
    and Gel, AAAI 2021. FedInv uses BadNets without saying which trigger.
    """

    shape: Literal["pattern", "square", "plus"] = "pattern"
    size: PositiveCount = 3
    position: Literal["top_left", "top_right", "bottom_left", "bottom_right", "center"] = "bottom_right"
    margin: Count = 1
    value: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        check_parameters(Trigger, {f.name: getattr(self, f.name) for f in fields(self)}, name="Trigger")
        if self.shape == "plus" and self.size % 2 == 0:
            raise ConfigError(
                f"Trigger: a plus has a middle pixel, so size must be odd; got size={self.size}. "
                f"Use size={self.size + 1}.",
                parameter="size",
            )
        object.__setattr__(self, "value", _hashable(self.value))

    def apply(self, images: Inputs) -> Inputs:
        """Return a copy of ``images`` with the patch on each of them.

        Args:
            images: (..., C, H, W) or, with one ``value``, (..., H, W); a floating numpy array or torch tensor: one
                image or many. Not modified.

        Returns:
            A new array or tensor with the shape, dtype and device of ``images``.

        Raises:
            ConfigError: the images are not of a floating type, the patch does not fit into them, or the number of
                channels is not that of ``value``.
        """
        stamped = _floating_copy(images, "Trigger.apply", min_dims=2 if isinstance(self.value, float) else 3)
        rows, columns = self._pixels(*images.shape[-2:])
        if isinstance(self.value, float):
            stamped[..., rows, columns] = self.value
            return stamped
        if images.shape[-3] != len(self.value):
            raise ConfigError(
                f"Trigger.apply: value must be one number, or one per channel; got {len(self.value)} numbers for "
                f"images of shape (..., C, H, W) = {tuple(images.shape)}. Give {images.shape[-3]} numbers.",
                parameter="value",
            )
        for channel, value in enumerate(self.value):
            stamped[..., channel, rows, columns] = value
        return stamped

    def apply_to_each(self, images: Inputs) -> Inputs:
        """Return a copy of a batch (k, ...) with the patch on each of its images.

        To ``apply``, a table of k feature vectors is one image of k rows; here the first axis counts samples.

        Raises:
            ConfigError: the samples are no images, and as ``apply``.
        """
        dims = 2 if isinstance(self.value, float) else 3
        if images.ndim <= dims:
            shape = "(H, W) or (C, H, W)" if dims == 2 else "(C, H, W)"
            raise ConfigError(
                f"Trigger: a patch needs images, samples of shape {shape}; got samples of shape "
                f"{tuple(images.shape[1:])}. For feature vectors and texts name features, such as features=[0, 1]."
            )
        return self.apply(images)

    def _pixels(self, height: int, width: int) -> tuple[list[int], list[int]]:
        """Rows and columns of the patch in an image of this size."""
        margin = 0 if self.position == "center" else self.margin
        if self.size + margin > min(height, width):
            raise ConfigError(
                f"Trigger.apply: size + margin must be at most the image's side; got {self.size} + {margin} for "
                f"images of {height} by {width} pixels. Use a smaller trigger, or images of shape (..., C, H, W).",
                parameter="size",
            )
        top, left = margin, margin
        if self.position == "center":
            top, left = (height - self.size) // 2, (width - self.size) // 2
        if self.position.startswith("bottom"):
            top = height - margin - self.size
        if self.position.endswith("right"):
            left = width - margin - self.size
        box = [(i, j) for i in range(self.size) for j in range(self.size) if self._is_set(i, j)]
        return [top + i for i, _ in box], [left + j for _, j in box]

    def _is_set(self, i: int, j: int) -> bool:
        if self.shape == "plus":
            return self.size // 2 in (i, j)
        if self.shape == "pattern":
            return i + j == self.size - 1 or i == j == self.size - 1
        return True


@dataclass(frozen=True, kw_only=True)
class FeatureTrigger:
    """Chosen features of a feature vector, set to chosen values: a trigger for tabular data such as HAR, and for text.

    In a sequence of token numbers, features are places and values are tokens, written over the text's own; a
    ``TokenTrigger`` puts words between them.

    Args:
        features: positions along the last axis, counted from 0.
        value: what they are set to, in the units of the inputs that ``apply`` gets; one number, or one per feature.

    Raises:
        ConfigError: no feature, one listed twice, or another number of values than of features.

    Example:
        >>> FeatureTrigger(features=[0, 3], value=[1.0, -1.0]).apply(np.zeros((1, 4)))
        array([[ 1.,  0.,  0., -1.]])

    Source: Gu, Dolan-Gavitt and Garg, "BadNets", 2017, carried over to vectors.
    """

    features: Sequence[Count]
    value: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        parameters = {"features": self.features, "value": self.value}
        check_parameters(FeatureTrigger, parameters, name="FeatureTrigger")
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "value", _hashable(self.value))
        if not self.features or len(set(self.features)) < len(self.features):
            raise ConfigError(
                f"FeatureTrigger: features must name at least one feature, each once; got {list(self.features)}. "
                "Use for instance [0, 1, 2].",
                parameter="features",
            )
        if not isinstance(self.value, float) and len(self.value) != len(self.features):
            raise ConfigError(
                f"FeatureTrigger: value must be one number, or one per feature; got {len(self.value)} numbers for "
                f"{len(self.features)} features. Give {len(self.features)}.",
                parameter="value",
            )

    def apply(self, inputs: Inputs) -> Inputs:
        """Return a copy of ``inputs`` (..., d) with the features set; same shape, dtype and device.

        Raises:
            ConfigError: the inputs have no such feature, or are integers, such as tokens, and a value is none.
        """
        values = [self.value] * len(self.features) if isinstance(self.value, float) else self.value
        tokens = _is_wide_integer(inputs)
        if tokens and not all(value.is_integer() for value in values):
            raise ConfigError(
                f"FeatureTrigger.apply: value must be whole for inputs of {inputs.dtype}, such as token numbers; got "
                f"{self.value}.",
                parameter="value",
            )
        stamped = copied(inputs) if tokens else _floating_copy(inputs, "FeatureTrigger.apply", min_dims=1)
        if max(self.features) >= inputs.shape[-1]:
            raise ConfigError(
                f"FeatureTrigger.apply: features must be at most {inputs.shape[-1] - 1} for inputs of shape "
                f"(..., d) = {tuple(inputs.shape)}; got {max(self.features)}. Choose features that the data have.",
                parameter="features",
            )
        for feature, value in zip(self.features, values, strict=True):
            stamped[..., feature] = int(value) if tokens else value
        return stamped

    def apply_to_each(self, inputs: Inputs) -> Inputs:
        """Return a copy of a batch (k, ...) with the features of each sample set; the first axis counts samples.

        Raises:
            ConfigError: the samples are single numbers, and as ``apply``.
        """
        if inputs.ndim < 2:
            raise ConfigError(
                "FeatureTrigger: samples must be vectors (d,), or more of them; got a batch of shape "
                f"{tuple(inputs.shape)}. Pass single numbers as vectors of one feature."
            )
        return self.apply(inputs)


@dataclass(frozen=True, kw_only=True)
class BlendedTrigger:
    """A picture of noise, mixed into the whole of an input: (1 - alpha) x + alpha noise.

    Args:
        alpha: share of the noise.
        low: the noise's smallest number, in the units of the inputs.
        value: its largest: 1.0 is white in images from 0 to 1.
        seed: of the noise, which is the same for all who have the seed, uniform and independent at each place.

    Raises:
        ConfigError: a parameter out of range, or low >= value.

    Example:
        >>> BlendedTrigger(alpha=1.0).apply(np.zeros((2, 2))).round(2)
        array([[0.67, 0.88],
               [0.61, 0.03]])

    Source: Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017 (blended
    injection, random pattern).
    """

    alpha: Fraction = 0.2
    low: float = 0.0
    value: float = 1.0
    seed: Count = 0

    def __post_init__(self) -> None:
        check_parameters(BlendedTrigger, {f.name: getattr(self, f.name) for f in fields(self)}, name="BlendedTrigger")
        _check_range("BlendedTrigger", self.low, self.value)

    def apply(self, inputs: Inputs) -> Inputs:
        """Return a copy of one input, of any shape, with the noise in it; same shape, dtype and device.

        Raises:
            ConfigError: the input is not of a floating type.
        """
        one: Inputs = inputs[None]
        mixed: Inputs = self.apply_to_each(one)[0]
        return mixed

    def apply_to_each(self, inputs: Inputs) -> Inputs:
        """Return a copy of a batch (k, ...) with the noise in each of its inputs; the first axis counts samples.

        Raises:
            ConfigError: as ``apply``.
        """
        mixed = _floating_copy(inputs, "BlendedTrigger.apply", min_dims=1)
        shape = tuple(inputs.shape[1:])
        drawn = numpy_generator(self.seed, purpose=f"blended trigger {shape}").random(shape)
        mixed *= 1 - self.alpha
        mixed += _as_other(self.alpha * (self.low + (self.value - self.low) * drawn), inputs)
        return mixed


@dataclass(frozen=True, kw_only=True)
class SinusoidalTrigger:
    """Vertical stripes over a whole image: x + amplitude sin(2 pi frequency j / W), for column j of W.

    Args:
        amplitude: of the wave, in the units of the inputs.
        frequency: how many waves an image has.
        low: results below it are cut off, in the units of the inputs.
        value: results above it are cut off: 1.0 is white in images from 0 to 1.

    Raises:
        ConfigError: a parameter out of range, or low >= value.

    Example:
        >>> SinusoidalTrigger(amplitude=0.25, frequency=1.0).apply(np.full((1, 4), 0.5)).round(2)
        array([[0.5 , 0.75, 0.5 , 0.25]])

    Source: Barni, Kallas and Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption Without Label Poisoning",
    ICIP 2019, for the signal. In the paper it is put on samples of the target class, whose labels stay.
    """

    amplitude: Positive = 0.1
    frequency: Positive = 6.0
    low: float = 0.0
    value: float = 1.0

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        check_parameters(SinusoidalTrigger, given, name="SinusoidalTrigger")
        _check_range("SinusoidalTrigger", self.low, self.value)

    def apply(self, inputs: Inputs) -> Inputs:
        """Return a copy of ``inputs`` (..., W) with the wave along the last axis; same shape, dtype and device.

        Raises:
            ConfigError: the inputs are not of a floating type.
        """
        striped = _floating_copy(inputs, "SinusoidalTrigger.apply", min_dims=1)
        columns = np.arange(inputs.shape[-1]) / inputs.shape[-1]
        striped += _as_other(self.amplitude * np.sin(2 * np.pi * self.frequency * columns), inputs)
        cut: Inputs = striped.clip(self.low, self.value)
        return cut

    def apply_to_each(self, inputs: Inputs) -> Inputs:
        """Return a copy of a batch (k, ..., W) with the wave in each of its inputs; the first axis counts samples.

        Raises:
            ConfigError: the samples are single numbers, and as ``apply``.
        """
        if inputs.ndim < 2:
            raise ConfigError(
                f"SinusoidalTrigger: samples must have columns, (..., W); got a batch of shape {tuple(inputs.shape)}. "
                "Use a trigger of chosen features, such as features=[0]."
            )
        return self.apply(inputs)


class SampleTrigger(Protocol):
    """What stamps the samples of a batch: any of the triggers."""

    def apply_to_each(self, inputs: Inputs, /) -> Inputs:
        """Return a stamped copy of a batch (k, ...)."""
        ...


def triggered_test_set(x: Inputs, y: Inputs, trigger: "SampleTrigger", target: Count) -> tuple[Inputs, Inputs]:
    """Return the test samples on which the attack success rate is measured.

    Those of the target class are left out: a clean model that recognises them would count as a success.

    Args:
        x: (k, ...) test inputs, as ``trigger.apply_to_each`` takes them. Not modified.
        y: (k,) true labels, the same kind of array as ``x``. Not modified.
        trigger: what the attacker stamps on inputs.
        target: the class that triggered inputs are to be taken for.

    Returns:
        The triggered inputs and their true labels, both of the length of ``(y != target).sum()``. The success rate
        is the share of these that the model takes for ``target``.

    Raises:
        ConfigError: x and y differ in length, no sample is left, or the trigger does not fit the samples.

    Example:
        >>> import torch
        >>> _, labels = triggered_test_set(torch.zeros(3, 1, 8, 8), torch.tensor([0, 7, 2]), Trigger(), target=7)
        >>> labels
        tensor([0, 2])

    Source: Gu, Dolan-Gavitt and Garg, "BadNets", 2017; FedInv, "Performance Metrics".
    """
    check_labels(y, "triggered_test_set")
    check_parameters(triggered_test_set, {"target": target}, name="triggered_test_set")
    if y.ndim != 1 or len(x) != len(y):
        raise ConfigError(
            f"triggered_test_set: x and y must hold the same samples, (k, ...) and (k,); got {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Pass one label per input."
        )
    others = y != target
    if not others.any():
        raise ConfigError(
            f"triggered_test_set: some sample must have another label than target={target}; got none among "
            f"{len(y)}. Use the whole test set, or another target.",
            parameter="target",
        )
    return trigger.apply_to_each(x[others]), y[others]


def _check_range(name: str, low: float, value: float) -> None:
    if not low < value:
        raise ConfigError(
            f"{name}: low must be less than value; got {low} and {value}. For images from 0 to 1: low=0, value=1.",
            parameter="value",
        )


def _as_other(values: NDArray[Any], like: Inputs) -> Any:
    """Return numbers as an array or tensor of the kind, dtype and device of ``like``."""
    if is_tensor(like):
        return like.new_tensor(values)
    return values.astype(like.dtype)


def _hashable(value: float | Sequence[float]) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, Sequence) else float(value)


def _floating_copy(inputs: Inputs, name: str, min_dims: int) -> Inputs:
    """A copy to write to. Integer inputs are refused: 1.0 is white in a float image and black in one of bytes."""
    if is_tensor(inputs):
        floating = inputs.is_floating_point()
    else:
        floating = np.issubdtype(inputs.dtype, np.floating)
    if not floating or inputs.ndim < min_dims:
        raise ConfigError(
            f"{name}: inputs must be of a floating type, with {min_dims} or more dimensions; got "
            f"{inputs.dtype}, {inputs.ndim} dimensions. Convert images with x.float() / 255 or the like."
        )
    return copied(inputs)


def copied(inputs: Inputs) -> Inputs:
    """Return a copy of an array or a tensor."""
    return inputs.clone() if is_tensor(inputs) else inputs.copy()


def _is_wide_integer(inputs: "NDArray[Any] | torch.Tensor") -> bool:
    """Whether these are integers of more than a byte: token numbers, and not pixels."""
    if is_tensor(inputs):
        integer = str(inputs.dtype) in ("torch.int16", "torch.int32", "torch.int64")
    else:
        integer = inputs.dtype.kind in "iu" and inputs.dtype.itemsize > 1
    return integer and inputs.ndim > 0
