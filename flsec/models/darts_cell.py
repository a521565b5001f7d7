from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.parameters import PositiveCount

__all__ = ["DARTSCell"]

OPERATIONS = ("none", "skip", "conv_3x3", "conv_1x1", "avg_pool_3x3")
_Channels = Annotated[int, Ge(2)]


class DARTSCell(nn.Module):
    """A network whose architecture is learned: cells in which every connection is a weighted mix of operations.

    A small DARTS: a 3 x 3 convolution, ``cells`` cells with average pooling (2 x 2) between them, global average
    pooling, one linear layer. A cell's nodes are its input and ``nodes`` more; each of these is the sum of what all
    nodes before it send, and the cell returns their mean. On each connection the five operations are weighted by the
    softmax of its row of ``alpha``, which all cells share, as DARTS's normal cells do. Convolutions are normalised over
    each image (no statistics to average), without learned scales, as in DARTS's search. Sizes, one input a cell in
    place of two, and plain convolutions in place of separable ones, are ours: it is for two cores.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        nodes: of a cell, beside its input.
        cells: one after the other.
        channels: of every node.

    Attributes:
        alpha: (connections, operations), a parameter like the others: it travels, and is averaged and defended.

    Raises:
        ConfigError: a parameter out of its range, or an input that is no image.

    Example:
        >>> model = DARTSCell((1, 8, 8), 10, nodes=2, cells=1)
        >>> with torch.no_grad():
        ...     model.alpha[:, 2] = torch.tensor([1.0, 2.0, 3.0])
        >>> model.architecture()
        {'node 1': ['conv_3x3 from the input'], 'node 2': ['conv_3x3 from the input', 'conv_3x3 from node 1']}

    Source: Liu, Simonyan and Yang, "DARTS", ICLR 2019, Sec. 2; He, Annavaram and Avestimehr, "FedNAS", 2020.
    """

    tasks: ClassVar[tuple[str, ...]] = ("nas", "classification")

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        nodes: PositiveCount = 3,
        cells: PositiveCount = 2,
        channels: _Channels = 8,
    ):
        super().__init__()
        check_arguments(DARTSCell, locals())
        depth, _, _ = image_shape(
            DARTSCell, input_shape, smallest=1, advice="Use another task and model, such as mlp, for such data."
        )
        self.edges = [(start, end) for end in range(1, nodes + 1) for start in range(end)]
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.edges), len(OPERATIONS)))
        self.stem = nn.Conv2d(depth, channels, 3, padding=1)
        self.cells = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(_operations(channels)) for _ in self.edges) for _ in range(cells)
        )
        self.output = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        shares = self.alpha.softmax(dim=1)
        maps = self.stem(x)
        for index, cell in enumerate(self.cells):
            if index:
                maps = nn.functional.avg_pool2d(maps, 2, ceil_mode=True)
            maps = self._run(cell, maps, shares)
        logits: Tensor = self.output(maps.mean(dim=(2, 3)))
        return logits

    def _run(self, cell: nn.Module, maps: Tensor, shares: Tensor) -> Tensor:
        values = [maps]
        mixed: dict[int, list[Tensor]] = {}
        edges: list[nn.ModuleList] = list(cell.children())  # type: ignore[arg-type]
        for (start, end), operations, share in zip(self.edges, edges, shares, strict=True):
            if end == len(values) + 1:  # the node before is complete
                values.append(torch.stack(mixed[end - 1]).sum(dim=0))
            # "none" sends nothing, but takes its share
            sent = [weight * operation(values[start]) for weight, operation in zip(share[1:], operations, strict=True)]
            mixed.setdefault(end, []).append(torch.stack(sent).sum(dim=0))
        values.append(torch.stack(mixed[len(values)]).sum(dim=0))
        return torch.stack(values[1:]).mean(dim=0)

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that choose the architecture; all others are weights."""
        return [self.alpha]

    def architecture(self) -> dict[str, list[str]]:
        """Return the architecture that ``alpha`` stands for: what each node of a cell is the sum of.

        A connection's operation is the one of the largest share, "none" apart; a node keeps the two connections whose
        operations have the largest shares.
        """
        shares, operations = self.alpha.detach().softmax(dim=1)[:, 1:].max(dim=1)
        derived = {}
        for node in range(1, self.edges[-1][1] + 1):
            into = [index for index, (_, end) in enumerate(self.edges) if end == node]
            kept = sorted(sorted(into, key=lambda index: -float(shares[index]))[:2])
            derived[f"node {node}"] = [
                f"{OPERATIONS[1 + int(operations[index])]} from {_node_name(self.edges[index][0])}" for index in kept
            ]
        return derived


def _operations(channels: int) -> list[nn.Module]:
    """Return the operations but "none", in the order of ``OPERATIONS``; none of them changes the size of a map."""
    return [
        nn.Identity(),
        _convolution(channels, 3),
        _convolution(channels, 1),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    ]


def _convolution(channels: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, size, padding=size // 2, bias=False),
        nn.GroupNorm(1, channels, affine=False),
    )


def _node_name(node: int) -> str:
    return f"node {node}" if node else "the input"
