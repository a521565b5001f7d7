"""Small claims of filters: colluders that reverse or shift, among honest rows that share a direction."""

import torch

HONEST, HOSTILE = 16, 4  # 20 % collude


def honest(seed, n=HONEST, d=1500, common=1.0):
    """Return honest rows: a step that all agree on, and noise of each client's own."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(d, generator=generator)
    return common * step + torch.randn(n, d, generator=generator)


def attacked(seed, attack, **facts):
    """Return 16 honest rows and 4 that are reversed and 4 times as long, or shifted together."""
    rows = honest(seed, HONEST + HOSTILE, **facts)
    own = rows[HONEST:]
    shift = 3 * rows[:HONEST].mean(dim=0).abs().mean()
    hostile = {"sign_flip": -4 * own, "shift": own - shift}
    return torch.cat([rows[:HONEST], hostile[attack]])
