"""CRFL's certificate: how large a backdoor may be that does not change a smoothed model's prediction."""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flsec._calls import explained
from flsec.aggregation.crfl import clip_model
from flsec.errors import ConfigError
from flsec.metrics._labels import Labels, matching
from flsec.parameters import Fraction, NonNegative, OpenFraction, Positive, PositiveCount, check_parameters
from flsec.randomness import generator as _generator
from flsec.state_arrays import is_state_name

__all__ = [
    "Certificate",
    "VoteBounds",
    "certified_accuracy",
    "certified_backdoor_radius",
    "certify_model",
    "logistic_lipschitz",
    "noise_contraction",
    "smoothed_votes",
    "vote_bounds",
]

ABSTAIN = -1


class VoteBounds(NamedTuple):
    """What a smoothed model's votes say about its class probabilities.

    Attributes:
        predictions: (n,) int64, the class with the most votes; -1 where ``top`` does not exceed ``runner_up``.
        top: (n,) float64, lower bound of its probability.
        runner_up: (n,) float64, upper bound of the probability of the class with the second most votes.

    Example:
        >>> bounds = vote_bounds(torch.tensor([[990, 10], [500, 500]]), alpha=0.01)
        >>> bounds.predictions.tolist()  # the second sample's votes tell nothing
        [0, -1]
    """

    predictions: Tensor
    top: Tensor
    runner_up: Tensor


class Certificate(NamedTuple):
    """A smoothed model's predictions, and how far each is certified.

    Attributes:
        predictions: (n,) int64; -1 where the smoothed model abstains.
        radii: (n,) float64, RAD; 0 where it abstains.

    Example:
        >>> Certificate(predictions=torch.tensor([3, -1]), radii=torch.tensor([0.25, 0.0])).radii.tolist()
        [0.25, 0.0]
    """

    predictions: Tensor
    radii: Tensor


@explained
@torch.no_grad()
def smoothed_votes(
    model: nn.Module,
    x: Tensor,
    std: NonNegative,
    num_copies: PositiveCount = 1000,
    generator: torch.Generator | None = None,
    batch_size: PositiveCount = 1024,
) -> Tensor:
    """Return how many noisy copies of a model vote for each class.

    Each copy has independent N(0, std^2) noise on every weight, which is what CRFL's server clips and perturbs: all
    floating point parameters and persistent buffers but BatchNorm's statistics. Those stay as they are, and clients
    have moved them: what follows from the votes holds for models without BatchNorm.

    Args:
        model: the clipped model, used in eval mode on the device it is on; it is not changed.
        x: (n, ...) inputs.
        std: sigma_T.
        num_copies: M.
        generator: of the noise, on the CPU; advanced. None: seeded with 0.
        batch_size: examples at a time; does not change the result.

    Returns:
        (n, C) int64 on the CPU; each row sums to ``num_copies``.

    Raises:
        ConfigError: no inputs, or a setting out of its range.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> with torch.no_grad(): _ = model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> smoothed_votes(model, torch.tensor([[1.0], [-2.0]]), std=0.01, num_copies=50)
        tensor([[50,  0],
                [ 0, 50]])

    Source: Xie et al., CRFL, ICML 2021, Algorithm 2 (test-time smoothing); M = 1000.
    """
    settings = {"std": std, "num_copies": num_copies, "batch_size": batch_size}
    check_parameters(smoothed_votes, settings, name="smoothed_votes")
    if not len(x):
        raise ConfigError("smoothed_votes: there are no inputs; at least one is needed.")
    random = torch.Generator().manual_seed(0) if generator is None else generator
    noisy = copy.deepcopy(model).eval()
    originals = [(tensor, tensor.clone()) for tensor in _floats(noisy)]
    votes: Tensor | None = None
    for _ in range(num_copies):
        for tensor, original in originals:
            noise = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
            tensor.copy_(original + (std * noise).to(original))
        logits = torch.cat([noisy(batch.to(_device(noisy))).cpu() for batch in torch.split(x, batch_size)])
        if votes is None:
            votes = torch.zeros(logits.shape, dtype=torch.int64)
        votes[torch.arange(len(x)), logits.argmax(dim=1)] += 1
    assert votes is not None
    return votes


@explained
def vote_bounds(votes: Tensor, alpha: OpenFraction = 0.001) -> VoteBounds:
    """Return the predicted class of each row of votes, and Hoeffding's bounds on its and the next class's probability.

    With M votes, p_A >= votes_A / M - m and p_B <= votes_B / M + m, m = sqrt(ln(1 / alpha) / (2 M)): each of the two
    holds with probability 1 - alpha for a class that is named beforehand. Since A and B are chosen by the same votes,
    what holds for sure is that both are right with probability 1 - 2 C alpha for C classes.

    Args:
        votes: (n, C) whole numbers, C >= 2, rows with at least one vote.
        alpha: the error of one bound.

    Raises:
        ConfigError: votes of another form, or alpha outside (0, 1).

    Example:
        >>> bounds = vote_bounds(torch.tensor([[990, 10], [520, 480]]))
        >>> bounds.predictions.tolist(), [round(p, 4) for p in bounds.top.tolist()]
        ([0, -1], [0.9312, 0.4612])

    Source: Xie et al., CRFL, ICML 2021, Algorithm 2 with Hoeffding's inequality, alpha = 0.001. The released program
    certifies where the bounds overlap, too; the algorithm in the paper abstains.
    """
    check_parameters(vote_bounds, {"alpha": alpha}, name="vote_bounds")
    if votes.ndim != 2 or votes.shape[1] < 2 or bool((votes < 0).any()) or bool((votes.sum(dim=1) < 1).any()):
        raise ConfigError(
            "vote_bounds needs votes of shape (n, C), C at least 2, none negative and at least one in each row; got "
            f"shape {tuple(votes.shape)}."
        )
    totals = votes.sum(dim=1)
    margins = torch.sqrt(math.log(1 / alpha) / (2 * totals.double()))
    winners = votes.argmax(dim=1)
    first = votes.gather(1, winners[:, None]).squeeze(1)
    second = votes.scatter(1, winners[:, None], -1).amax(dim=1)
    top = (first / totals.double() - margins).clamp(min=0)
    runner_up = (second / totals.double() + margins).clamp(max=1)
    return VoteBounds(torch.where(top > runner_up, winners, ABSTAIN), top, runner_up)


@explained
def certified_backdoor_radius(
    votes: Tensor,
    *,
    attacker_weights: Sequence[Fraction],
    learning_rate: Positive,
    num_steps: PositiveCount,
    lipschitz: Positive,
    poisoned_share: Fraction = 1.0,
    boost: Positive = 1.0,
    std: Positive = 0.01,
    contraction: Fraction = 1.0,
    alpha: OpenFraction = 0.001,
) -> Certificate:
    """Return RAD of each prediction: backdoors smaller than this do not change it.

    Bounded is |delta|, the Euclidean norm of what the attackers add to each poisoned training example, in its inputs
    and its one-hot label together. They attack in one round t_adv, the same way each::

        RAD^2 = -ln(1 - (sqrt(p_A) - sqrt(p_B))^2) sigma^2
                / (2 R L_Z^2 sum_i (p_i gamma tau eta q_B / n_B)^2 prod_t (2 Phi(rho_t / sigma_t) - 1))

    It holds where the paper's premises hold: plain averaging of updates from plain SGD with steps of at most
    1 / smoothness on a convex loss, gradients that are L_Z-Lipschitz in the example, CRFL's clipping and noise in every
    round, and the class probabilities within the bounds of ``vote_bounds``. For networks L_Z is an assumption.

    Args:
        votes: (n, C) of the final model, see ``smoothed_votes``.
        attacker_weights: p_i, the weight of each attacker in the average: ``[1 / 20]`` for one of twenty clients.
        learning_rate: eta, of the clients in round t_adv.
        num_steps: tau, of local SGD in that round.
        lipschitz: L_Z, see ``logistic_lipschitz``.
        poisoned_share: q_B / n_B, how much of each batch is poisoned.
        boost: gamma, what attackers multiply their update by.
        std: sigma of the noise that was added in round t_adv.
        contraction: the product over the rounds after t_adv, see ``noise_contraction``; 1 is always safe.
        alpha: see ``vote_bounds``.

    Returns:
        Predictions, and radii: 0 where the smoothed model abstains, infinite where the noise between attack and end
        washes everything out.

    Raises:
        ConfigError: no attacker, or a value out of its range.

    Example:
        >>> certificate = certified_backdoor_radius(
        ...     torch.tensor([[1000, 0], [700, 300]]),
        ...     attacker_weights=[1 / 20], learning_rate=0.001, num_steps=30, poisoned_share=0.05, boost=10.0,
        ...     lipschitz=logistic_lipschitz(3.0),
        ... )
        >>> [round(radius, 3) for radius in certificate.radii.tolist()]
        [1.986, 0.466]

    Source: Xie et al., CRFL, ICML 2021, Theorem 1 and Corollary 1 (feature-level radius); the released program.
    """
    settings = {"attacker_weights": list(attacker_weights), "learning_rate": learning_rate, "num_steps": num_steps}
    settings.update(lipschitz=lipschitz, poisoned_share=poisoned_share, boost=boost, std=std, contraction=contraction)
    check_parameters(certified_backdoor_radius, settings, name="certified_backdoor_radius")
    if not attacker_weights:
        raise ConfigError("certified_backdoor_radius: attacker_weights needs the weight of at least one attacker.")
    bounds = vote_bounds(votes, alpha)
    gap = (bounds.top.sqrt() - bounds.runner_up.sqrt()).clamp(min=0)
    reach = boost * num_steps * learning_rate * poisoned_share
    strength = 2 * len(attacker_weights) * lipschitz**2 * math.fsum((w * reach) ** 2 for w in attacker_weights)
    radii = (-torch.log1p(-gap.square()) * std**2 / (strength * contraction)).sqrt()
    return Certificate(bounds.predictions, torch.where(bounds.predictions == ABSTAIN, 0.0, radii))


@explained
def noise_contraction(max_norms: Sequence[Positive], std: Positive = 0.01) -> float:
    """Return what clipping and noise leave of an attack in the rounds after it: prod_t (2 Phi(rho_t / sigma) - 1).

    Args:
        max_norms: rho_t of the rounds t_adv + 1, ..., T, see ``flsec.aggregation.crfl_max_norm``.
        std: sigma, the same in training and at test time.

    Raises:
        ConfigError: a value that is not positive.

    Example:
        >>> noise_contraction([15.0] * 90)  # the bound is 1500 standard deviations: nothing fades
        1.0
        >>> round(noise_contraction([1.0, 1.0], std=1.0), 4)
        0.4661

    Source: Xie et al., CRFL, ICML 2021, Theorem 1.
    """
    check_parameters(noise_contraction, {"max_norms": list(max_norms), "std": std}, name="noise_contraction")
    return math.prod(math.erf(bound / (std * math.sqrt(2))) for bound in max_norms)


@explained
def logistic_lipschitz(max_norm: Positive) -> float:
    """Return L_Z of multi-class logistic regression on inputs of norm at most 1: sqrt(2 + 2 rho + rho^2).

    Args:
        max_norm: rho of the round of the attack, the bound on the model's norm.

    Raises:
        ConfigError: max_norm is not positive.

    Example:
        >>> round(logistic_lipschitz(3.0), 4)
        4.1231

    Source: Xie et al., CRFL, ICML 2021, appendix on multi-class logistic regression; the released program.
    """
    check_parameters(logistic_lipschitz, {"max_norm": max_norm}, name="logistic_lipschitz")
    return math.sqrt(2 + 2 * max_norm + max_norm**2)


@explained
def certified_accuracy(certificate: Certificate, true_labels: Labels, radii: Sequence[NonNegative]) -> list[float]:
    """Return, for each radius, the share of examples that are predicted right and certified at least that far.

    Args:
        certificate: of the n examples.
        true_labels: (n,).
        radii: where to evaluate the curve.

    Returns:
        One number in [0, 1] for each radius, never rising with it. A prediction that is abstained from counts as wrong.

    Raises:
        ConfigError: labels of another length, or no examples.

    Example:
        >>> certificate = Certificate(torch.tensor([0, 1, -1, 1]), torch.tensor([0.5, 2.0, 0.0, 1.0]))
        >>> certified_accuracy(certificate, [0, 1, 1, 0], radii=[0.0, 1.0, 3.0])
        [0.5, 0.25, 0.0]

    Source: Xie et al., CRFL, ICML 2021, Sec. 5 (certified accuracy at r).
    """
    predictions, truth = matching(certificate.predictions.cpu(), true_labels)
    if not len(truth):
        raise ConfigError("certified_accuracy: there are no examples; at least one is needed.")
    right = certificate.radii.cpu()[torch.from_numpy((predictions == truth) & (predictions != ABSTAIN))]
    return [int((right >= radius).sum()) / len(truth) for radius in radii]


@explained
def certify_model(
    model: nn.Module,
    x: Tensor,
    *,
    attacker_weights: Sequence[Fraction],
    learning_rate: Positive,
    num_steps: PositiveCount,
    lipschitz: Positive,
    poisoned_share: Fraction = 1.0,
    boost: Positive = 1.0,
    max_norm: Positive = 15.0,
    std: Positive = 0.01,
    contraction: Fraction = 1.0,
    alpha: OpenFraction = 0.001,
    num_copies: PositiveCount = 1000,
    seed: int = 0,
) -> Certificate:
    """Return the certificate of the final model of a run with CRFL on a test set.

    Clips the model, lets noisy copies of it vote, and computes RAD. ``certified_accuracy`` then gives the curve.

    Args:
        model: the run's final model, without noise; it is not changed.
        x: (n, ...) test inputs.
        attacker_weights: see ``certified_backdoor_radius``, as for the next five.
        learning_rate: eta.
        num_steps: tau.
        lipschitz: L_Z.
        poisoned_share: q_B / n_B.
        boost: gamma.
        max_norm: rho_T of the last round, to which CRFL has clipped the model already.
        std: sigma, the same in training and at test time.
        contraction: see ``certified_backdoor_radius``.
        alpha: see ``vote_bounds``.
        num_copies: M.
        seed: of the noise.

    Raises:
        ConfigError: no inputs, or a value out of its range.

    Example:
        >>> from flsec.models import Softmax
        >>> model = Softmax((1,), 2)
        >>> _ = model.output.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> certificate = certify_model(
        ...     model, torch.tensor([[3.0], [-3.0]]), attacker_weights=[0.01], learning_rate=0.001, num_steps=1,
        ...     lipschitz=1.0, std=0.1, num_copies=200,
        ... )
        >>> certificate.predictions.tolist(), bool((certificate.radii > 0).all())
        ([1, 0], True)

    Source: Xie et al., CRFL, ICML 2021, Algorithm 2.
    """
    check_parameters(certify_model, {"max_norm": max_norm, "seed": seed}, name="certify_model")
    clipped = copy.deepcopy(model)
    tensors = _floats(clipped)
    flat = clip_model(torch.cat([tensor.detach().flatten() for tensor in tensors]), max_norm)
    with torch.no_grad():
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
    votes = smoothed_votes(clipped, x, std, num_copies, _generator(seed, purpose="certified smoothing"))
    return certified_backdoor_radius(
        votes,
        attacker_weights=attacker_weights,
        learning_rate=learning_rate,
        num_steps=num_steps,
        lipschitz=lipschitz,
        poisoned_share=poisoned_share,
        boost=boost,
        std=std,
        contraction=contraction,
        alpha=alpha,
    )


def _floats(model: nn.Module) -> list[Tensor]:
    """Return the floating point tensors that are weights, tied ones once."""
    weights = {
        id(value): value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor) and value.is_floating_point() and not is_state_name(name)
    }
    return list(weights.values())


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in _floats(model)), torch.device("cpu"))
