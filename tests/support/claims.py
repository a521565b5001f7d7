"""Small claims of filters: colluders that reverse or shift, among honest rows that share a direction."""

import torch

from tests.support.cohorts import SIZE, cohort

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


class Descent:
    """Rounds of clients with quadratic losses and optima of their own, 4 of 20 of whom attack from some round on."""

    def __init__(self, seed, attack=None, first_round=1):
        self.generator = torch.Generator().manual_seed(seed)
        self.curvature = 0.1 + torch.rand(SIZE, generator=self.generator)
        self.optima = self.normal(SIZE) + 0.3 * self.normal(HONEST + HOSTILE, SIZE)
        self.model, self.attack, self.first_round, self.round = torch.zeros(SIZE), attack, first_round, 0

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def updates(self):
        rows = -0.1 * ((self.model - self.optima) * self.curvature + 0.05 * self.normal(HONEST + HOSTILE, SIZE))
        if self.attack is None or self.round < self.first_round:
            return rows
        if self.attack == "sign_flip":
            rows[HONEST:] *= -4
        if self.attack == "shift":  # together, by another amount in each round
            amount = 2 + 2 * torch.rand(1, generator=self.generator)
            rows[HONEST:] -= amount * rows.mean(dim=0).abs().mean()
        return rows

    def step(self, defense):
        """Play a round and return the ids of who was kept."""
        self.round += 1
        kept = defense.before_aggregation(cohort(self.updates(), round=self.round, model=self.model.clone()))
        self.model = self.model + kept.updates.mean(dim=0)
        return kept.client_ids
