"""The model of the contracts as a network, and the data of a server, for defenses that evaluate or train a model."""

import torch
from torch import Tensor, nn

from flsec._contracts.server import HONEST, HOSTILE, MODEL, STRANGER
from flsec.training import Training

# Steps that move every parameter up by about 0.1 in the first rounds, which is what the honest clients send.
TRAINING = Training(learning_rate=20.0, steps=1)


class Network(nn.Module):
    """Two classes, told apart by the sign of the sum of the inputs; the larger the parameters, the lower the loss."""

    def __init__(self) -> None:
        super().__init__()
        for name, array in MODEL.items():
            value = torch.from_numpy(array.copy())
            if value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, k) to logits (n, 2)."""
        margin = x.sum(dim=1) * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def _examples() -> tuple[Tensor, Tensor]:
    x = torch.linspace(0.005, 0.015, 20)[:, None]
    return torch.cat([x, -x]), torch.tensor([1, 0]).repeat_interleave(20)


ROOT_DATA = _examples()
CLIENT_SAMPLES = dict.fromkeys((*HONEST, *HOSTILE, STRANGER), ROOT_DATA)


def guiding_updates(updates: Tensor) -> Tensor:
    """Return what a server might compute for these rows: the rows themselves, unless they are much too long."""
    rows = updates.nan_to_num()
    norms = torch.linalg.vector_norm(rows.double(), dim=-1, keepdim=True)
    longest = 3 * norms.median() if len(updates) else norms.sum()
    shortened: Tensor = rows * (longest / norms).clamp(max=1)
    return shortened.to(updates.dtype)


def distance_to_median(updates: Tensor) -> "SquaredDistance":
    """Return a loss of aggregates that is least at the median of these rows."""
    return SquaredDistance(updates.double().nanmedian(dim=0).values if len(updates) else updates.new_zeros(1))


class SquaredDistance:
    def __init__(self, center: Tensor):
        self.center = center

    def __call__(self, update: Tensor) -> float:
        return float((update.double() - self.center.to(update.device)).square().sum())
