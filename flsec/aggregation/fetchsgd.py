"""FetchSGD's step on the server: momentum and error feedback inside a count sketch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flsec.aggregation.count_sketch import CountSketch
from flsec.aggregation.sparsefed import Coordinates, Momentum, num_coordinates
from flsec.parameters import check_parameters

__all__ = ["FetchSGDState", "SketchVariant", "fetchsgd_init", "fetchsgd_step"]

SketchVariant = Literal["released", "paper"]


@dataclass(frozen=True)
class FetchSGDState:
    """What the server keeps between rounds.

    Attributes:
        momentum: (rows, columns) float64, S_u.
        error: (rows, columns) float64, S_e.

    Example:
        >>> fetchsgd_init(CountSketch(rows=2, columns=3, size=10)).error.shape
        torch.Size([2, 3])
    """

    momentum: Tensor
    error: Tensor


def fetchsgd_init(sketch: CountSketch, *, device: torch.device | str = "cpu") -> FetchSGDState:
    """Return the state before the first round, two zero sketches.

    Args:
        sketch: the hash functions of the run.
        device: of the updates.

    Returns:
        The state, of two (rows, columns) float64 tensors.

    Example:
        >>> fetchsgd_init(CountSketch(rows=1, columns=2, size=10))
        FetchSGDState(momentum=tensor([[0., 0.]], dtype=torch.float64), error=tensor([[0., 0.]], dtype=torch.float64))

    Source: Rothchild et al., FetchSGD, ICML 2020, Algorithm 1.
    """
    zeros = torch.zeros(sketch.rows, sketch.columns, dtype=torch.float64, device=device)
    return FetchSGDState(zeros, zeros.clone())


@torch.no_grad()
def fetchsgd_step(
    state: FetchSGDState,
    update: Tensor,
    *,
    sketch: CountSketch,
    k: Coordinates,
    momentum: Momentum = 0.9,
    variant: SketchVariant = "released",
) -> tuple[Tensor, FetchSGDState]:
    """Return Delta, of which at most k entries are not zero, and the state for the next round.

    The new global model is theta + Delta: u is local minus global, and holds the clients' learning rate, the printed
    eta. A sketch is linear, so that the mean of the clients' sketches is the sketch S(u) of their mean u::

        S_u = rho S_u + S(u)              (Momentum)
        S_e = S_u + S_e                   (Error feedback)
        Delta = top_k(U(S_e))             (Unsketch)

    and then

    - ``"released"``, the default::

        S_e[S(Delta) != 0] = 0
        S_u[S(Delta) != 0] = 0            (momentum factor masking)

      in whole cells, with whatever else fell into them;

    - ``"paper"``, the printed line, with which the released program's authors saw training diverge::

        S_e = S_e - S(Delta)              (Error accumulation)

    With so many columns that no two coordinates meet, these are ``sparsefed_step``'s ``"released"`` and
    ``"paper_appendix"``.

    Args:
        state: of the round before; not modified.
        update: (d,), u, float32 or float64. Not modified. NaN and infinite entries count as 0.
        sketch: the hash functions, the same in every round.
        k: coordinates to change: a number (``1`` is one), or a share of d (``1.0`` is all).
        momentum: rho.
        variant: see above.

    Returns:
        Delta, (d,) with the dtype of ``update``, a new tensor, and a new state.

    Raises:
        ConfigError: shapes differ, k > d, or a setting is out of its range.

    O(rows d) time, O(d + rows columns) memory. Deterministic on a CPU.

    Example:
        >>> sketch = CountSketch(rows=5, columns=1000, size=4)
        >>> delta, state = fetchsgd_step(fetchsgd_init(sketch), torch.tensor([3.0, -1.0, 0.0, 2.0]), sketch=sketch, k=2)
        >>> delta
        tensor([3., 0., 0., 2.])
        >>> fetchsgd_step(state, torch.zeros(4), sketch=sketch, k=1)[0]  # what was left out comes later, with momentum
        tensor([ 0.0000, -1.9000,  0.0000,  0.0000])

    Source: Rothchild et al., FetchSGD, ICML 2020, Algorithm 1; Panda et al., SparseFed, AISTATS 2022, App. B.1.4,
    Algorithm 10; ``"released"``: github.com/kiddyboots216/CommEfficient, mode ``sketch``.
    """
    settings = {"k": k, "momentum": momentum, "variant": variant}
    check_parameters(fetchsgd_step, settings, name="fetchsgd_step")
    k = num_coordinates(k, sketch.size)
    u = update.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    velocity = sketch.sketch(u).add_(state.momentum, alpha=momentum)
    error = state.error + velocity
    delta = sketch.unsketch(error, k)
    sent = sketch.sketch(delta)
    if variant == "released":
        velocity.masked_fill_(sent != 0, 0.0)
        error.masked_fill_(sent != 0, 0.0)
    else:
        error.sub_(sent)
    return delta.to(update.dtype), FetchSGDState(velocity, error)
