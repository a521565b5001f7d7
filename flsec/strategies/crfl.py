"""CRFL as a Flower strategy."""

from typing import Any

import torch
from torch import Tensor

from flsec.aggregation.crfl import crfl, crfl_max_norm
from flsec.parameters import NonNegative, Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["CRFL"]


class CRFL(RobustStrategy):
    """Clip each new global model to a largest L2 norm and add Gaussian noise to it, except in the last round.

    Args:
        strategy: the strategy to protect.
        max_norm: rho, the bound on the norm of the model (not of an update), in parameter units. The norm of the
            initial weights should lie below it.
        std: sigma, the standard deviation of the noise on each parameter, in parameter units.
        initial_norm: what the bound grows from, see ``norm_growth``; None: it is ``max_norm`` in all rounds.
        norm_growth: with ``initial_norm``, the bound in round t is initial_norm + norm_growth * t, up to max_norm. The
            released program has 2 and 0.1 for MNIST.
        num_rounds: rounds of the run; a simulation supplies it. Without it the last round has noise, too.
        seed: seed of the noise. A round's noise depends on it and on the round's number alone.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``max_norm`` or ``initial_norm`` is not positive, ``std`` or ``norm_growth`` is negative, or
            ``num_rounds`` is not at least 1. Others: see ``RobustStrategy``.

    Changes the (d,) new model. What it buys is a certificate, for the final model: ``flsec.metrics.certify_model`` lets
    noisy copies of it vote on each test sample and says how large a backdoor may have been that does not change the
    outcome; ``flsec.metrics.certified_accuracy`` gives the curve. Without that it is a weak defense. BatchNorm's
    statistics are neither clipped nor perturbed, and no certificate covers what clients do to them: use networks
    without. O(d) time and extra memory, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(CRFL(FedAvg(), max_norm=10.0, std=0.0), [[15.0, 20.0], [45.0, 60.0]])  # from norm 50
        tensor([6., 8.])

    Source: Xie et al., CRFL, ICML 2021, Algorithm 1.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        max_norm: Positive = 15.0,
        std: NonNegative = 0.01,
        initial_norm: Positive | None = None,
        norm_growth: NonNegative = 0.0,
        num_rounds: PositiveCount | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.max_norm = max_norm
        self.std = std
        self.initial_norm = initial_norm
        self.norm_growth = norm_growth
        self.num_rounds = num_rounds
        self.seed = seed

    def after_aggregation(self, parameters: Tensor, cohort: Cohort) -> Tensor:
        """Return the clipped model with noise; without it in the last round."""
        bound = crfl_max_norm(cohort.round, self.max_norm, self.initial_norm, self.norm_growth)
        last = self.num_rounds is not None and cohort.round >= self.num_rounds
        norm = float(torch.linalg.vector_norm(parameters, dtype=torch.float64))
        self.report(norm=norm, max_norm=bound, noise=0.0 if last else self.std)
        return crfl(parameters, bound, 0.0 if last else self.std, self.seed, cohort.round)
