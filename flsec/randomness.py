"""All randomness of a run comes from one seed, through names rather than through the order of calls."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["generator", "numpy_generator", "seed_for"]


def seed_for(seed: int, round: int = 0, client: int = -1, purpose: str = "") -> int:
    """Return a 63-bit seed that depends on all four arguments and on nothing else.

    Args:
        seed: the seed of the run.
        round: server round, 1-based; 0 for what happens before the first.
        client: client id; -1 for the server.
        purpose: what the numbers are for, such as ``"batches"``, so that two uses never share a stream.

    Example:
        >>> seed_for(0, round=1) == seed_for(0, round=1), seed_for(0, round=1) == seed_for(0, round=2)
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}|{round}|{client}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(
    seed: int, round: int = 0, client: int = -1, purpose: str = "", device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Return a torch generator for one purpose of one client in one round; see ``seed_for``.

    Example:
        >>> import torch
        >>> torch.randint(100, (3,), generator=generator(0, round=1, client=3, purpose="batches"))
        tensor([27, 46, 83])
    """
    import torch  # here, so that clients without torch can draw numpy's numbers

    return torch.Generator(device=device).manual_seed(seed_for(seed, round, client, purpose))


def numpy_generator(seed: int, round: int = 0, client: int = -1, purpose: str = "") -> np.random.Generator:
    """Return a numpy generator for one purpose of one client in one round; see ``seed_for``.

    Example:
        >>> numpy_generator(0, round=1, client=3, purpose="batches").integers(100, size=3)
        array([47, 47, 87])
    """
    return np.random.default_rng(seed_for(seed, round, client, purpose))
