from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flsec.reconstruction._files import load_arrays, save_arrays

__all__ = ["Reconstruction"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstruction:
    """What an attack made of a client's update.

    Attributes:
        inputs: (n, *input_shape), the rebuilt examples in no particular order, in the network's dtype.
        labels: (n,) int64, the label of each: given, revealed or rebuilt.
        loss: of the best start, as the attack defines it; says how well the update is explained, not how like the
            data the inputs are.
        restarts: how many random starts were made, at least 1.
        history: the loss after each iteration, one sequence per start; the first entry is that of the start itself.

    Example:
        >>> import tempfile
        >>> found = Reconstruction(
        ...     inputs=torch.zeros(1, 4), labels=torch.tensor([2]), loss=0.5, restarts=1, history=((1.0, 0.5),)
        ... )
        >>> path = Path(tempfile.mkdtemp()) / "found.safetensors"
        >>> found.save(path)
        >>> Reconstruction.load(path).labels
        tensor([2])
    """

    inputs: Tensor
    labels: Tensor
    loss: float
    restarts: int
    history: tuple[tuple[float, ...], ...]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that ``load`` reads; an existing one is replaced."""
        arrays = {"inputs": self.inputs.detach().cpu().numpy(), "labels": self.labels.detach().cpu().numpy()}
        save_arrays(
            Path(path),
            "reconstruction",
            arrays,
            {"loss": self.loss, "restarts": self.restarts, "history": self.history},
        )

    @classmethod
    def load(cls, path: str | Path) -> "Reconstruction":
        """Return what ``save`` wrote, on the CPU.

        Raises:
            ConfigError: there is no such file, or it is no reconstruction.
        """
        arrays, facts = load_arrays(Path(path), "reconstruction")
        return cls(
            inputs=torch.from_numpy(arrays["inputs"]),
            labels=torch.from_numpy(arrays["labels"]),
            loss=facts["loss"],
            restarts=facts["restarts"],
            history=tuple(tuple(losses) for losses in facts["history"]),
        )
