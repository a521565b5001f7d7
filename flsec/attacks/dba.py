"""The distributed backdoor: each attacker trains on a part of a trigger, and the test stamps the whole."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from flsec.attacks.triggers import Inputs, Trigger, copied
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount, check_parameters

__all__ = ["DistributedTrigger", "parts_held"]


@dataclass(frozen=True, kw_only=True)
class DistributedTrigger:
    """Horizontal bars in two columns near the top left corner of an image; each is a part of the trigger.

    Args:
        parts: how many bars.
        length: of a bar in pixels; None: a seventh of the image's width, 4 of MNIST's 28, and at least 1.
        gap: pixels between bars, in both directions.
        margin: pixels between the bars and the edges of the image.
        value: what the pixels are set to, in the units of the images; see ``Trigger``.
        held: which bars are drawn, counted from 0; None: all.

    Raises:
        ConfigError: a parameter out of range, or no such bar.

    Example:
        >>> import torch
        >>> trigger = DistributedTrigger(length=1, gap=1)
        >>> trigger.apply_to_each(torch.zeros(1, 1, 3, 3))[0, 0]
        tensor([[1., 0., 1.],
                [0., 0., 0.],
                [1., 0., 1.]])
        >>> trigger.part([1]).apply_to_each(torch.zeros(1, 1, 3, 3))[0, 0]
        tensor([[0., 0., 1.],
                [0., 0., 0.],
                [0., 0., 0.]])

    Source: Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020: four bars of 1 by 4
    pixels with gaps of 2 on MNIST.
    """

    parts: PositiveCount = 4
    length: PositiveCount | None = None
    gap: Count = 2
    margin: Count = 0
    value: float | Sequence[float] = 1.0
    held: Sequence[Count] | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        check_parameters(DistributedTrigger, given, name="DistributedTrigger")
        for name in ("held", "value"):
            if isinstance(value := getattr(self, name), Sequence):
                object.__setattr__(self, name, tuple(value))
        if isinstance(self.value, int):
            object.__setattr__(self, "value", float(self.value))
        if self.held is not None and (not self.held or max(self.held) >= self.parts):
            raise ConfigError(
                f"DistributedTrigger: held must name at least one of the {self.parts} parts, 0 to {self.parts - 1}; "
                f"got {list(self.held)}.",
                parameter="held",
            )

    def part(self, held: Sequence[int]) -> "DistributedTrigger":
        """Return the trigger with these bars alone."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return DistributedTrigger(**{**given, "held": tuple(held)})

    def apply_to_each(self, images: Inputs) -> Inputs:
        """Return a copy of a batch (k, ..., H, W) of images with the bars on each of them.

        Raises:
            ConfigError: the samples are no floating images, or the whole trigger does not fit into them.
        """
        pixel = Trigger(shape="square", size=1, margin=0, value=self.value)
        pixel.apply_to_each(images[:1])  # refuses what is no image
        stamped = copied(images)
        height, width = images.shape[-2:]
        length = self.length or max(1, width // 7)
        bars = [self._corner(k, length) for k in range(self.parts)]
        bottom, right = max(row for row, _ in bars) + 1, max(column for _, column in bars) + length
        if bottom > height or right > width:
            raise ConfigError(
                f"DistributedTrigger: {self.parts} bars of {length} pixels with gaps of {self.gap} and a margin of "
                f"{self.margin} take {bottom} by {right} pixels; the images have {height} by {width}. Use a shorter "
                "length, such as 1.",
                parameter="length",
            )
        for part in range(self.parts) if self.held is None else self.held:
            row, column = bars[part]
            pixels = slice(column, column + length)
            if isinstance(self.value, float):
                stamped[..., row, pixels] = self.value
                continue
            for channel, value in enumerate(self.value):
                stamped[..., channel, row, pixels] = value
        return stamped

    def _corner(self, part: int, length: int) -> tuple[int, int]:
        """Return row and first column of a bar."""
        return self.margin + part // 2 * (1 + self.gap), self.margin + part % 2 * (length + self.gap)


def parts_held(rank: Count, num_attackers: PositiveCount, parts: PositiveCount) -> list[int]:
    """Return the parts of the trigger that an attacker trains on, so that together they hold every part.

    Args:
        rank: the attacker's place among the attackers, from 0.
        num_attackers: how many there are. More than ``parts``: several have the same part; fewer: each has several.
        parts: of the trigger.

    Raises:
        ConfigError: ``rank`` is negative, or ``num_attackers`` or ``parts`` is not at least 1.

    Example:
        >>> [parts_held(rank, 2, 4) for rank in range(2)], [parts_held(rank, 5, 4) for rank in range(5)]
        ([[0, 2], [1, 3]], [[0], [1], [2], [3], [0]])
    """
    given = {"rank": rank, "num_attackers": num_attackers, "parts": parts}
    check_parameters(parts_held, given, name="parts_held")
    if num_attackers >= parts:
        return [rank % parts]
    return list(range(rank % num_attackers, parts, num_attackers))
